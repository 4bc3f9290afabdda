"""A trained run as a bundle of its own, for one task, and as one merged file."""

from topolora_monai.model.network import load_model, merged_network
from topolora_monai.release.adapter import release_adapter
from topolora_monai.release.bundle import release
from topolora_monai.release.merged_file import load_merged, read_merged_spec, write_merged

__all__ = [
    "load_merged",
    "load_model",
    "merged_network",
    "read_merged_spec",
    "release",
    "release_adapter",
    "write_merged",
]
