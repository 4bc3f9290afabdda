"""Base checkpoints: known files, safe reading, strict loading, fingerprints."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from topolora_monai.errors import CheckpointError

__all__ = ["PUBLISHED_CHECKPOINTS", "fingerprint", "load_base_weights", "read_checkpoint"]

PUBLISHED_CHECKPOINTS: dict[str, str] = {
    "vit_b": "sam_vit_b_01ec64.pth",
    "vit_l": "sam_vit_l_0b3195.pth",
    "vit_h": "sam_vit_h_4b8939.pth",
    "vit_t": "mobile_sam.pt",
}
"""Network name to the file name of its published weights."""

# TinyViT's ImageNet classifier: in the published files, never used by SAM.
_UNUSED_PREFIXES = ("image_encoder.norm_head.", "image_encoder.head.")


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict of tensors; code inside the file is never run.

    Args:
        path: a ``.pth`` or ``.pt`` file as published, holding a flat state dict.

    Returns:
        Name to tensor, on the CPU.

    Raises:
        CheckpointError: if the file is missing, damaged, or holds anything but tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError("checkpoint not found", path=path, hint="give --weights the path of a downloaded file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            "checkpoint is damaged or incomplete",
            path=path,
            expected="a complete file written by torch.save",
            found=f"{path.stat().st_size} bytes that cannot be read ({type(error).__name__})",
            hint="download it again and compare its SHA-256 with the publisher's",
        ) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "checkpoint holds more than tensors and was not opened",
            path=path,
            expected="a state dict of tensors",
            found="pickled objects that could run code, or no checkpoint at all",
            hint="use the file from its original publisher",
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            "checkpoint is not a flat state dict", path=path, expected="names mapped to tensors", found=type(state)
        )
    return cast(dict[str, Tensor], state)


def load_base_weights(network: nn.Module, path: str | Path, network_name: str = "this network") -> None:
    """Load published SAM-family weights strictly into a freshly built, unadapted network.

    Position tables of another grid are not accepted: build the network at the checkpoint's grid, it runs at
    any other by interpolation.

    Args:
        network: a :class:`~topolora_monai.networks.SamSegmenter`.
        path: the published file.
        network_name: how to call the network in an error.

    Raises:
        CheckpointError: if the file cannot be read or belongs to another base; names the differing keys.
    """
    state = {k: v for k, v in read_checkpoint(path).items() if not k.startswith(_UNUSED_PREFIXES)}
    own = network.state_dict()
    extra_parts = ("mask_decoder.class_tokens", "channel_mixer.")
    wanted = {key for key in own if not key.startswith(extra_parts)}
    missing, unexpected = sorted(wanted - state.keys()), sorted(state.keys() - wanted)
    reshaped = sorted(k for k in wanted & state.keys() if state[k].shape != own[k].shape)
    if missing or unexpected or reshaped:
        raise CheckpointError(
            f"checkpoint is not of base {network_name}",
            path=path,
            expected=f"the {len(wanted)} tensors of {network_name}",
            found=f"missing {_shorten(missing)}; unexpected {_shorten(unexpected)}; other shape {_shorten(reshaped)}",
            hint=f"choose the network_name that the file was made for, or {PUBLISHED_CHECKPOINTS.get(network_name)}",
        )
    network.load_state_dict(state, strict=False)  # completeness is checked above, with a better message


def fingerprint(state: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values of a state dict, whatever file it came from.

    Example:
        >>> fingerprint({"w": torch.zeros(2)}) == fingerprint({"w": torch.zeros(2)})
        True
        >>> fingerprint({"w": torch.zeros(2)}) == fingerprint({"w": torch.ones(2)})
        False
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _shorten(keys: list[str], most: int = 3) -> str:
    if not keys:
        return "none"
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")
