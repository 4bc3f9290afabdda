"""Scores at every threshold, and which threshold to take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.morphology import skeletonize
from torch import Tensor

from topolora_monai.metrics.image_metric import MaskedMetric
from topolora_monai.metrics.overlap import ThresholdCurve, threshold_bin, to_16_bit

__all__ = ["BestClDice", "ClDiceCurveMetric", "average_precision"]

DEFAULT_THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(1, 20))
"""Those clDice is taken at: 0.05, 0.10, ... 0.95."""


def average_precision(curve: ThresholdCurve) -> float:
    """Mean over foreground pixels of the precision where each is found, without interpolation; NaN if there is none.

    Equal to scikit-learn's ``average_precision_score`` of probabilities rounded to 16 bits.

    Example:
        >>> counts = ThresholdCurve()
        >>> counts.add(torch.tensor([0.9, 0.6, 0.2]), torch.tensor([1.0, 0.0, 1.0]))
        >>> average_precision(counts)  # (1 + 2/3) / 2
        0.8333333333333333
    """
    levels = np.flatnonzero(curve.positives + curve.negatives)[::-1]
    hits, alarms = curve.positives[levels].cumsum(), curve.negatives[levels].cumsum()
    if not hits.size or not hits[-1]:
        return float("nan")
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / (hits + alarms)).sum() / hits[-1])


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


def _cldice(answer: NDArray[np.bool_], true: NDArray[np.bool_], skeleton: NDArray[np.bool_]) -> float:
    """As :func:`~topolora_monai.metrics.cldice`, with the target's skeleton at hand."""
    if not answer.any() or not true.any():
        return 0.0 if answer.any() or true.any() else float("nan")
    precision, sensitivity = float(true[skeletonize(answer)].mean()), float(answer[skeleton].mean())
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0
