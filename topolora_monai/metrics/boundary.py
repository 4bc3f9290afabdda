"""How far the outlines of two masks are apart."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_erosion
from scipy.spatial import KDTree

from topolora_monai.metrics.image_metric import harmonic_mean, valid_masks

Spacing = float | Sequence[float]
"""Size of a pixel, of each axis or of all: 1 for distances in pixels, millimetres for distances in millimetres."""


def boundary_f1(
    prediction: ArrayLike,
    target: ArrayLike,
    tolerance: float = 2.0,
    mask: ArrayLike | None = None,
    spacing: Spacing = 1.0,
) -> float:
    """Harmonic mean of the shares of either outline within a tolerance of the other (Csurka et al., BMVC 2013).

    An outline is the foreground pixels with a background pixel, or the end of the image, next to them by edge.
    ``tolerance`` is the greatest distance of centres that still counts, in the unit of ``spacing``, which is the size
    of a pixel, of each axis or of all. The paper takes 0.75 % of the diagonal of the image.

    Returns:
        Value in [0, 1]; NaN if both masks are empty, 0 if one is.

    Raises:
        ValueError: if the tolerance is negative, or the spacing does not fit.

    Example:
        >>> square = np.zeros((20, 20), bool)
        >>> square[5:15, 5:15] = True
        >>> moved = np.roll(square, 2, axis=0)
        >>> boundary_f1(square, moved, tolerance=2), round(boundary_f1(square, moved, tolerance=1), 3)
        (1.0, 0.556)
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, not {tolerance}")
    distances = _distances(prediction, target, mask, spacing, of_empty=math.inf)
    if np.isnan(distances[0]).any():
        return math.nan
    precision, recall = (float((one <= tolerance).mean()) for one in distances)
    return harmonic_mean(precision, recall)


def hd95(prediction: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None, spacing: Spacing = 1.0) -> float:
    """95th percentile of the distances between outlines: of those of either to the other, the larger.

    Outlines are those of :func:`boundary_f1`, and percentiles are interpolated, both as in MONAI. MONAI's own is NaN
    if one mask is empty and 0, or perfect, averaged over nothing but NaN. ``spacing`` is the size of a pixel, of each
    axis or of all: 1 for a result in pixels, millimetres for one in millimetres.

    Returns:
        At least 0; NaN if both masks are empty. If one is, the distance between opposite corners of the image, the
        largest there can be: a mean over images stays finite, and nothing is gained by predicting nothing.

    Raises:
        ValueError: if the spacing does not fit.

    Example:
        >>> square = np.zeros((20, 20), bool)
        >>> square[5:15, 5:15] = True
        >>> hd95(square, np.roll(square, 3, axis=0)), hd95(square, np.roll(square, 3, axis=0), spacing=(0.5, 1))
        (3.0, 1.5)
    """
    return max(float(np.percentile(one, 95)) for one in _distances(prediction, target, mask, spacing))


def assd(prediction: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None, spacing: Spacing = 1.0) -> float:
    """Average symmetric surface distance: mean distance between outlines over all pixels of both.

    The pixels of both outlines are pooled, as in MONAI, so that the longer one weighs more. MONAI's own is infinite if
    one mask is empty. ``spacing``, errors and what is said of empty masks are those of :func:`hd95`.

    Example:
        >>> line = np.zeros((9, 9), bool)
        >>> line[4] = True
        >>> assd(line, np.roll(line, 2, axis=0), spacing=0.5)
        1.0
    """
    return float(np.concatenate(_distances(prediction, target, mask, spacing)).mean())


def _distances(
    prediction: ArrayLike, target: ArrayLike, mask: ArrayLike | None, spacing: Spacing, of_empty: float | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each pixel of the prediction's outline to the target's, and the other way round.

    NaN if both masks are empty; if one is, ``of_empty``, or else the image's diagonal.
    """
    predicted, true = valid_masks(prediction, target, mask)
    size = np.asarray(spacing, np.float64)
    if size.shape not in ((), (true.ndim,)) or not (np.isfinite(size) & (size > 0)).all():
        raise ValueError(f"spacing must be a positive number or {true.ndim} of them, not {spacing}")
    if not predicted.any() or not true.any():
        diagonal = float(np.linalg.norm((np.array(true.shape) - 1) * size)) if of_empty is None else of_empty
        far = np.array([math.nan if predicted.any() == true.any() else diagonal])
        return far, far
    outlines = [np.argwhere(one & ~binary_erosion(one)) * size for one in (predicted, true)]
    return KDTree(outlines[1]).query(outlines[0])[0], KDTree(outlines[0]).query(outlines[1])[0]
