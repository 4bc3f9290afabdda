"""A trained run as a bundle of its own, for one task."""

from topolora_monai.release.bundle import release
from topolora_monai.release.network import load_model, merged_network

__all__ = ["load_model", "merged_network", "release"]
