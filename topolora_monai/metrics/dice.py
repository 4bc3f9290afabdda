"""Pooled Dice in the field of view as a MONAI metric, to choose checkpoints by."""

from __future__ import annotations

from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from topolora_monai.metrics.overlap import ThresholdCurve

__all__ = ["PooledDice"]


class PooledDice(CumulativeIterationMetric):
    """Dice over all pixels of all images inside the field of view, at the best threshold in hundredths.

    Chosen on validation images, the best threshold judges the ranking of pixels rather than the calibration
    of the logits, which still moves while training.

    Example:
        >>> metric = PooledDice()
        >>> _ = metric(y_pred=[torch.tensor([[[0.9, 0.1]]])], y=[torch.tensor([[[1.0, 0.0]]])])
        >>> metric.aggregate()
        tensor([1.])
    """

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Histograms of one image, shape (1, 2, bins).

        Args:
            y_pred: probabilities, shape (1, K, H, W).
            y: target of that shape, or with the field of view as one more channel.
            **kwargs: ignored.
        """
        if y is None:
            raise ValueError("PooledDice needs a target")
        classes = y_pred.shape[1]
        fov = y[:, classes : classes + 1].expand_as(y_pred) if y.shape[1] > classes else None
        curve = ThresholdCurve()
        curve.add(y_pred, y[:, :classes], fov)
        return torch.stack([torch.from_numpy(curve.positives), torch.from_numpy(curve.negatives)])[None]

    def aggregate(self) -> Tensor:
        """Dice over everything seen since the last reset, shape (1,)."""
        pooled = self.pooled()
        return torch.tensor([pooled.scores(pooled.best_threshold()).dice])

    def pooled(self) -> ThresholdCurve:
        """Curve over everything seen since the last reset."""
        curve = ThresholdCurve()
        buffer = self.get_buffer()
        if not isinstance(buffer, Tensor):
            raise ValueError("no image has been scored yet")
        total = buffer.sum(dim=0).cpu().numpy()
        curve.positives, curve.negatives = total[0].astype("int64"), total[1].astype("int64")
        return curve
