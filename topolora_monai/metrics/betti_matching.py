"""Components and holes of two masks that are one and the same, by induced matching."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from topolora_monai.metrics.image_metric import valid_masks

_EIGHT = np.ones((3, 3), bool)


class BettiMatching(NamedTuple):
    """Numbers of features that are matched and that are not, each of components and of holes."""

    matched: tuple[int, int]
    unmatched_prediction: tuple[int, int]
    unmatched_target: tuple[int, int]


def betti_matching(prediction: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None) -> BettiMatching:
    """Match the components and the holes of two masks through those of their union.

    This is Betti matching (Stucki et al., ICML 2023, arXiv 2211.15272) of two-step filtrations, a mask and then the
    whole image, with the union of both masks as comparison. Connectivity is that of :func:`betti_numbers`.

    Both masks are included in their union, which sends every component into a component of the union, and every hole
    to the sum of the holes of the union that lie inside it. A component of the union that holds pixels of both masks
    matches one component of each, whichever: the others are not matched. Every hole is sent to the largest hole of
    the union inside it, the last in raster order of equals; a hole of the prediction and one of the target are
    matched if they meet there.

    Foreground pixels that touch at a corner are connected here, as in construction "T" of the published code, the one
    the next paragraph speaks of. Construction "V", with which its authors evaluate, connects them by edges alone:
    its numbers are others and not to be compared.

    All bars of a binary mask are alike, and theory leaves open which of equal bars are matched. The published code
    decides by the order of pixels, so that flipping the images can change its result; here overlap and size decide,
    and the order of pixels only between holes of equal size. In dimension 0 the published code matches as many or
    more, and its error is never the higher one: it also matches parts that do not overlap where nothing else is left
    to match them, as all end in the whole image. Of two masks that share no pixel it matches one component each.

    Raises:
        ValueError: if the masks are not 2-D.

    Example:
        >>> ring = np.zeros((9, 20), bool)
        >>> ring[2:7, 2:7] = True
        >>> ring[4, 4] = False
        >>> betti_matching(ring, np.roll(ring, 10, axis=1))
        BettiMatching(matched=(0, 0), unmatched_prediction=(1, 1), unmatched_target=(1, 1))
    """
    predicted, true = valid_masks(prediction, target, mask, dimensions=(2,))
    union = predicted | true
    parts, number = ndimage.label(union, _EIGHT)
    held = np.zeros((2, number + 1), bool)
    held[0, parts[predicted]] = held[1, parts[true]] = True
    of_union, of_prediction, of_target = _Holes(union), _Holes(predicted), _Holes(true)
    common = np.intersect1d(of_union.largest_inside(of_prediction), of_union.largest_inside(of_target))
    matched = int(held.all(axis=0).sum()), len(common)
    components = [int(ndimage.label(one, _EIGHT)[1]) for one in (predicted, true)]
    return BettiMatching(
        matched=matched,
        unmatched_prediction=(components[0] - matched[0], of_prediction.number - matched[1]),
        unmatched_target=(components[1] - matched[0], of_target.number - matched[1]),
    )


def betti_matching_error(
    prediction: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None, dimension: Literal[0, 1] | None = None
) -> float:
    """Number of features of either mask that :func:`betti_matching` leaves unmatched.

    At least the :func:`betti_error` of the whole image, and more where features are many enough but in the wrong
    places. ``dimension`` is 0 for components, 1 for holes, None for their sum, as in the paper.

    Returns:
        0 if both masks are empty, all features of the other if one is; NaN if ``mask`` is.

    Raises:
        ValueError: for another dimension.

    Example:
        >>> line = np.zeros((9, 40), bool)
        >>> line[4, 10:30] = True
        >>> betti_matching_error(line, np.roll(line, 3, axis=0)), betti_matching_error(line, line)
        (2.0, 0.0)
    """
    if dimension not in (0, 1, None):
        raise ValueError(f"dimension must be 0, 1 or None, not {dimension}")
    if mask is not None and not np.any(mask):
        return float("nan")
    found = betti_matching(prediction, target, mask)
    errors = [a + b for a, b in zip(found.unmatched_prediction, found.unmatched_target, strict=True)]
    return float(sum(errors) if dimension is None else errors[dimension])


class _Holes:
    """Holes of one mask, labelled from 2 on; 1 is the background that reaches the border."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        labels, count = ndimage.label(np.pad(~mask, 1, constant_values=True))
        self.labels: NDArray[np.int32] = labels.ravel()
        self.number = int(count) - 1

    def largest_inside(self, around: _Holes) -> NDArray[np.int64]:
        """For every hole of a smaller mask that holds any of these, the label of the largest of them."""
        sizes = np.bincount(self.labels, minlength=self.number + 2)
        a_pixel = np.zeros(self.number + 2, np.int64)
        a_pixel[self.labels] = np.arange(self.labels.size)
        ascending = 2 + np.argsort(sizes[2:], kind="stable")
        largest = np.zeros(around.number + 2, np.int64)
        # Of repeated indices the last one written stays.
        largest[around.labels[a_pixel[ascending]]] = ascending
        inside = largest[2:]
        return inside[inside > 0]
