"""Established networks behind the segmenter's contract, to compare with: images in [0, 1] to logits."""

from topolora_monai.networks.baselines.registry import BASELINE_NAMES, build_baseline
from topolora_monai.networks.baselines.segmenter import BaselineSegmenter

__all__ = ["BASELINE_NAMES", "BaselineSegmenter", "build_baseline"]
