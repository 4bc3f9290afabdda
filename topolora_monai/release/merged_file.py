"""Merged networks as single safetensors files, which need neither adapter nor base."""

from pathlib import Path

from torch import nn

import topolora_monai
from topolora_monai.adapters import read_spec
from topolora_monai.adapters.tensor_files import non_finite, read_header, read_tensors
from topolora_monai.errors import AdapterFileError, ConfigError, OutputError, first_line
from topolora_monai.io.atomic import writing
from topolora_monai.io.download import file_sha256
from topolora_monai.io.json_files import json_text
from topolora_monai.model.network import adapted_network, merged_network
from topolora_monai.spec import ModelSpec
from topolora_monai.weights.files import write_tensors

_HEADER_KEY = "topolora_monai_merged"
_KIND = "merged network"


def write_merged(
    adapter: str | Path, out: str | Path, weights: str | Path | None = None, overwrite: bool = False
) -> ModelSpec:
    """Fold an adapter into its base and write the whole network; what cannot be folded stays as modules.

    Args:
        adapter: an adapter file.
        out: where to, ending in ``.safetensors``; written beside and renamed.
        weights: checkpoint of the base; None if the adapter was trained on seeded random weights.
        overwrite: replace an older file.

    Returns:
        What the file says: what the adapter does, by the version that merged, with ``adapter_sha256`` among
        :attr:`~topolora_monai.model.ModelSpec.further`.

    Raises:
        ConfigError: if ``out`` has another ending.
        AdapterFileError: if the adapter is damaged or does not belong to ``weights``.
        CheckpointError: if ``weights`` cannot be read.
        OutputError: if ``out`` exists or cannot be written; an older file is left as it was.
    """
    out = Path(out)
    if out.suffix.lower() != ".safetensors":
        raise ConfigError("a merged network ends in .safetensors", found=out.name)
    if out.exists() and not overwrite:
        raise OutputError("file exists already", path=out, hint="choose another --out, or give --force")
    spec = read_spec(adapter)
    state = adapted_network(adapter, weights).state_dict()
    origin = {"adapter_sha256": file_sha256(adapter), "adapter_package_version": spec.package_version}
    merged = spec.replace(package_version=topolora_monai.__version__, further={**spec.further, **origin})
    with writing(out, "the merged network", "choose another --out"):
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        write_tensors(state, out, {_HEADER_KEY: json_text(merged.to_header())})
    return merged


def read_merged_spec(path: str | Path) -> ModelSpec:
    """What a merged network's file says of itself; errors as of :func:`load_merged`."""
    return ModelSpec.from_header(read_header(path, _HEADER_KEY, _KIND), path)


def load_merged(path: str | Path) -> nn.Module:
    """Network of a file that :func:`write_merged` wrote, in evaluation mode; loaded strictly.

    Raises:
        AdapterFileError: if the file is missing, damaged, edited, or no merged network of this package.

    Example:
        >>> import tempfile
        >>> from topolora_monai.adapters import adapt, preset_config, save_adapter
        >>> from topolora_monai.networks import build_network
        >>> folder = Path(tempfile.mkdtemp())
        >>> adaptation = adapt(build_network("vit_tiny_test", image_size=64), preset_config("lora"))
        >>> save_adapter(adaptation, folder / "adapter.safetensors", image_size=64)
        >>> _ = write_merged(folder / "adapter.safetensors", folder / "merged.safetensors")
        >>> load_merged(folder / "merged.safetensors").image_size
        64
    """
    spec = read_merged_spec(path)
    state = read_tensors(path, _KIND)
    broken = non_finite(state)
    if broken:
        raise AdapterFileError("merged network holds values that are not finite", path=path, found=broken[0])
    try:
        network = merged_network(spec)
        network.load_state_dict(state, assign=True)
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise AdapterFileError(
            "merged network cannot be loaded",
            path=path,
            found=first_line(error),
            hint=f"the file was edited, or made by another version: {spec.package_version}",
        ) from error
    return network.requires_grad_(False).eval()
