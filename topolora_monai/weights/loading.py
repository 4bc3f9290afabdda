"""Strict loading of published weights into a network, and fingerprints of state dicts."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from topolora_monai.errors import CheckpointError
from topolora_monai.weights.known import PUBLISHED_CHECKPOINTS
from topolora_monai.weights.layouts import base_layout, summarise_names
from topolora_monai.weights.reading import read_checkpoint
from topolora_monai.weights.store import find_checkpoint

__all__ = ["fingerprint", "load_base_weights", "matching_state"]

# Parts of the package's own, which no published file has.
_OWN_PARTS = ("mask_decoder.class_tokens", "channel_mixer.")

_logger = logging.getLogger(__name__)


def load_base_weights(network: nn.Module, weights: str | Path, network_name: str = "this network") -> list[str]:
    """Load published SAM-family weights strictly into a freshly built, unadapted network.

    Position tables of another grid are not accepted: build the network at the checkpoint's grid, it runs at
    any other by interpolation.

    Args:
        network: a :class:`~topolora_monai.networks.SamSegmenter`.
        weights: path of a file, or the name of a known checkpoint that has been fetched.
        network_name: how to call the network in an error.

    Returns:
        Names of the file's tensors that the network has no place for, known parts all of them: TinyViT's
        classifier, HQ-SAM's additions to the mask decoder, SAM 2's video memory.

    Raises:
        CheckpointError: if the file cannot be found or read or belongs to another base; names the differing
            keys.
    """
    path = find_checkpoint(weights)
    state, left_out = matching_state(network, read_checkpoint(path), path, network_name)
    network.load_state_dict(state, strict=False)  # completeness is checked above, with a better message
    if left_out:
        _logger.info("%s: left out what %s has no place for: %s", path, network_name, summarise_names(left_out))
    return left_out


def matching_state(
    network: nn.Module, published: dict[str, Tensor], path: Path, network_name: str = "this network"
) -> tuple[dict[str, Tensor], list[str]]:
    """Compare every name and shape of a published state dict with those of a network.

    Args:
        network: an unadapted network; may be on the meta device.
        published: name to tensor, as read from the file.
        path: the file, for an error.
        network_name: how to call the network in an error.

    Returns:
        Tensors in the network's names, and the names of those that were left out.

    Raises:
        CheckpointError: if the tensors belong to another base; names the differing keys.
    """
    state, left_out = base_layout(published)
    own = network.state_dict()
    wanted = {key for key in own if not key.startswith(_OWN_PARTS)}
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
    return state, left_out


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
