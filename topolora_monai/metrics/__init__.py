"""What MONAI's metrics lack."""

from topolora_monai.metrics.classes import (
    ClassCounts,
    best_common_threshold,
    class_indices,
    class_masks,
    mean_scores,
    predicted_masks,
)
from topolora_monai.metrics.cldice import cldice
from topolora_monai.metrics.dice import PooledDice
from topolora_monai.metrics.overlap import OverlapScores, ThresholdCurve, threshold_bin, to_16_bit

__all__ = [
    "ClassCounts",
    "OverlapScores",
    "PooledDice",
    "ThresholdCurve",
    "best_common_threshold",
    "class_indices",
    "class_masks",
    "cldice",
    "mean_scores",
    "predicted_masks",
    "threshold_bin",
    "to_16_bit",
]
