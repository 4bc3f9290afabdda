"""What MONAI's metrics lack.

Functions of masks take ``prediction`` and ``target``, binary and of one shape (H, W) or (D, H, W), those of
probabilities ``probability`` (H, W) with values in [0, 1] instead of the first, and a target above 0.5. Pixels
outside ``mask``, of the same shape, are background in both masks, and with probabilities do not count; all do
without it. They raise ValueError if the shapes differ, or a probability is not in [0, 1]. :class:`ImageMetric` makes a
MONAI metric of each, :class:`ProbabilityMetric` of those of probabilities.
"""

from topolora_monai.metrics.betti import betti_error, betti_numbers
from topolora_monai.metrics.betti_matching import BettiMatching, betti_matching, betti_matching_error
from topolora_monai.metrics.boundary import assd, boundary_f1, hd95
from topolora_monai.metrics.breaks import SkeletonBreak, false_components, skeleton_breaks
from topolora_monai.metrics.calibration import (
    ReliabilityDiagram,
    apply_temperature,
    fit_temperature,
    reliability_diagram,
)
from topolora_monai.metrics.classes import class_counts, class_indices, class_masks, predicted_masks
from topolora_monai.metrics.cldice import BestClDice, ClDiceCurveMetric, cldice
from topolora_monai.metrics.dice import PooledDice
from topolora_monai.metrics.image_metric import ImageMetric
from topolora_monai.metrics.overlap import (
    OverlapScores,
    ThresholdCurve,
    average_precision,
    best_common_threshold,
    check_threshold,
    mean_of_defined,
    mean_scores,
    threshold_bin,
    to_16_bit,
)
from topolora_monai.metrics.saliency import (
    ProbabilityMetric,
    balanced_error_rate,
    e_measure,
    mean_absolute_error,
    s_measure,
    weighted_f_measure,
)
from topolora_monai.metrics.statistics import Interval, PairedTest, bootstrap_interval, paired_test

__all__ = [
    "BestClDice",
    "BettiMatching",
    "ClDiceCurveMetric",
    "ImageMetric",
    "Interval",
    "OverlapScores",
    "PairedTest",
    "PooledDice",
    "ProbabilityMetric",
    "ReliabilityDiagram",
    "SkeletonBreak",
    "ThresholdCurve",
    "apply_temperature",
    "assd",
    "average_precision",
    "balanced_error_rate",
    "best_common_threshold",
    "betti_error",
    "betti_matching",
    "betti_matching_error",
    "betti_numbers",
    "bootstrap_interval",
    "boundary_f1",
    "check_threshold",
    "class_counts",
    "class_indices",
    "class_masks",
    "cldice",
    "e_measure",
    "false_components",
    "fit_temperature",
    "hd95",
    "mean_absolute_error",
    "mean_of_defined",
    "mean_scores",
    "paired_test",
    "predicted_masks",
    "reliability_diagram",
    "s_measure",
    "skeleton_breaks",
    "threshold_bin",
    "to_16_bit",
    "weighted_f_measure",
]
