"""Adapter files: safetensors with a JSON header that ties them to one base."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

import topolora_monai
from topolora_monai.adapters.adapt import Adaptation, adapt
from topolora_monai.adapters.config import AdaptationConfig
from topolora_monai.errors import AdapterFileError

__all__ = ["adapter_state", "load_adapter", "read_adapter_header", "save_adapter"]

_HEADER_KEY = "topolora_monai"
_FORMAT = 1


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


def save_adapter(adaptation: Adaptation, path: str | Path, **properties: Any) -> None:
    """Write an adapter file beside its place and rename it.

    Args:
        adaptation: the adapted network.
        path: where to; by custom ending in ``.safetensors``.
        **properties: what a user of the file needs to know, as plain JSON types (``labels``,
            ``image_size``, ``crop_size``, ``threshold``).

    Raises:
        OSError: if the file cannot be written; an older one is left as it was.
    """
    path = Path(path)
    header = {
        "format": _FORMAT,
        "package_version": topolora_monai.__version__,
        "network_name": adaptation.base_name,
        "base_sha256": adaptation.base_sha256,
        "adaptation": adaptation.config.to_dict(),
        **properties,
    }
    state = {name: tensor.cpu().contiguous() for name, tensor in adapter_state(adaptation.network).items()}
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_bytes(save(state, metadata={_HEADER_KEY: json.dumps(header)}))
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read_adapter_header(path: str | Path) -> dict[str, Any]:
    """Header of an adapter file, without reading its tensors.

    Raises:
        AdapterFileError: if the file is missing, damaged, or not an adapter of this package.
    """
    return _read(Path(path), with_tensors=False)[0]


def load_adapter(network: nn.Module, path: str | Path) -> Adaptation:
    """Adapt a freshly built base as the file says and load its weights strictly.

    Args:
        network: the base the adapter was trained on, with the same weights unless the file holds them all;
            changed in place.
        path: an adapter file.

    Returns:
        The adapted network, in the mode it came in.

    Raises:
        AdapterFileError: if the file is damaged, belongs to another base, or a key is missing or unexpected.
    """
    header, state = _read(Path(path), with_tensors=True)
    found_name = getattr(network, "base_name", "custom")
    if header["network_name"] != found_name:
        raise AdapterFileError(
            "adapter is for another network",
            path=path,
            expected=header["network_name"],
            found=found_name,
            hint=f"build the network with network_name {header['network_name']}",
        )
    adaptation = adapt(network, AdaptationConfig.from_dict(header["adaptation"]))
    complete = all(parameter.requires_grad for parameter in network.parameters())  # then no weight of the base is left
    if adaptation.base_sha256 != header["base_sha256"] and not complete:
        raise AdapterFileError(
            "adapter is for other base weights",
            path=path,
            expected=f"base with SHA-256 {header['base_sha256'][:16]}...",
            found=f"{adaptation.base_sha256[:16]}...",
            hint="give --weights the checkpoint that the adapter was trained on",
        )
    _load_strictly(network, state, Path(path))
    return adaptation


def _load_strictly(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    wanted = adapter_state(network)
    missing, unexpected = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    reshaped = sorted(key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape)
    if missing or unexpected or reshaped:
        raise AdapterFileError(
            "adapter does not fit the network",
            path=path,
            expected=f"{len(wanted)} tensors",
            found=f"missing {missing or 'none'}; unexpected {unexpected or 'none'}; other shape {reshaped or 'none'}",
            hint="the file is damaged or was edited; export it again",
        )
    network.load_state_dict(state, strict=False)  # completeness is checked above, against the adapter's own keys


def _read(path: Path, with_tensors: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise AdapterFileError("adapter file not found", path=path, hint="give --adapter the path of a trained adapter")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            keys = list(file.keys()) if with_tensors else []
            state = {key: file.get_tensor(key) for key in keys}
    except (SafetensorError, OSError) as error:
        raise AdapterFileError(
            "adapter file is damaged or not a safetensors file", path=path, found=str(error), hint="copy it again"
        ) from error
    if _HEADER_KEY not in metadata:
        raise AdapterFileError(
            "not an adapter of topolora_monai", path=path, expected=f"header {_HEADER_KEY}", found=sorted(metadata)
        )
    header: dict[str, Any] = json.loads(metadata[_HEADER_KEY])
    if header.get("format") != _FORMAT:
        raise AdapterFileError(
            "adapter file of an unknown format",
            path=path,
            expected=_FORMAT,
            found=header.get("format"),
            hint=f"use topolora_monai {header.get('package_version')}",
        )
    return header, state
