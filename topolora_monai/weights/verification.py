"""Is a checkpoint the published file, and does it fit the network it belongs to?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from topolora_monai.errors import CheckpointError
from topolora_monai.weights.known import KNOWN_CHECKPOINTS, known_checkpoint
from topolora_monai.weights.layouts import base_layout, detect_network
from topolora_monai.weights.loading import matching_state
from topolora_monai.weights.reading import checkpoint_origin, read_checkpoint

__all__ = ["CheckpointReport", "verify_checkpoint"]


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
