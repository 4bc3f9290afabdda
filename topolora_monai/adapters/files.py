"""Adapter files: safetensors with a JSON header that ties them to one base."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import topolora_monai
from topolora_monai.adapters.adapt import Adaptation, adapt
from topolora_monai.adapters.config import AdaptationConfig
from topolora_monai.adapters.released import find_adapter, halved
from topolora_monai.adapters.tensor_files import non_finite, parse_header, read_header, read_tensors
from topolora_monai.errors import AdapterFileError, ConfigError
from topolora_monai.networks import build_network
from topolora_monai.spec import MODEL_FORMAT, ModelSpec
from topolora_monai.weights import KNOWN_CHECKPOINTS
from topolora_monai.weights.files import write_tensors

_HEADER_KEY = "topolora_monai"
_LONGEST_TEXT = 2_000_000  # characters; more than a header may have, whose own check then tells


def adapter_state(network: nn.Module) -> dict[str, Tensor]:
    """Everything training changes: trainable parameters and the buffers of modules that have some."""
    state: dict[str, Tensor] = {}
    for prefix, module in network.named_modules():
        own = {name: p for name, p in module.named_parameters(prefix, recurse=False) if p.requires_grad}
        state.update((name, p.detach()) for name, p in own.items())
        if own:
            kept = module.state_dict(prefix=f"{prefix}." if prefix else "").keys()
            buffers = module.named_buffers(prefix, recurse=False)
            state.update((name, buffer.detach()) for name, buffer in buffers if name in kept)
    return state


def save_adapter(adaptation: Adaptation, path: str | Path, /, **properties: Any) -> None:
    """Write an adapter file beside its place and rename it.

    Args:
        adaptation: the adapted network.
        path: where to; by custom ending in ``.safetensors``.
        **properties: what a user of the file needs to know, as plain JSON types: entries of
            :class:`~topolora_monai.model.ModelSpec` (``labels``, ``crop_size``, ``threshold``), and any others. What
            the network was built with is known without them.

    Raises:
        AdapterFileError: for a property that no file could be read with.
        OSError: if the file cannot be written; an older one is left as it was.
    """
    write_adapter(adapter_state(adaptation.network), describe_model(adaptation, path, **properties), path)


def write_adapter(state: dict[str, Tensor], spec: ModelSpec, path: str | Path) -> None:
    """Write an adapter file of its two parts; an ``OSError`` leaves an older one as it was."""
    from topolora_monai.io.json_files import json_text  # noqa: PLC0415 - the readers of images take seconds to import

    write_tensors(state, path, {_HEADER_KEY: json_text(spec.to_header())})


def describe_model(adaptation: Adaptation, path: str | Path, /, **properties: Any) -> ModelSpec:
    """What :func:`save_adapter` would write of a network, and refuse, which is worth knowing before it is trained."""
    header = {
        **getattr(adaptation.network, "settings", {}),
        **properties,
        "format": MODEL_FORMAT,
        "package_version": topolora_monai.__version__,
        "network_name": adaptation.base_name,
        "base_sha256": adaptation.base_sha256,
        "adaptation": adaptation.config.to_dict(),
    }
    return ModelSpec.from_header(json.loads(json.dumps(header)), path)


def halve_adapter(path: str | Path, out: str | Path) -> float:
    """Write an adapter file whose numbers take 16 bits, half as large; it loads as any other.

    Args:
        path: the adapter, a file or a name.
        out: where to, ending in ``.safetensors``.

    Returns:
        The largest change of a tensor, as a share of its norm.

    Raises:
        AdapterFileError: if the adapter is damaged, or a number does not fit.
        ConfigError: for another ending.
        OutputError: if ``out`` cannot be written; an older file is left as it was.
    """
    from topolora_monai.io.atomic import writing  # noqa: PLC0415 - the readers of images take seconds to import

    out = Path(out)
    if out.suffix != ".safetensors":
        raise ConfigError("an adapter file ends in .safetensors", found=out.name)
    spec = read_spec(path)
    state, change = halved(read_adapter_tensors(path), path)
    with writing(out, "the adapter"):
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        write_adapter(state, spec, out)
    return change


def read_spec(path: str | Path) -> ModelSpec:
    """What an adapter file, or a released bundle's ``model.json``, says of its model; no tensor is read.

    Args:
        path: the file, or a name of :func:`~topolora_monai.adapters.released_adapters`.

    Raises:
        AdapterFileError: if the file is missing, damaged, or not an adapter of this package, or an entry is missing
            or not possible.
    """
    path = find_adapter(path)
    if path.suffix.lower() != ".json":
        return ModelSpec.from_header(read_header(path, _HEADER_KEY, "adapter"), path)
    return ModelSpec.from_header(read_json_header(path, "model", "copy the whole bundle again"), path)


def read_json_header(path: Path, kind: str, hint: str) -> dict[str, Any]:
    """The object of a JSON file beside tensors; ``kind`` is what it should be, for an :class:`AdapterFileError`."""
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            text = stream.read(_LONGEST_TEXT)
    except OSError as error:
        raise AdapterFileError(f"{kind} file cannot be read", path=path, found=error.strerror, hint=hint) from error
    return parse_header(text, path, kind)


def read_adapter_tensors(path: str | Path) -> dict[str, Tensor]:
    """Tensors of an adapter file by name, on the CPU, in memory of their own; errors as of :func:`read_spec`.

    Numbers of 16 bits, as :func:`halve_adapter` writes them, are widened to the 32 that networks have.
    """
    state = read_tensors(find_adapter(path), "adapter")
    return {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in state.items()}


def load_adapter(network: nn.Module, path: str | Path) -> Adaptation:
    """Adapt a freshly built base as the file says and load its weights strictly.

    Args:
        network: the base the adapter was trained on, with the same weights unless the file holds them all;
            changed in place. What the file holds takes new memory: tensors that the network shares with
            another one are never written to.
        path: an adapter file, or the name of a released one.

    Returns:
        The adapted network, in the mode it came in.

    Raises:
        AdapterFileError: if the file is damaged, belongs to another base, a key is missing or unexpected, or a
            value is not finite.
    """
    spec, state = read_spec(path), read_adapter_tensors(path)
    adaptation = adapt_as_stored(network, spec, state, path)
    if adaptation.base_sha256 != spec.base_sha256 and not is_complete(network):
        fetch = f"run `topolora weights fetch {spec.checkpoint}`, or " if spec.checkpoint in KNOWN_CHECKPOINTS else ""
        raise AdapterFileError(
            "adapter is for other base weights",
            path=path,
            expected=f"base with SHA-256 {spec.base_sha256[:16]}...",
            found=f"{adaptation.base_sha256[:16]}...",
            hint=fetch + "give --weights the checkpoint that the adapter was trained on",
        )
    placed = {name: state[name].to(tensor.device) for name, tensor in adapter_state(network).items()}
    network.load_state_dict(placed, strict=False, assign=True)  # completeness is checked against the adapter's own keys
    return adaptation


def build_as_stored(spec: ModelSpec, path: str | Path, **given: Any) -> nn.Module:
    """The network of a file's model, before it is adapted; ``given`` go to ``build_network`` beside or instead of its.

    Raises:
        AdapterFileError: if no network can have the file's settings.
        CheckpointError: if ``weights`` cannot be used.
    """
    try:
        return build_network(**spec.network_settings | given)
    except ConfigError as error:
        if given.keys() & spec.network_settings.keys():  # which the file does not say
            raise
        raise AdapterFileError("network of the adapter cannot be built", path=path, found=error) from error


def adapt_as_stored(network: nn.Module, spec: ModelSpec, state: dict[str, Tensor], path: str | Path) -> Adaptation:
    """Adapt a freshly built network, changed in place, as a model's, and make sure that its file's tensors fit.

    None of them is loaded.

    Raises:
        AdapterFileError: if the network is another one, the settings cannot be used, or as :func:`check_fit`.
    """
    check_base(network, spec, path)
    with settings_as_stored(path):
        adaptation = adapt(network, AdaptationConfig.from_dict(dict(spec.adaptation)))
    check_fit(adapter_state(network), state, path)
    return adaptation


@contextlib.contextmanager
def settings_as_stored(path: str | Path) -> Iterator[None]:
    """Turn whatever adapting by a file's settings raises into an :class:`AdapterFileError`."""
    try:
        yield
    except (ConfigError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise AdapterFileError("settings of the adapter cannot be used", path=path, found=error) from error


def check_base(network: nn.Module, spec: ModelSpec, path: str | Path) -> None:
    """Make sure that a network is the one that an adapter file is for, or raise an :class:`AdapterFileError`."""
    found = getattr(network, "base_name", "custom")
    if spec.network_name != found:
        raise AdapterFileError(
            "adapter is for another network",
            path=path,
            expected=spec.network_name,
            found=found,
            hint=f"take a network of network_name {spec.network_name}",
        )


def is_complete(network: nn.Module) -> bool:
    """Whether adapting left nothing of the base, so that its weights do not matter."""
    return all(parameter.requires_grad for parameter in network.parameters())


def check_fit(
    wanted: dict[str, Tensor],
    state: dict[str, Tensor],
    path: str | Path,
    what: str = "adapter",
    hint: str = "export it again, or take an earlier one",
) -> None:
    """Make sure that the tensors of a file are those wanted by a network, and finite.

    Raises:
        AdapterFileError: if a name is missing or unexpected, a shape or type differs, or a value is not finite.
    """
    missing, unexpected = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    both = wanted.keys() & state.keys()
    changed = sorted(k for k in both if (wanted[k].shape, wanted[k].dtype) != (state[k].shape, state[k].dtype))
    if missing or unexpected or changed:
        raise AdapterFileError(
            f"{what} does not fit the network",
            path=path,
            expected=f"{len(wanted)} tensors",
            found=f"missing {missing or 'none'}; unexpected {unexpected or 'none'};"
            f" other shape or type {changed or 'none'}",
            hint=f"the file is damaged or was edited; {hint}",
        )
    broken = non_finite(state)
    if broken:
        raise AdapterFileError(
            f"{what} holds values that are not finite",
            path=path,
            found=", ".join(broken[:3]) + (f" and {len(broken) - 3} more" if len(broken) > 3 else ""),
            hint=f"its training diverged or the file is damaged; {hint}",
        )
