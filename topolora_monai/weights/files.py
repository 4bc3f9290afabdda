"""Checkpoint files: reading tensors without running anything that lies in them, and writing them as safetensors."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

import topolora_monai
from topolora_monai.errors import CheckpointError, ConfigError
from topolora_monai.weights.known import KNOWN_CHECKPOINTS
from topolora_monai.weights.layouts import base_layout, detect_network

_HEADER_KEY = "topolora_monai_base"
"""Key of the origin in the metadata of a converted checkpoint."""

_SAFETENSORS = ".safetensors"
_FORMAT = 1


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict of tensors; code inside the file is never run.

    Args:
        path: a ``.safetensors`` file, or a ``.pth`` or ``.pt`` file as published: a flat state dict, or one
            under the only key ``model`` (SAM 2).

    Returns:
        Name to tensor, on the CPU.

    Raises:
        CheckpointError: if the file is missing, damaged, or holds anything but tensors.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "base.pt"
        >>> torch.save({"model": {"weight": torch.zeros(2)}}, path)
        >>> read_checkpoint(path)
        {'weight': tensor([0., 0.])}
    """
    path = Path(path)
    _require(path)
    state = _read_safetensors(path)[1] if path.suffix.lower() == _SAFETENSORS else _read_pickled_tensors(path)
    if isinstance(state, dict) and state.keys() == {"model"}:
        state = state["model"]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            "checkpoint is not a flat state dict", path=path, expected="names mapped to tensors", found=type(state)
        )
    return cast(dict[str, Tensor], state)


def checkpoint_origin(path: str | Path) -> dict[str, Any]:
    """What the header of a converted checkpoint says of its source; empty for any other file.

    Raises:
        CheckpointError: if it is missing, or a ``.safetensors`` file is damaged.
    """
    path = Path(path)
    _require(path)
    if path.suffix.lower() != _SAFETENSORS:
        return {}
    text = _read_safetensors(path, with_tensors=False)[0].get(_HEADER_KEY, "{}")
    try:
        origin = json.loads(text)
    except ValueError:
        origin = None
    if not isinstance(origin, dict):
        raise CheckpointError(
            "header of the checkpoint is damaged", path=path, expected="a JSON object", hint="convert the file again"
        )
    return origin


def convert_checkpoint(path: str | Path, out: str | Path) -> dict[str, Any]:
    """Write the tensors of a ``.pth`` or ``.pt`` file, under their published names, as safetensors with a header.

    Returns:
        The header: ``format``, ``name`` of the known checkpoint (None for another file), ``network_name``
        (None if it is of no network here), ``source_file``, ``source_sha256``, ``package_version``.

    Raises:
        ConfigError: if ``out`` or ``path`` has the wrong ending.
        CheckpointError: if the file is missing, damaged, or holds anything but tensors.
        OutputError: if ``out`` cannot be written; an older file is left as it was.
    """
    from topolora_monai.io.atomic import writing  # noqa: PLC0415 - the readers of images take seconds to import
    from topolora_monai.io.download import file_sha256  # noqa: PLC0415

    path, out = Path(path), Path(out)
    if out.suffix.lower() != ".safetensors":
        raise ConfigError("a converted checkpoint ends in .safetensors", found=out.name)
    if path.suffix.lower() == ".safetensors":
        raise ConfigError("checkpoint is in safetensors already", found=path)
    state = read_checkpoint(path)
    sha256 = file_sha256(path)
    header = {
        "format": _FORMAT,
        "name": next((known.name for known in KNOWN_CHECKPOINTS.values() if known.sha256 == sha256), None),
        "network_name": detect_network(base_layout(state)[0]),
        "source_file": path.name,
        "source_sha256": sha256,
        "package_version": topolora_monai.__version__,
    }
    with writing(out, "the checkpoint"):
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        write_tensors(state, out, {"format": "pt", _HEADER_KEY: json.dumps(header)})
    return header


def write_tensors(state: Mapping[str, Tensor], path: str | Path, metadata: dict[str, str]) -> None:
    """Write tensors as safetensors beside the place and rename; those that share memory are copied.

    Raises:
        OSError: if the file cannot be written; an older one is left as it was.
    """
    from topolora_monai.io.atomic import atomic_write  # noqa: PLC0415 - see above

    seen: set[int] = set()
    tensors = {}
    for name, tensor in state.items():
        address = tensor.untyped_storage().data_ptr()
        tensors[name] = (tensor.clone() if address in seen else tensor).cpu().contiguous()
        seen.add(address)
    with atomic_write(path) as beside:
        beside.write_bytes(save(tensors, metadata=metadata))  # save_file lets nobody else read it


def _require(path: Path) -> None:
    from topolora_monai.io.regular import require_file  # noqa: PLC0415 - the readers of images take seconds to import

    require_file(
        path, CheckpointError, missing="checkpoint not found", hint="give --weights the path of a downloaded file"
    )


def _read_safetensors(path: Path, with_tensors: bool = True) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys()) if with_tensors else []
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            "checkpoint is damaged or not a safetensors file",
            path=path,
            found=str(error),
            hint="download or convert it again",
        ) from error


def _read_pickled_tensors(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "checkpoint holds more than tensors and was not opened",
            path=path,
            expected="a state dict of tensors",
            found="pickled objects that could run code, or no checkpoint at all",
            hint="use the file from its original publisher",
        ) from error
    except Exception as error:  # torch.load meets damaged bytes with errors of many kinds, assertions among them
        raise CheckpointError(
            "checkpoint is damaged or incomplete",
            path=path,
            expected="a complete file written by torch.save",
            found=f"{path.stat().st_size} bytes that cannot be read ({type(error).__name__})",
            hint="download it again and compare its SHA-256 with the publisher's",
        ) from error
