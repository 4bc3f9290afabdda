"""Overlap scores inside the field of view at every threshold, without keeping the images."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from topolora_monai.errors import ConfigError

_BINS = 65536
"""Probabilities are scored at 16-bit resolution, that of the probability images written to disk."""

LEVELS: NDArray[np.float64] = (np.arange(_BINS) + 0.5) / _BINS
"""The middle of each 16-bit level, which a counted probability is taken for."""


@dataclasses.dataclass(frozen=True)
class OverlapScores:
    """Scores of a binary segmentation at one threshold; NaN where the ratio is 0/0.

    Args:
        dice: 2 TP / (2 TP + FP + FN), also called F1.
        iou: TP / (TP + FP + FN).
        precision: TP / (TP + FP).
        recall: TP / (TP + FN), also called sensitivity.
    """

    dice: float
    iou: float
    precision: float
    recall: float

    @classmethod
    def of_counts(cls, true_positive: int, false_positive: int, false_negative: int) -> OverlapScores:
        """Scores of numbers of pixels.

        Example:
            >>> OverlapScores.of_counts(2, 1, 1).iou
            0.5
        """
        wrong = false_positive + false_negative
        return cls(
            dice=_ratio(2 * true_positive, 2 * true_positive + wrong),
            iou=_ratio(true_positive, true_positive + wrong),
            precision=_ratio(true_positive, true_positive + false_positive),
            recall=_ratio(true_positive, true_positive + false_negative),
        )


def mean_scores(scores: Sequence[OverlapScores]) -> OverlapScores:
    """Mean over classes of each score; those that are not defined for a class are left out.

    Example:
        >>> mean_scores([OverlapScores.of_counts(1, 0, 0), OverlapScores.of_counts(0, 0, 0)]).dice
        1.0
    """
    return OverlapScores(*map(mean_of_defined, zip(*map(dataclasses.astuple, scores), strict=True)))


def mean_of_defined(values: Sequence[float]) -> float:
    """Mean of those that are not NaN; NaN if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _counts() -> NDArray[np.int64]:
    return np.zeros(_BINS, np.int64)


@dataclasses.dataclass(eq=False)
class ThresholdCurve:
    """Pooled histogram of probabilities over vessel and background pixels of any number of images.

    Args:
        positives: foreground pixels at each value of :func:`to_16_bit`.
        negatives: background pixels, likewise.

    Example:
        >>> curve = ThresholdCurve()
        >>> curve.add(torch.tensor([0.9, 0.6, 0.2]), torch.tensor([1.0, 0.0, 0.0]))
        >>> curve.scores(0.5).precision, curve.best_threshold() >= 0.6, curve.auc()
        (0.5, True, 1.0)
    """

    positives: NDArray[np.int64] = dataclasses.field(default_factory=_counts)
    negatives: NDArray[np.int64] = dataclasses.field(default_factory=_counts)

    def add(self, probability: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
        """Count one image.

        Args:
            probability: any shape, values in [0, 1].
            target: same number of elements, foreground above 0.5.
            mask: same number of elements; only pixels above 0.5 count.

        Raises:
            ValueError: if sizes differ or a probability is not in [0, 1].
        """
        p, t = probability.detach().float().flatten(), target.flatten() > 0.5
        if p.numel() != t.numel() or (mask is not None and mask.numel() != p.numel()):
            raise ValueError("probability, target and mask differ in size")
        if mask is not None:
            inside = mask.flatten() > 0.5
            p, t = p[inside], t[inside]
        if not bool(((p >= 0) & (p <= 1)).all()):
            raise ValueError("probabilities must lie in [0, 1]")
        bins = to_16_bit(p)
        self.positives += torch.bincount(bins[t], minlength=_BINS).cpu().numpy()
        self.negatives += torch.bincount(bins[~t], minlength=_BINS).cpu().numpy()

    def merge(self, other: ThresholdCurve) -> None:
        """Add another curve's images to this one."""
        self.positives += other.positives
        self.negatives += other.negatives

    def scores(self, threshold: float) -> OverlapScores:
        """Scores where foreground is ``probability >= threshold``."""
        first = threshold_bin(threshold)
        counts = self.positives[first:], self.negatives[first:], self.positives[:first]
        return OverlapScores.of_counts(*(int(of.sum()) for of in counts))

    def best_threshold(self) -> float:
        """The threshold on a grid of hundredths with the highest pooled Dice; the one nearest to 0.5 of equals."""
        return best_common_threshold([self])

    def auc(self) -> float:
        """Area under the ROC curve; ties count half. NaN if one class is absent."""
        positives, negatives = self.positives.astype(float), self.negatives.astype(float)
        below = np.cumsum(negatives) - negatives
        return _ratio(float((positives * (below + negatives / 2)).sum()), float(positives.sum() * negatives.sum()))


def average_precision(curve: ThresholdCurve) -> float:
    """Mean over foreground pixels of the precision where each is found, without interpolation; NaN if there is none.

    Equal to scikit-learn's ``average_precision_score`` of probabilities rounded to 16 bits.

    Example:
        >>> counts = ThresholdCurve()
        >>> counts.add(torch.tensor([0.9, 0.6, 0.2]), torch.tensor([1.0, 0.0, 1.0]))
        >>> average_precision(counts)  # (1 + 2/3) / 2
        0.8333333333333333
    """
    hits, answered = curve.positives[::-1].cumsum(), (curve.positives + curve.negatives)[::-1].cumsum()
    return _ratio(float((curve.positives[::-1] * hits / np.maximum(answered, 1)).sum()), float(hits[-1]))


def best_common_threshold(curves: Sequence[ThresholdCurve]) -> float:
    """The hundredth with the highest mean Dice of several classes, the one nearest to 0.5 of equals.

    What is not defined counts least.
    """

    def dice(threshold: float) -> float:
        return float(np.nan_to_num(mean_scores([curve.scores(threshold) for curve in curves]).dice, nan=-1.0))

    return max(sorted((round(0.01 * k, 2) for k in range(1, 100)), key=lambda t: abs(t - 0.5)), key=dice)


def to_16_bit(probability: Tensor) -> Tensor:
    """Whole part of ``65536 * p``, at most 65535, as int64: how probabilities are scored and stored.

    Example:
        >>> to_16_bit(torch.tensor([0.0, 0.5, 1.0])).tolist()
        [0, 32768, 65535]
    """
    return (probability.double() * _BINS).long().clamp(max=_BINS - 1)


def threshold_bin(threshold: float) -> int:
    """Smallest value of :func:`to_16_bit` that counts as foreground at a threshold.

    Example:
        >>> threshold_bin(0.5)
        32768

    Raises:
        ConfigError: as :func:`check_threshold`.
    """
    return math.ceil(check_threshold(threshold) * _BINS)


def check_threshold(threshold: Any) -> float:
    """A threshold of probabilities, as a float.

    Raises:
        ConfigError: if it is no number from 0 to 1.

    Example:
        >>> check_threshold(1)
        1.0
    """
    number = isinstance(threshold, numbers.Real) and not isinstance(threshold, bool)
    if not (number and 0 <= threshold <= 1):
        raise ConfigError(
            "threshold is not possible",
            expected="a number from 0 to 1",
            found=repr(threshold)[:100],
            hint="0.5 is usual",
        )
    return float(threshold)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan
