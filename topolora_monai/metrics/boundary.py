"""How far the outlines of two masks are apart."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_erosion
from scipy.spatial import KDTree

from topolora_monai.metrics.image_metric import ImageMetric, valid_masks

__all__ = ["ASSDMetric", "BoundaryF1Metric", "HD95Metric", "assd", "boundary_f1", "hd95"]

Spacing = float | Sequence[float]


def boundary_f1(
    prediction: ArrayLike,
    target: ArrayLike,
    tolerance: float = 2.0,
    mask: ArrayLike | None = None,
    spacing: Spacing = 1.0,
) -> float:
    """Harmonic mean of the shares of either outline within a tolerance of the other (Csurka et al., BMVC 2013).

    An outline is the foreground pixels with a background pixel, or the end of the image, next to them by edge.

    Args:
        prediction: binary mask of shape (H, W) or (D, H, W).
        target: same shape.
        tolerance: greatest distance of centres that still counts, in the unit of ``spacing``. The paper takes 0.75 %
            of the diagonal of the image.
        mask: same shape; pixels outside it are background in both.
        spacing: size of a pixel, of each axis or of all; 1 makes it pixels.

    Returns:
        Value in [0, 1]; NaN if both masks are empty, 0 if one is.

    Raises:
        ValueError: if shapes differ or are neither 2-D nor 3-D, or a setting is out of range.

    Example:
        >>> square = np.zeros((20, 20), bool)
        >>> square[5:15, 5:15] = True
        >>> moved = np.roll(square, 2, axis=0)
        >>> boundary_f1(square, moved, tolerance=2), round(boundary_f1(square, moved, tolerance=1), 3)
        (1.0, 0.556)
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, not {tolerance}")
    predicted, true = valid_masks(prediction, target, mask)
    if not predicted.any() or not true.any():
        return float("nan") if predicted.any() == true.any() else 0.0
    precision, recall = (float((one <= tolerance).mean()) for one in _distances(predicted, true, spacing))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def hd95(prediction: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None, spacing: Spacing = 1.0) -> float:
    """95th percentile of the distances between outlines: of those of either to the other, the larger.

    Outlines are those of :func:`boundary_f1`, and percentiles are interpolated, both as in MONAI. MONAI's own is NaN
    if one mask is empty and 0, or perfect, averaged over nothing but NaN.

    Args:
        prediction: binary mask of shape (H, W) or (D, H, W).
        target: same shape.
        mask: same shape; pixels outside it are background in both.
        spacing: size of a pixel, of each axis or of all: 1 for a result in pixels, millimetres for one in millimetres.

    Returns:
        At least 0; NaN if both masks are empty. If one is, the distance between opposite corners of the image, the
        largest there can be: a mean over images stays finite, and nothing is gained by predicting nothing.

    Raises:
        ValueError: if shapes differ or are neither 2-D nor 3-D, or the spacing does not fit.

    Example:
        >>> square = np.zeros((20, 20), bool)
        >>> square[5:15, 5:15] = True
        >>> hd95(square, np.roll(square, 3, axis=0)), hd95(square, np.roll(square, 3, axis=0), spacing=(0.5, 1))
        (3.0, 1.5)
    """
    predicted, true = valid_masks(prediction, target, mask)
    if not predicted.any() or not true.any():
        return _of_empty(predicted, true, spacing)
    return max(float(np.percentile(one, 95)) for one in _distances(predicted, true, spacing))


def assd(prediction: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None, spacing: Spacing = 1.0) -> float:
    """Average symmetric surface distance: mean distance between outlines over all pixels of both.

    The pixels of both outlines are pooled, as in MONAI, so that the longer one weighs more. MONAI's own is infinite if
    one mask is empty.

    Args:
        prediction: binary mask of shape (H, W) or (D, H, W).
        target: same shape.
        mask: same shape; pixels outside it are background in both.
        spacing: as for :func:`hd95`.

    Returns:
        At least 0; for empty masks as :func:`hd95`.

    Raises:
        ValueError: if shapes differ or are neither 2-D nor 3-D, or the spacing does not fit.

    Example:
        >>> line = np.zeros((9, 9), bool)
        >>> line[4] = True
        >>> assd(line, np.roll(line, 2, axis=0), spacing=0.5)
        1.0
    """
    predicted, true = valid_masks(prediction, target, mask)
    if not predicted.any() or not true.any():
        return _of_empty(predicted, true, spacing)
    return float(np.concatenate(_distances(predicted, true, spacing)).mean())


class _SpacedMetric(ImageMetric):
    """Base of those in which distances count; a subclass scores with a size of pixels that is known."""

    def __init__(self, spacing: Spacing = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.spacing = spacing

    def score(
        self,
        prediction: NDArray[np.bool_],
        target: NDArray[np.bool_],
        mask: NDArray[np.bool_] | None,
        spacing: Spacing | None = None,
        **options: Any,
    ) -> float:
        """Score of one mask, in pixels of ``spacing`` or else of the metric's own."""
        return self._of(prediction, target, mask, self.spacing if spacing is None else spacing, **options)

    @abc.abstractmethod
    def _of(
        self,
        prediction: NDArray[np.bool_],
        target: NDArray[np.bool_],
        mask: NDArray[np.bool_] | None,
        spacing: Spacing,
        **options: Any,
    ) -> float:
        """The function that the metric is named after."""


class BoundaryF1Metric(_SpacedMetric):
    """:func:`boundary_f1` as a MONAI metric; see :class:`ImageMetric` for how to call it.

    Args:
        tolerance: greatest distance that still counts.
        spacing: size of a pixel; a call can say another one for its images, as ``spacing=``.
        reduction: one of MONAI's.

    Example:
        >>> import torch
        >>> metric = BoundaryF1Metric(tolerance=1)
        >>> _ = metric(y_pred=torch.eye(9)[None, None], y=torch.eye(9)[None, None])
        >>> metric.aggregate()
        tensor([1.])
    """

    def __init__(self, tolerance: float = 2.0, spacing: Spacing = 1.0, reduction: str = "mean") -> None:
        super().__init__(spacing, reduction)
        self.tolerance = tolerance

    def _of(self, prediction: Any, target: Any, mask: Any, spacing: Spacing, **options: Any) -> float:
        return boundary_f1(prediction, target, self.tolerance, mask, spacing, **options)


class HD95Metric(_SpacedMetric):
    """:func:`hd95` as a MONAI metric; see :class:`ImageMetric` for how to call it.

    Args:
        spacing: size of a pixel; a call can say another one for its images, as ``spacing=``.
        reduction: one of MONAI's.

    Example:
        >>> import torch
        >>> metric = HD95Metric()
        >>> line = torch.zeros(1, 1, 9, 9)
        >>> line[..., 4, :] = 1
        >>> metric(y_pred=line, y=line.roll(2, 2), spacing=0.5)
        tensor([[1.]], dtype=torch.float64)
    """

    def _of(self, prediction: Any, target: Any, mask: Any, spacing: Spacing, **options: Any) -> float:
        return hd95(prediction, target, mask, spacing, **options)


class ASSDMetric(_SpacedMetric):
    """:func:`assd` as a MONAI metric; see :class:`ImageMetric` for how to call it.

    Args:
        spacing: size of a pixel; a call can say another one for its images, as ``spacing=``.
        reduction: one of MONAI's.

    Example:
        >>> import torch
        >>> metric = ASSDMetric()
        >>> metric(y_pred=torch.ones(1, 1, 9, 9), y=torch.ones(1, 1, 9, 9))
        tensor([[0.]], dtype=torch.float64)
    """

    def _of(self, prediction: Any, target: Any, mask: Any, spacing: Spacing, **options: Any) -> float:
        return assd(prediction, target, mask, spacing, **options)


def _distances(
    prediction: NDArray[np.bool_], target: NDArray[np.bool_], spacing: Spacing
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each pixel of the prediction's outline to the target's, and the other way round; neither may be empty."""
    size = _pixel_size(spacing, target.ndim)
    predicted, true = (np.argwhere(one & ~binary_erosion(one)) * size for one in (prediction, target))
    return KDTree(true).query(predicted)[0], KDTree(predicted).query(true)[0]


def _of_empty(prediction: NDArray[np.bool_], target: NDArray[np.bool_], spacing: Spacing) -> float:
    size = _pixel_size(spacing, target.ndim)
    if prediction.any() == target.any():
        return float("nan")
    return float(np.linalg.norm((np.array(target.shape) - 1) * size))


def _pixel_size(spacing: Spacing, axes: int) -> NDArray[np.float64]:
    size = np.asarray(spacing, np.float64)
    if size.shape not in ((), (axes,)) or not (np.isfinite(size) & (size > 0)).all():
        raise ValueError(f"spacing must be a positive number or {axes} of them, not {spacing}")
    return np.broadcast_to(size, (axes,))
