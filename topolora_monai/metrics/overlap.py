"""Overlap scores inside the field of view at every threshold, without keeping the images."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from topolora_monai.errors import ConfigError

__all__ = ["OverlapScores", "ThresholdCurve", "best_on_grid", "check_threshold", "threshold_bin", "to_16_bit"]

_BINS = 65536
"""Probabilities are scored at 16-bit resolution, that of the probability images written to disk."""


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
        return cls(
            dice=_ratio(2 * true_positive, 2 * true_positive + false_positive + false_negative),
            iou=_ratio(true_positive, true_positive + false_positive + false_negative),
            precision=_ratio(true_positive, true_positive + false_positive),
            recall=_ratio(true_positive, true_positive + false_negative),
        )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the scores."""
        return tuple(field.name for field in dataclasses.fields(cls))


class ThresholdCurve:
    """Pooled histogram of probabilities over vessel and background pixels of any number of images.

    Example:
        >>> curve = ThresholdCurve()
        >>> curve.add(torch.tensor([0.9, 0.6, 0.2]), torch.tensor([1.0, 0.0, 0.0]))
        >>> curve.scores(0.5).precision, curve.best_threshold() >= 0.6, curve.auc()
        (0.5, True, 1.0)
    """

    def __init__(self) -> None:
        self.positives: NDArray[np.int64] = np.zeros(_BINS, np.int64)
        self.negatives: NDArray[np.int64] = np.zeros(_BINS, np.int64)

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
        if p.numel() and not bool(((p >= 0) & (p <= 1)).all()):
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
        true_positive, false_positive = int(self.positives[first:].sum()), int(self.negatives[first:].sum())
        false_negative = int(self.positives[:first].sum())
        return OverlapScores.of_counts(true_positive, false_positive, false_negative)

    def best_threshold(self) -> float:
        """The threshold on a grid of hundredths with the highest pooled Dice; the one nearest to 0.5 of equals."""
        return best_on_grid(lambda threshold: self.scores(threshold).dice)

    def auc(self) -> float:
        """Area under the ROC curve; ties count half. NaN if one class is absent."""
        positives, negatives = self.positives.astype(float), self.negatives.astype(float)
        below = np.cumsum(negatives) - negatives
        return _ratio(float((positives * (below + negatives / 2)).sum()), float(positives.sum() * negatives.sum()))


def best_on_grid(dice: Callable[[float], float]) -> float:
    """The hundredth with the highest Dice, the one nearest to 0.5 of equals; what is not defined counts least."""
    grid = sorted((round(0.01 * k, 2) for k in range(1, 100)), key=lambda t: abs(t - 0.5))
    return max(grid, key=lambda t: np.nan_to_num(dice(t), nan=-1.0))


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
    return numerator / denominator if denominator else float("nan")
