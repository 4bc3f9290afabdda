"""Pooled Dice in the field of view as a MONAI metric, to choose checkpoints by."""

from typing import Any, NamedTuple

import numpy as np
import torch
from monai.metrics import CumulativeIterationMetric
from numpy.typing import NDArray
from torch import Tensor

from topolora_monai.metrics.calibration import fit_temperature
from topolora_monai.metrics.classes import class_counts, predicted_masks
from topolora_monai.metrics.overlap import OverlapScores, ThresholdCurve, best_common_threshold, mean_scores


class BestDice(NamedTuple):
    """Dice, and its threshold; 0.5, which means nothing, where each pixel is of its most probable class."""

    dice: float
    threshold: float


class PooledDice(CumulativeIterationMetric):
    """Dice over all pixels of all images inside the field of view, at the best threshold in hundredths.

    Chosen on validation images, the best threshold judges the ranking of pixels rather than the calibration
    of the logits, which still moves while training. Of several classes it is the mean of their Dice; where they
    exclude one another, each pixel is of its most probable class and there is no threshold to choose.

    Args:
        activation: what made the probabilities, ``"sigmoid"`` or ``"softmax"``; with the latter, several classes
            exclude one another.

    Example:
        >>> metric = PooledDice()
        >>> _ = metric(y_pred=[torch.tensor([[[0.9, 0.1]]])], y=[torch.tensor([[[1.0, 0.0]]])])
        >>> metric.aggregate()
        tensor([1.])
    """

    def __init__(self, activation: str = "sigmoid") -> None:
        super().__init__()
        self.activation = activation

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """What is pooled of one image: histograms, shape (1, K, 2, bins), or pixel counts, shape (1, K, 3).

        Probabilities have shape (1, K, H, W), the target the same, or the field of view as one more channel.
        """
        if y is None:
            raise ValueError("PooledDice needs a target")
        classes = y_pred.shape[1]
        target, fov = y[0, :classes], y[0, classes] if y.shape[1] > classes else None
        if self.activation == "softmax" and classes > 1:
            return torch.from_numpy(class_counts(predicted_masks(y_pred[0], None), target, fov))[None]
        curves = [ThresholdCurve() for _ in range(classes)]
        for curve, probability, truth in zip(curves, y_pred[0], target, strict=True):
            curve.add(probability, truth, fov)
        return torch.from_numpy(np.stack([[curve.positives, curve.negatives] for curve in curves]))[None]

    def aggregate(self) -> Tensor:
        """Dice over everything seen since the last reset, shape (1,)."""
        return torch.tensor([self.best().dice])

    def best(self) -> BestDice:
        """Dice over everything seen since the last reset, and the threshold it was reached at.

        Raises:
            ValueError: if nothing was.
        """
        total = self._total()
        threshold = 0.5 if total.ndim == 2 else best_common_threshold([ThresholdCurve(*pair) for pair in total])
        return BestDice(_dice(total, threshold), threshold)

    def of_images(self) -> list[float]:
        """Dice of each image since the last reset, in order, at the threshold of :meth:`best`; NaN where nothing is.

        Raises:
            ValueError: if there was none.
        """
        threshold = self.best().threshold
        return [_dice(counts, threshold) for counts in self.get_buffer().cpu().numpy()]

    def temperature(self) -> float:
        """What :func:`fit_temperature` finds for everything seen since the last reset.

        1, which leaves probabilities as they are, where classes exclude one another or only one class was seen.

        Raises:
            ValueError: if nothing was.
        """
        total = self._total()
        if total.ndim == 2 or not total.sum(axis=(0, 2)).all():
            return 1.0
        return fit_temperature([ThresholdCurve(*pair) for pair in total])

    def _total(self) -> NDArray[np.int64]:
        buffer = self.get_buffer()
        if not isinstance(buffer, Tensor):
            raise ValueError("no image has been scored yet")
        return np.asarray(buffer.sum(dim=0).cpu().numpy(), np.int64)


def _dice(counts: NDArray[np.int64], threshold: float) -> float:
    """Mean over classes, of pixel counts (K, 3) or of histograms (K, 2, bins)."""
    if counts.ndim == 2:
        return mean_scores([OverlapScores.of_counts(*row) for row in counts.tolist()]).dice
    return mean_scores([ThresholdCurve(*pair).scores(threshold) for pair in counts]).dice
