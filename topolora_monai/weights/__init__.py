"""Base checkpoints: known files, safe reading, strict loading, fetching, verification and conversion."""

from topolora_monai.weights.conversion import convert_checkpoint
from topolora_monai.weights.known import KNOWN_CHECKPOINTS, PUBLISHED_CHECKPOINTS, KnownCheckpoint
from topolora_monai.weights.layouts import base_layout, detect_network, summarise_names
from topolora_monai.weights.loading import fingerprint, load_base_weights, matching_state
from topolora_monai.weights.reading import checkpoint_origin, read_checkpoint
from topolora_monai.weights.store import (
    fetch_checkpoint,
    find_checkpoint,
    published_name,
    weights_folder,
    weights_record,
)
from topolora_monai.weights.verification import CheckpointReport, verify_checkpoint

__all__ = [
    "KNOWN_CHECKPOINTS",
    "PUBLISHED_CHECKPOINTS",
    "CheckpointReport",
    "KnownCheckpoint",
    "base_layout",
    "checkpoint_origin",
    "convert_checkpoint",
    "detect_network",
    "fetch_checkpoint",
    "find_checkpoint",
    "fingerprint",
    "load_base_weights",
    "matching_state",
    "published_name",
    "read_checkpoint",
    "summarise_names",
    "verify_checkpoint",
    "weights_folder",
    "weights_record",
]
