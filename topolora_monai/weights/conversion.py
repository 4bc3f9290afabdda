"""Checkpoints as safetensors, which cannot hold code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

import topolora_monai
from topolora_monai.errors import ConfigError, OutputError
from topolora_monai.weights.known import KNOWN_CHECKPOINTS
from topolora_monai.weights.layouts import base_layout, detect_network
from topolora_monai.weights.reading import HEADER_KEY, read_checkpoint

__all__ = ["convert_checkpoint"]

_FORMAT = 1


def convert_checkpoint(path: str | Path, out: str | Path) -> dict[str, Any]:
    """Write the tensors of a checkpoint, under their published names, as safetensors with a header.

    Args:
        path: a ``.pth`` or ``.pt`` file; it is read without running anything inside.
        out: where to, ending in ``.safetensors``; written beside and renamed.

    Returns:
        The header: ``format``, ``name`` of the known checkpoint (None for another file), ``network_name``
        (None if it is of no network here), ``source_file``, ``source_sha256``, ``package_version``.

    Raises:
        ConfigError: if ``out`` or ``path`` has the wrong ending.
        CheckpointError: if the file is missing, damaged, or holds anything but tensors.
        OutputError: if ``out`` cannot be written; an older file is left as it was.
    """
    from topolora_monai.io.download import file_sha256  # noqa: PLC0415 - image readers take seconds to import

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
    _write(_unshared(state), out, {"format": "pt", HEADER_KEY: json.dumps(header)})
    return header


def _unshared(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Safetensors refuses tensors that share memory; such ones are copied."""
    seen: set[int] = set()
    unshared = {}
    for name, tensor in state.items():
        address = tensor.untyped_storage().data_ptr()
        unshared[name] = tensor.clone().contiguous() if address in seen else tensor.contiguous()
        seen.add(address)
    return unshared


def _write(state: dict[str, Tensor], out: Path, metadata: dict[str, str]) -> None:
    from topolora_monai.io.atomic import atomic_write, writing  # noqa: PLC0415 - see above

    try:
        content = save(state, metadata=metadata)  # save_file would let its owner alone read it
    except SafetensorError as error:
        raise OutputError("cannot write the checkpoint", path=out, found=str(error)) from error
    with writing(out, "the checkpoint"):
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(out) as beside:
            beside.write_bytes(content)
