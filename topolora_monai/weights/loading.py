"""Published weights against a network: strict loading, verification, and fingerprints of state dicts."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from topolora_monai.errors import CheckpointError
from topolora_monai.weights.files import checkpoint_origin, read_checkpoint
from topolora_monai.weights.known import KNOWN_CHECKPOINTS, PUBLISHED_CHECKPOINTS, find_checkpoint, known_checkpoint
from topolora_monai.weights.layouts import base_layout, detect_network, summarise_names

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
        Names of the file's tensors that the network has no place for, see :func:`base_layout`.

    Raises:
        CheckpointError: if the file cannot be found or read, or as :func:`matching_state`.
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
    """Compare every name and shape of a published state dict with those of an unadapted network, on any device.

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


@dataclass(frozen=True)
class CheckpointReport:
    """What is known of a checkpoint that fits its network.

    Args:
        path: the file.
        sha256: of the file.
        name: of the known checkpoint with this SHA-256; None for another file.
        network_name: the network that it fits.
        tensors: number of tensors that the network takes from it.
        left_out: names of tensors in the file that the network has no place for.
        origin: what the header of a converted file says of its source; empty for any other.
    """

    path: Path
    sha256: str
    name: str | None
    network_name: str
    tensors: int
    left_out: list[str]
    origin: dict[str, Any]


def verify_checkpoint(path: str | Path, build: Callable[[str], nn.Module], name: str | None = None) -> CheckpointReport:
    """Compare a file's SHA-256 with the known ones, and its keys and shapes with its network's.

    Args:
        path: a ``.pth``, ``.pt`` or ``.safetensors`` file; nothing inside is run.
        build: makes the network of a name; on the meta device it costs no memory.
        name: key of :data:`KNOWN_CHECKPOINTS` that the file should be; the network is detected without it.

    Returns:
        What was found, if it fits.

    Raises:
        ConfigError: for an unknown name.
        CheckpointError: if the file is missing, damaged, unsafe, not the one called ``name``, of no network
            here, or does not fit it strictly.
    """
    from topolora_monai.io.download import file_sha256  # noqa: PLC0415 - image readers take seconds to import

    path = Path(path)
    known = None if name is None else known_checkpoint(name)
    published = read_checkpoint(path)
    sha256, origin = file_sha256(path), checkpoint_origin(path)
    if known is not None and known.sha256 not in (None, sha256, origin.get("source_sha256")):
        raise CheckpointError(
            f"file is not {known.name} as published",
            path=path,
            expected=f"SHA-256 {known.sha256}",
            found=origin.get("source_sha256", sha256),
            hint=f"run `topolora weights fetch {known.name}`",
        )
    network_name = known.network_name if known is not None else detect_network(base_layout(published)[0])
    if network_name is None:
        raise CheckpointError(
            "checkpoint is of no network that is known here",
            path=path,
            expected="a published checkpoint of SAM, MobileSAM, MedSAM, HQ-SAM or SAM 2",
            hint="`topolora weights list` shows the known ones",
        )
    state, left_out = matching_state(build(network_name), published, path, network_name)
    same = next((other.name for other in KNOWN_CHECKPOINTS.values() if other.sha256 == sha256), None)
    return CheckpointReport(path, sha256, same, network_name, len(state), left_out, origin)


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
