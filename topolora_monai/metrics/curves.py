"""Scores at every threshold, and which threshold to take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.morphology import skeletonize
from torch import Tensor

from topolora_monai.metrics.classes import best_common_threshold
from topolora_monai.metrics.image_metric import MaskedMetric
from topolora_monai.metrics.overlap import ThresholdCurve, threshold_bin, to_16_bit

__all__ = [
    "BestClDice",
    "ClDiceCurveMetric",
    "PrecisionRecall",
    "ReceiverOperating",
    "average_precision",
    "best_threshold",
    "precision_recall_curve",
    "roc_curve",
]

DEFAULT_THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(1, 20))
"""Those clDice is taken at: 0.05, 0.10, ... 0.95."""


class PrecisionRecall(NamedTuple):
    """Points from the highest threshold down; each of shape (n,)."""

    threshold: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


class ReceiverOperating(NamedTuple):
    """Points from the highest threshold down, the first at (0, 0) with an infinite one; each of shape (n,)."""

    threshold: NDArray[np.float64]
    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]


def average_precision(curve: ThresholdCurve) -> float:
    """Mean over foreground pixels of the precision where each is found, without interpolation; NaN if there is none.

    Equal to scikit-learn's ``average_precision_score`` of probabilities rounded to 16 bits.

    Example:
        >>> counts = ThresholdCurve()
        >>> counts.add(torch.tensor([0.9, 0.6, 0.2]), torch.tensor([1.0, 0.0, 1.0]))
        >>> average_precision(counts)  # (1 + 2/3) / 2
        0.8333333333333333
    """
    _, hits, alarms = _found(curve)
    if not hits.size or not hits[-1]:
        return float("nan")
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / (hits + alarms)).sum() / hits[-1])


def precision_recall_curve(curve: ThresholdCurve, points: int | None = None) -> PrecisionRecall:
    """Precision and recall at each probability that occurs.

    Args:
        curve: counts of pixels.
        points: at most so many, evenly chosen with both ends; None for all.

    Returns:
        Thresholds, each the lower edge of a 16-bit level, and scores there; recall is NaN without foreground.

    Example:
        >>> counts = ThresholdCurve()
        >>> counts.add(torch.tensor([0.75, 0.5, 0.25]), torch.tensor([1.0, 0.0, 1.0]))
        >>> precision_recall_curve(counts).recall.tolist()
        [0.5, 0.5, 1.0]
    """
    levels, hits, alarms = _thinned(_found(curve), points)
    with np.errstate(invalid="ignore"):
        return PrecisionRecall(_edges(levels, curve), hits / (hits + alarms), hits / curve.positives.sum())


def roc_curve(curve: ThresholdCurve, points: int | None = None) -> ReceiverOperating:
    """False and true positive rates at each probability that occurs.

    Args:
        curve: counts of pixels.
        points: at most so many beside the first, evenly chosen with both ends; None for all.

    Returns:
        Thresholds and rates; NaN where foreground or background is absent.

    Example:
        >>> counts = ThresholdCurve()
        >>> counts.add(torch.tensor([0.75, 0.5, 0.25]), torch.tensor([1.0, 0.0, 1.0]))
        >>> roc_curve(counts).true_positive_rate.tolist()
        [0.0, 0.5, 0.5, 1.0]
    """
    levels, hits, alarms = _thinned(_found(curve), points)
    with np.errstate(invalid="ignore"):
        false, true = (
            np.concatenate([[0.0], found]) / total
            for found, total in ((alarms, curve.negatives.sum()), (hits, curve.positives.sum()))
        )
    return ReceiverOperating(np.concatenate([[np.inf], _edges(levels, curve)]), false, true)


class ClDiceCurveMetric(MaskedMetric):
    """clDice on exact skeletons at several thresholds, a row of each image and class.

    Call it like :class:`~topolora_monai.metrics.ImageMetric`, with probabilities. A target's skeleton is computed
    once, that of the answer at each threshold.

    Args:
        thresholds: in (0, 1); foreground is ``probability >= threshold``, at 16 bits as it is stored.

    Raises:
        ValueError: for none, or one out of range; and from the call, if shapes do not fit.

    Example:
        >>> line = torch.zeros(1, 1, 9, 9)
        >>> line[..., 4, 1:8] = 1
        >>> metric = ClDiceCurveMetric([0.25, 0.5, 0.75])
        >>> _ = metric(y_pred=0.1 + 0.6 * line, y=line)
        >>> metric.aggregate(), metric.best_threshold()
        (tensor([[1., 1., 0.]], dtype=torch.float64), 0.5)
    """

    def __init__(self, thresholds: Sequence[float] = DEFAULT_THRESHOLDS) -> None:
        super().__init__()
        if not thresholds or not all(0 < threshold < 1 for threshold in thresholds):
            raise ValueError(f"thresholds must lie in (0, 1), found {list(thresholds)}")
        self.thresholds = tuple(thresholds)

    def aggregate(self) -> Tensor:
        """Mean clDice over images since the last reset, shape (K, T); NaN where no image has one."""
        return self.scored().nanmean(dim=0)

    def best_threshold(self) -> float:
        """The threshold with the highest mean clDice, over classes and images; the one nearest to 0.5 of equals."""
        means = self._means().nan_to_num(nan=-1.0).tolist()
        # Means of equal scores may differ in their last digit.
        return min(zip(means, self.thresholds, strict=True), key=lambda one: (-round(one[0], 12), abs(one[1] - 0.5)))[1]

    def _compute_tensor(
        self, y_pred: Tensor, y: Tensor | None = None, mask: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        y, mask = self.checked(y_pred, y, mask)
        stored, true = to_16_bit(y_pred.detach().cpu()).numpy(), (y.detach() > 0.5).cpu().numpy()
        inside = np.broadcast_to(True if mask is None else (mask.detach() > 0.5).cpu().numpy(), true.shape)
        values = torch.empty((*true.shape[:2], len(self.thresholds)), dtype=torch.float64)
        for at in np.ndindex(*true.shape[:2]):
            values[at] = torch.tensor(self._row(stored[at], true[at] & inside[at], inside[at]), dtype=torch.float64)
        return values

    def _means(self) -> Tensor:
        return self.scored().nanmean(dim=0).nanmean(dim=0)

    def _row(self, stored: NDArray[np.int64], true: NDArray[np.bool_], inside: NDArray[np.bool_]) -> list[float]:
        skeleton = skeletonize(true)
        answers = (inside & (stored >= threshold_bin(threshold)) for threshold in self.thresholds)
        return [_cldice(answer, true, skeleton) for answer in answers]


class BestClDice(ClDiceCurveMetric):
    """clDice at the best of several thresholds, one number as engines want it; see :class:`ClDiceCurveMetric`.

    Example:
        >>> line = torch.zeros(1, 1, 9, 9)
        >>> line[..., 4, 1:8] = 1
        >>> metric = BestClDice([0.5, 0.75])
        >>> _ = metric(y_pred=0.1 + 0.6 * line, y=line)
        >>> metric.aggregate()
        tensor([1.], dtype=torch.float64)
    """

    def aggregate(self) -> Tensor:
        """Mean over classes and images at :meth:`best_threshold`, shape (1,)."""
        return self._means()[[self.thresholds.index(self.best_threshold())]]


def best_threshold(
    images: Iterable[tuple[Tensor, Tensor, Tensor | None]],
    by: Literal["dice", "cldice"] = "dice",
    thresholds: Sequence[float] = DEFAULT_THRESHOLDS,
) -> float:
    """The threshold to take, chosen on validation images that are looked at one by one.

    Args:
        images: probabilities of classes judged by themselves, shape (K, H, W), target of that shape, and where pixels
            count, shape (1, H, W), or None. Calibrate the probabilities first if inference will.
        by: ``"dice"``, pooled over images, mean over classes, on a grid of hundredths; ``"cldice"``, mean over images
            and classes, on ``thresholds``.
        thresholds: those clDice is taken at.

    Raises:
        ValueError: for an unknown score, or no image.

    Example:
        >>> images = [(torch.tensor([[[0.8, 0.3]]]), torch.tensor([[[1.0, 0.0]]]), None)]
        >>> best_threshold(images)
        0.5
    """
    if by not in ("dice", "cldice"):
        raise ValueError(f"a threshold is chosen by dice or cldice, not {by!r}")
    curves: list[ThresholdCurve] = []
    metric = ClDiceCurveMetric(thresholds)
    seen = False
    for probability, target, mask in images:
        seen = True
        if by == "cldice":
            metric(y_pred=probability[None], y=target[None], mask=None if mask is None else mask[None])
            continue
        curves = curves or [ThresholdCurve() for _ in probability]
        for curve, one, true in zip(curves, probability, target, strict=True):
            curve.add(one, true, mask)
    if not seen:
        raise ValueError("no image to choose a threshold on")
    return metric.best_threshold() if by == "cldice" else best_common_threshold(curves)


def _cldice(answer: NDArray[np.bool_], true: NDArray[np.bool_], skeleton: NDArray[np.bool_]) -> float:
    """As :func:`~topolora_monai.metrics.cldice`, with the target's skeleton at hand."""
    if not answer.any() or not true.any():
        return 0.0 if answer.any() or true.any() else float("nan")
    precision, sensitivity = float(true[skeletonize(answer)].mean()), float(answer[skeleton].mean())
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0


def _found(curve: ThresholdCurve) -> tuple[NDArray[np.int64], ...]:
    """Levels that occur, highest first, and true and false positives at each as threshold."""
    levels = np.flatnonzero(curve.positives + curve.negatives)[::-1]
    return levels, curve.positives[levels].cumsum(), curve.negatives[levels].cumsum()


def _thinned(found: tuple[NDArray[np.int64], ...], points: int | None) -> tuple[NDArray[np.int64], ...]:
    if points is None or len(found[0]) <= points:
        return found
    kept = np.linspace(0, len(found[0]) - 1, points).round().astype(np.int64)
    return tuple(part[kept] for part in found)


def _edges(levels: NDArray[np.int64], curve: ThresholdCurve) -> NDArray[np.float64]:
    return np.asarray(levels / len(curve.positives))
