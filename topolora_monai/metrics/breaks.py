"""Where a prediction breaks a structure, and where it sees one that is not there."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from skimage.morphology import skeletonize

from topolora_monai.metrics.image_metric import valid_masks

_EIGHT = np.ones((3, 3), bool)
_NEAR = 6
"""Pixels around a gap within which a detour of the prediction still joins its ends."""


class SkeletonBreak(NamedTuple):
    """A gap in a centreline.

    ``row`` and ``col`` are the centre of its bounding box, ``length`` the number of its pixels, and ``radius`` that of
    the circle around the centre that goes one pixel beyond all of them.
    """

    row: float
    col: float
    length: int
    radius: float


def skeleton_breaks(prediction: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None) -> list[SkeletonBreak]:
    """Gaps of the prediction in the target's centreline whose ends it holds but does not join.

    A gap is a connected stretch, by edge or corner, of the target's exact skeleton outside the prediction. It is a
    break if the pixels of the skeleton next to it lie in at least two parts of the prediction, where only what is
    within 6 pixels of the gap connects them: a detour beside the centreline mends it, one through another branch does
    not. So the gap in a loop is a break, the missed end of a branch is none, nor is a structure missed whole. With the
    two masks exchanged it finds links that join what is apart.

    Returns:
        Breaks in raster order of their first pixels; none if either mask is empty.

    Raises:
        ValueError: if the masks are not 2-D.

    Example:
        >>> line = np.zeros((9, 40), bool)
        >>> line[4, 2:38] = True
        >>> broken = line.copy()
        >>> broken[:, 18:22] = False
        >>> skeleton_breaks(broken, line)
        [SkeletonBreak(row=4.0, col=19.5, length=4, radius=2.5)]
    """
    predicted, true = valid_masks(prediction, target, mask, dimensions=(2,))
    skeleton = skeletonize(true)
    gaps, _ = ndimage.label(skeleton & ~predicted, _EIGHT)
    breaks = []
    for number, box in enumerate(ndimage.find_objects(gaps), start=1):
        window = tuple(slice(max(0, side.start - _NEAR - 1), side.stop + _NEAR + 1) for side in box)
        gap = gaps[window] == number
        ends = ndimage.binary_dilation(gap, _EIGHT) & skeleton[window] & predicted[window]
        if ends.sum() < 2:
            continue
        near = ndimage.distance_transform_edt(~gap) <= _NEAR
        parts, _ = ndimage.label(predicted[window] & near, _EIGHT)
        if len(np.unique(parts[ends])) >= 2:
            points = np.argwhere(gap) + [side.start for side in window]
            row, col = (points.min(axis=0) + points.max(axis=0)) / 2
            radius = float(np.hypot(*(points - (row, col)).T).max()) + 1
            breaks.append(SkeletonBreak(float(row), float(col), len(points), radius))
    return breaks


def false_components(prediction: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.int32]:
    """Components of the prediction that touch nothing of the target, not even by a corner.

    Returns:
        Label map of that shape: 1, 2, ... in raster order, and 0 elsewhere. ``scipy.ndimage.find_objects`` gives their
        bounding boxes.

    Example:
        >>> false_components([[1, 0, 1, 0, 0, 1]], [[1, 0, 0, 0, 0, 0]])
        array([[0, 0, 1, 0, 0, 2]], dtype=int32)
    """
    predicted, true = valid_masks(prediction, target, mask)
    neighbours = np.ones((3,) * true.ndim, bool)
    parts, number = ndimage.label(predicted, neighbours)
    false = np.ones(number + 1, bool)
    false[0] = False
    false[parts[ndimage.binary_dilation(true, neighbours)]] = False
    renumbered = np.where(false, np.cumsum(false), 0).astype(np.int32)
    return np.asarray(renumbered[parts])
