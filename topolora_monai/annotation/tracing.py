"""Lines that an annotator draws with the network's help: live-wire between two points, and bridges over breaks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from skimage.draw import line
from skimage.graph import MCP_Geometric, route_through_array

from topolora_monai.annotation.uncertainty import probable_breaks
from topolora_monai.errors import ConfigError

Path = NDArray[np.intp]
"""Pixels (N, 2) as (row, column), each a neighbour of the one before by edge or corner."""
Pixel = tuple[int, int]

_EIGHT = np.ones((3, 3), bool)
_LEAST, _STEP = 1e-3, 0.1
"""Probability below which a pixel costs no more, and cost of a pixel of which the network is certain."""
_MARGIN = 64
"""Pixels around two points in which a way between them is looked for, at least."""
_REACH = 40
"""Pixels from a click to a break that it may mean."""
_NEAR = 6
"""Pixels beyond a break within which its ends are looked for."""
_UNKNOWN, _WIDEST = 2.0, 8.0


def trace(probability: ArrayLike, points: Sequence[Pixel]) -> Path:
    """Live-wire: the way through all points, in their order, that the probabilities (H, W) make the cheapest.

    A pixel costs the negative logarithm of its probability and a little more, so that of two ways along a structure the
    shorter is taken (Falcao et al. 1998, with a network's probabilities for the edges).

    Raises:
        ConfigError: for fewer than two points, or one outside of the image.

    Example:
        >>> bent = np.full((5, 7), 0.01)
        >>> bent[0, :] = bent[:, 6] = 0.9
        >>> trace(bent, [(0, 0), (4, 6)]).tolist()
        [[0, 0], [0, 1], [0, 2], [0, 3], [0, 4], [0, 5], [1, 6], [2, 6], [3, 6], [4, 6]]
    """
    values = np.asarray(probability)
    if len(points) < 2:
        raise ConfigError("a way is traced between points", expected="at least two", found=len(points))
    for row, column in points:
        if not (0 <= row < values.shape[0] and 0 <= column < values.shape[1]):
            raise ConfigError(
                "point of a way outside of the image",
                expected=f"x from 0 to {values.shape[1] - 1}, y from 0 to {values.shape[0] - 1}",
                found=(column, row),
            )
    ways = [_way(values, start, end) for start, end in itertools.pairwise(points)]
    return np.concatenate([ways[0][:1], *(way[1:] for way in ways)])


def _way(probability: NDArray[Any], start: Pixel, end: Pixel) -> Path:
    ends = np.array([start, end])
    margin = max(_MARGIN, int(np.ptp(ends, axis=0).max()) // 2)
    low = np.maximum(ends.min(axis=0) - margin, 0)
    high = ends.max(axis=0) + margin + 1
    cost = _cost(probability[low[0] : high[0], low[1] : high[1]])
    way, _ = route_through_array(cost, ends[0] - low, ends[1] - low, fully_connected=True, geometric=True)
    return np.asarray(np.array(way, np.intp) + low)


def _cost(probability: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(_STEP - np.log(np.clip(probability, _LEAST, 1)), np.float64)


def bridge(mask: ArrayLike, probability: ArrayLike, near: Pixel, threshold: float = 0.5) -> Path:
    """The cheapest way between the two ends of the break nearest to a click.

    Breaks are :func:`~topolora_monai.annotation.probable_breaks`. Where the click is within 40 pixels of none, its ends
    are the first two parts of the mask that a circle around the click meets.

    Args:
        mask: shape (H, W).
        probability: likewise.
        near: (row, column) of the click.
        threshold: that the mask was made with.

    Returns:
        The way, whose first and last pixels are the ends.

    Raises:
        ConfigError: if there is nothing to join within 40 pixels.

    Example:
        >>> line = np.zeros((9, 40))
        >>> line[4, 2:38] = 0.9
        >>> line[4, 18:22] = 0.3
        >>> bridge(line > 0.5, line, (2, 19)).tolist()
        [[4, 17], [4, 18], [4, 19], [4, 20], [4, 21], [4, 22]]
    """
    inside, values = np.asarray(mask, bool), np.asarray(probability)
    low = np.maximum(np.array(near) - 3 * _REACH, 0)
    window = np.s_[low[0] : near[0] + 3 * _REACH + 1, low[1] : near[1] + 3 * _REACH + 1]
    inside, values, click = inside[window], values[window], np.array(near) - low
    rows, columns = np.ogrid[: inside.shape[0], : inside.shape[1]]

    def disc(centre: Sequence[float], radius: float) -> NDArray[np.bool_]:
        return np.asarray(np.hypot(rows - centre[0], columns - centre[1]) <= radius)

    found = [
        (float(np.hypot(gap.row - click[0], gap.col - click[1])), disc((gap.row, gap.col), gap.radius + _NEAR))
        for gap in probable_breaks(inside, values, threshold)
    ]
    distance, around = min(found, key=lambda one: one[0], default=(np.inf, np.zeros_like(inside)))
    if distance > _REACH:
        discs = (disc(click.tolist(), radius) for radius in range(2, _REACH + 1))
        around = next((one for one in discs if ndimage.label(inside & one, _EIGHT)[1] > 1), around)
    parts, number = ndimage.label(inside & around, _EIGHT)
    if number < 2:
        raise ConfigError(
            "no break to bridge here",
            expected=f"two ends of a structure within {_REACH} pixels",
            found=f"({near[1]}, {near[0]})",
            hint="trace the missing part between two points",
        )
    return np.asarray(_crossing(_cost(values), parts, number) + low)


def _crossing(cost: NDArray[np.float64], parts: NDArray[np.int32], number: int) -> Path:
    """The cheapest way from one of the numbered parts to another."""
    best: tuple[float, list[tuple[int, int]]] = (np.inf, [])
    for part in range(1, number):
        search = MCP_Geometric(cost)
        costs, _ = search.find_costs(np.argwhere(parts == part))
        others = np.argwhere(parts > part)
        end = others[costs[tuple(others.T)].argmin()]
        if costs[tuple(end)] < best[0]:
            best = float(costs[tuple(end)]), search.traceback(end)
    return np.array(best[1], np.intp)


def half_width(mask: ArrayLike, path: Path) -> float:
    """That of the structures of a mask (H, W) along a path, in pixels from 1 to 8; 2 where it is near none.

    Example:
        >>> mask = np.zeros((9, 30), bool)
        >>> mask[2:7, :10] = True
        >>> half_width(mask, trace(np.ones((9, 30)), [(4, 2), (4, 20)]))
        3.0
    """
    low, high = np.maximum(path.min(axis=0) - 16, 0), path.max(axis=0) + 17
    depth = ndimage.distance_transform_edt(np.asarray(mask, bool)[low[0] : high[0], low[1] : high[1]])
    along = ndimage.maximum_filter(depth, 5)[tuple((path - low).T)]
    return float(np.clip(np.median(along[along > 0]), 1, _WIDEST)) if along.any() else _UNKNOWN


def paint(path: Path, shape: tuple[int, int], half_width: float = 1.0) -> NDArray[np.bool_]:
    """Mask (H, W) of the pixels whose centres are nearer to a path than its half-width, and of the path.

    Example:
        >>> paint(np.array([[1, 1], [1, 2]]), (3, 4), 1.1).astype(int).tolist()
        [[0, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 0]]
    """
    reach = int(np.ceil(half_width))
    low, high = np.maximum(path.min(axis=0) - reach, 0), path.max(axis=0) + reach + 1
    painted = np.zeros(shape, bool)
    window = painted[low[0] : high[0], low[1] : high[1]]
    away = np.ones(window.shape, bool)
    away[tuple((path - low).T)] = False
    window |= ndimage.distance_transform_edt(away) < max(half_width, 0.5)
    return painted


def stroke_path(points: Sequence[Pixel]) -> Path:
    """Pixels of a polyline of (row, column), of one point that alone.

    Example:
        >>> stroke_path([(0, 0), (2, 2), (2, 3)]).tolist()
        [[0, 0], [1, 1], [2, 2], [2, 3]]
    """
    pieces = [np.stack(line(*start, *end), axis=1)[1:] for start, end in itertools.pairwise(points)]
    return np.concatenate([np.array(points[:1]), *pieces]).astype(np.intp)
