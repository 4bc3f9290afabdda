"""How far one click reaches: the missed or wrongly added piece around it, and nothing else."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.graph import MCP_Geometric

__all__ = ["apply_click"]

_EIGHT = np.ones((3, 3), bool)
_WINDOW = 60
"""Pixels around a click within which anything may change."""
_DOT = 1.5
"""Radius in pixels of what always follows a click."""
_LEAST_PIXELS = 30
_SEPARABLE = 0.8
"""Standard deviations between click and surroundings below which nothing but the dot follows."""
_SLOWNESS = 5.0
"""Logarithm of how much longer the way is through the surroundings than through what looks like the click."""
_ALIKE = 0.65
"""Share of the way from the surroundings to the click above which a pixel looks like the click."""
_WIDEST = 8.0
_REACH = {True: 8.0, False: 6.0}
"""Longest way from a click, in local half-widths, of positive and of negative ones."""
_TUBE = 1.5
"""Half-width of the tube that a piece has to fit in, in local half-widths."""


class _Window(NamedTuple):
    """The surroundings of a click: where they lie in the image, and the click in them."""

    slices: tuple[slice, slice]
    seed: tuple[int, int]


def apply_click(
    mask: NDArray[np.bool_],
    evidence: NDArray[np.float32],
    pixel: tuple[int, int],
    positive: bool,
    allowed: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Mask after a click: the clicked pixel is right, and the piece of the same error around it follows.

    Pixels of the wrong class within 60 pixels compete: their evidence is projected on the line from the median of
    them all, which stands for the surroundings, to the click (Fisher's discriminant with their covariance). The piece
    holds the pixels on the click's side which a way joins to it that is short where pixels look like the click
    (a geodesic distance, as in Bai and Sapiro, ICCV 2007). The way is at most some local half-widths long, and as far
    as the piece fits into a tube of that width: where it would run out into a plain, it ends before. Where the click
    does not differ from the surroundings, only a dot of 9 pixels follows. A negative click into the core of a structure
    that ends within the window takes it away whole.

    Args:
        mask: shape (H, W).
        evidence: shape (F, H, W), anything that tells structures from background.
        pixel: (row, column) of the click.
        positive: what the pixel belongs to, the mask or the background.
        allowed: shape (H, W), where the mask may change; the clicked pixel always may.

    Returns:
        A new mask; equal to ``mask`` where the click tells nothing new.

    Example:
        >>> image = np.zeros((1, 21, 60), np.float32)
        >>> image[0, 10, 5:55] = 1.0
        >>> image += np.random.default_rng(0).normal(0, 0.05, image.shape).astype(np.float32)
        >>> nothing, anywhere = np.zeros((21, 60), bool), np.ones((21, 60), bool)
        >>> found = apply_click(nothing, image, (10, 30), True, anywhere)
        >>> rows, columns = np.nonzero(found)
        >>> bool(columns.max() - columns.min() > 8), int(np.abs(rows - 10).max())
        (True, 1)
    """
    if mask[pixel] == positive:
        return np.array(mask)
    window = _around(pixel, mask.shape)
    wrong = (mask[window.slices] != positive) & allowed[window.slices]
    wrong[window.seed] = True
    rows, columns = np.ogrid[: wrong.shape[0], : wrong.shape[1]]
    distance = np.hypot(rows - window.seed[0], columns - window.seed[1])
    piece = (distance <= _DOT) & wrong
    likeness = _likeness(evidence[:, window.slices[0], window.slices[1]], wrong, window.seed)
    if likeness is not None:
        piece |= _follow(likeness, wrong, window.seed, distance, _REACH[positive])
    if not positive:
        piece |= _island(mask, wrong, window)
    parts, _ = ndimage.label(piece, _EIGHT)
    corrected = np.array(mask)
    corrected[window.slices][parts == parts[window.seed]] = positive
    return corrected


def _around(pixel: tuple[int, int], shape: tuple[int, ...]) -> _Window:
    starts = [max(0, place - _WINDOW) for place in pixel]
    stops = [min(size, place + _WINDOW + 1) for place, size in zip(pixel, shape, strict=True)]
    slices = (slice(starts[0], stops[0]), slice(starts[1], stops[1]))
    return _Window(slices, (pixel[0] - starts[0], pixel[1] - starts[1]))


def _island(mask: NDArray[np.bool_], wrong: NDArray[np.bool_], window: _Window) -> NDArray[np.bool_]:
    """The whole structure of the click if nothing of it lies beyond the window, and the click hits its core."""
    structures, _ = ndimage.label(mask[window.slices], _EIGHT)
    structure = structures == structures[window.seed]
    depth = ndimage.distance_transform_edt(np.pad(structure, 1))[1:-1, 1:-1]
    (top, bottom), (left, right) = ((side.start, side.stop) for side in window.slices)
    sides = [structure[:1] if top else None, structure[-1:] if bottom < mask.shape[0] else None]
    sides += [structure[:, :1] if left else None, structure[:, -1:] if right < mask.shape[1] else None]
    goes_on = any(side is not None and side.any() for side in sides)
    if goes_on or depth[window.seed] < depth.max() / 2:
        return np.zeros_like(wrong)
    return np.asarray(structure & wrong)


class _Likeness(NamedTuple):
    """How much pixels look like the click: 0 as the surroundings' median, 1 as the click; and how sure that is."""

    values: NDArray[np.float64]
    separation: float


def _likeness(evidence: NDArray[np.float32], wrong: NDArray[np.bool_], seed: tuple[int, int]) -> _Likeness | None:
    """None where the click does not differ from its surroundings."""
    samples = evidence[:, wrong].astype(np.float64)
    if samples.shape[1] < _LEAST_PIXELS:
        return None
    centre = np.median(samples, axis=1)
    spread = np.atleast_2d(np.cov(samples))
    spread = 0.9 * spread + 0.1 * np.diag(np.diag(spread)) + 1e-9 * np.eye(len(spread))
    difference = evidence[:, seed[0], seed[1]] - centre
    weights = np.linalg.solve(spread, difference)
    squared = float(weights @ difference)  # Mahalanobis
    if squared < _SEPARABLE**2:
        return None
    values = np.tensordot(weights, evidence - centre[:, None, None], 1) / squared
    return _Likeness(values, squared)


def _follow(
    likeness: _Likeness,
    wrong: NDArray[np.bool_],
    seed: tuple[int, int],
    distance: NDArray[np.float64],
    reach: float,
) -> NDArray[np.bool_]:
    """The piece around the click, before what is not joined to it is taken away."""
    sure = likeness.separation / (likeness.separation + 1)
    slowness = _SLOWNESS * sure * np.clip(1 - likeness.values, 0, None) - np.log(sure)
    strange = (slowness > _SLOWNESS / 2) | ~wrong
    width = float(np.clip(distance[strange].min(initial=_WIDEST), 1.0, _WIDEST))
    ways, _ = MCP_Geometric(np.where(wrong, np.exp(slowness), -1.0)).find_costs([seed])
    near = ways <= _longest_in_tube(ways, reach * width, _TUBE * width)
    return np.asarray(near & (likeness.values >= _ALIKE))


def _longest_in_tube(ways: NDArray[np.float64], reach: float, half_width: float) -> float:
    """Longest way up to which the pixels reached are no more than a tube around the way holds."""
    lengths = np.sort(ways[ways <= reach])
    area = np.arange(1, len(lengths) + 1)
    outside = np.flatnonzero(area > 2 * lengths * half_width + np.pi * half_width**2 + 1)
    last = outside[0] - 1 if outside.size else len(lengths) - 1
    return float(lengths[last]) if last >= 0 else 0.0
