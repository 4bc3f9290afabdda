"""Centreline Dice with exact skeletons, as a function and as a MONAI metric."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage.morphology import skeletonize

from topolora_monai.metrics.image_metric import ImageMetric

__all__ = ["ClDiceMetric", "cldice"]


def cldice(prediction: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Harmonic mean of topology precision and sensitivity (Shit et al., CVPR 2021, arXiv 2003.07311).

    Skeletons are exact (scikit-image), unlike those of the differentiable loss.

    Args:
        prediction: binary mask of shape (H, W).
        target: same shape.
        mask: same shape; pixels outside it are background in both.

    Returns:
        Value in [0, 1]; NaN if both are empty, 0 if one is.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> line = np.zeros((9, 9), bool)
        >>> line[4, 1:8] = True
        >>> cldice(line, line), cldice(line, np.zeros_like(line))
        (1.0, 0.0)
    """
    predicted, true = np.asarray(prediction, bool), np.asarray(target, bool)
    if predicted.shape != true.shape:
        raise ValueError(f"prediction {predicted.shape} and target {true.shape} differ in shape")
    if mask is not None:
        inside = np.asarray(mask, bool)
        predicted, true = predicted & inside, true & inside
    if not predicted.any() and not true.any():
        return float("nan")
    if not predicted.any() or not true.any():
        return 0.0
    precision = float(true[skeletonize(predicted)].mean())
    sensitivity = float(predicted[skeletonize(true)].mean())
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0


class ClDiceMetric(ImageMetric):
    """:func:`cldice` as a MONAI metric; see :class:`ImageMetric` for how to call it.

    Args:
        reduction: one of MONAI's.

    Example:
        >>> import torch
        >>> metric = ClDiceMetric()
        >>> _ = metric(y_pred=torch.eye(9)[None, None], y=torch.eye(9)[None, None])
        >>> metric.aggregate()
        tensor([1.])
    """

    def score(
        self, prediction: NDArray[np.bool_], target: NDArray[np.bool_], mask: NDArray[np.bool_] | None, **options: Any
    ) -> float:
        """See :func:`cldice`."""
        return cldice(prediction, target, mask, **options)
