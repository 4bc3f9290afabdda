"""How far one click reaches: the missed or wrongly added piece around it, and nothing else; and by what it is told."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.graph import MCP_Geometric

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

_FINE, _COARSE = 0.7, 12.0
"""Widths in pixels of the Gaussian filters of a contrast."""
_MOST_PIXELS = 50_000


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
    row, column = pixel
    top, left = max(0, row - _WINDOW), max(0, column - _WINDOW)
    window, seed = np.s_[top : row + _WINDOW + 1, left : column + _WINDOW + 1], (row - top, column - left)
    wrong = (mask[window] != positive) & allowed[window]
    wrong[seed] = True
    rows, columns = np.ogrid[: wrong.shape[0], : wrong.shape[1]]
    distance = np.hypot(rows - seed[0], columns - seed[1])
    piece = (distance <= _DOT) & wrong
    likeness = _likeness(evidence[:, window[0], window[1]], wrong, seed)
    if likeness is not None:
        piece |= _follow(*likeness, wrong, seed, distance, _REACH[positive])
    if not positive:
        piece |= _island(mask, window, seed) & wrong
    parts, _ = ndimage.label(piece, _EIGHT)
    corrected = np.array(mask)
    corrected[window][parts == parts[seed]] = positive
    return corrected


def _island(mask: NDArray[np.bool_], window: tuple[slice, slice], seed: tuple[int, int]) -> NDArray[np.bool_]:
    """The whole structure of the click if nothing of it lies beyond the window, and the click hits its core."""
    structures, _ = ndimage.label(mask[window], _EIGHT)
    structure = np.asarray(structures == structures[seed])
    depth = ndimage.distance_transform_edt(np.pad(structure, 1))[1:-1, 1:-1]
    (top, bottom, _), (left, right, _) = (side.indices(size) for side, size in zip(window, mask.shape, strict=True))
    goes_on = [top and structure[0].any(), bottom < mask.shape[0] and structure[-1].any()]
    goes_on += [left and structure[:, 0].any(), right < mask.shape[1] and structure[:, -1].any()]
    return np.zeros_like(structure) if any(goes_on) or depth[seed] < depth.max() / 2 else structure


def _likeness(
    evidence: NDArray[np.float32], wrong: NDArray[np.bool_], seed: tuple[int, int]
) -> tuple[NDArray[np.float64], float] | None:
    """How much pixels look like the click, 0 as the surroundings' median, 1 as the click; and how sure that is.

    None where the click does not differ from its surroundings.
    """
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
    return values, squared


def _follow(
    likeness: NDArray[np.float64],
    separation: float,
    wrong: NDArray[np.bool_],
    seed: tuple[int, int],
    distance: NDArray[np.float64],
    reach: float,
) -> NDArray[np.bool_]:
    """The piece around the click, before what is not joined to it is taken away."""
    sure = separation / (separation + 1)
    slowness = _SLOWNESS * sure * np.clip(1 - likeness, 0, None) - np.log(sure)
    strange = (slowness > _SLOWNESS / 2) | ~wrong
    width = float(np.clip(distance[strange].min(initial=_WIDEST), 1.0, _WIDEST))
    ways, _ = MCP_Geometric(np.where(wrong, np.exp(slowness), -1.0)).find_costs([seed])
    near = ways <= _longest_in_tube(ways, reach * width, _TUBE * width)
    return np.asarray(near & (likeness >= _ALIKE))


def _longest_in_tube(ways: NDArray[np.float64], reach: float, half_width: float) -> float:
    """Longest way up to which the pixels reached are no more than a tube around the way holds."""
    lengths = np.sort(ways[ways <= reach])
    area = np.arange(1, len(lengths) + 1)
    outside = np.flatnonzero(area > 2 * lengths * half_width + np.pi * half_width**2 + 1)
    last = outside[0] - 1 if outside.size else len(lengths) - 1
    return float(lengths[last]) if last >= 0 else 0.0


def local_contrast(image: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Difference of each pixel to its surroundings, in the colour that tells a mask from the rest.

    Each channel is smoothed a little, and its wide average (12 pixels) taken away, so that uneven light does not
    count. Channels are added with the weights of Fisher's discriminant between mask and background.

    The image is (C, H, W), in [0, 1]; the mask (H, W) is a first guess of the structures. Where it is empty or full,
    channels weigh alike.

    Returns:
        Shape (H, W), higher in structures; its standard deviation is 1, or 0 for an image of one colour.

    Example:
        >>> image = np.full((3, 9, 9), 0.5, np.float32)
        >>> image[1, 4] = 0.2  # a line that is seen in one channel
        >>> contrast = local_contrast(image, image[1] < 0.4)
        >>> bool(contrast[4].min() > 1 > contrast[:3].max())
        True
    """
    fine = np.stack([ndimage.gaussian_filter(channel, _FINE) for channel in image])
    contrast = fine - np.stack([ndimage.gaussian_filter(channel, _COARSE) for channel in fine])
    contrast = np.tensordot(_direction(contrast, mask), contrast, 1)
    spread = float(contrast.std())
    return (contrast / spread if spread > 1e-7 else np.zeros_like(contrast)).astype(np.float32)


def _direction(contrast: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    step = max(1, mask.size // _MOST_PIXELS)
    inside, outside = contrast[:, mask][:, ::step], contrast[:, ~mask][:, ::step]
    if min(inside.shape[1], outside.shape[1]) < 2:
        return np.ones(len(contrast)) / len(contrast)
    within = np.atleast_2d(np.cov(inside)) + np.atleast_2d(np.cov(outside))
    ridge = 1e-3 * np.trace(within) / len(within) + 1e-12
    difference = inside.mean(axis=1) - outside.mean(axis=1)
    return np.asarray(np.linalg.solve(within + ridge * np.eye(len(within)), difference), np.float64)
