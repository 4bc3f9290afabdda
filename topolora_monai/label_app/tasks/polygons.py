"""Masks as polygons, and back, for clients that know no masks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from skimage.draw import polygon2mask

Ring = list[list[int]]
"""Corners [x, y] of a polygon without holes; the last one is joined to the first."""


def mask_rings(mask: NDArray[np.bool_], min_area: float = 0) -> list[Ring]:
    """The edges of a mask, exactly: corners are corners of pixels, and the first pixel reaches from (0, 0) to (1, 1).

    CVAT and QuPath take polygons without holes. Where structures enclose something, as vessels do, a part is cut in
    two through what it encloses.

    Returns:
        Polygons that do not overlap and together are the mask (H, W), without connected parts of less than the area
        in pixels.

    Example:
        >>> mask_rings(np.array([[True, True]]))
        [[[0, 0], [0, 1], [2, 1], [2, 0]]]
    """
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    (rows, starts), (_, ends) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    runs = shapely.box(starts, rows, ends, rows + 1, ccw=False)
    parts = shapely.get_parts(shapely.simplify(shapely.union_all(runs), 0, preserve_topology=False))
    pieces = (piece for part in parts if part.area >= min_area for piece in _without_holes(part))
    return [_ring(piece) for piece in pieces]


def _without_holes(polygon: Any) -> Iterator[Any]:
    if not polygon.interiors:
        yield polygon
        return
    middles = sorted(int(hole.bounds[0] + hole.bounds[2]) // 2 for hole in polygon.interiors)
    cut = middles[len(middles) // 2]
    left, low, right, high = polygon.bounds
    for side in (shapely.box(left, low, cut, high), shapely.box(cut, low, right, high)):
        for piece in shapely.get_parts(shapely.intersection(polygon, side)):
            if piece.geom_type == "Polygon":
                yield from _without_holes(piece)


def _ring(polygon: Any) -> Ring:
    corners = shapely.get_coordinates(shapely.simplify(polygon, 0, preserve_topology=False).exterior)[:-1]
    return [[round(x), round(y)] for x, y in corners.tolist()]


def draw_rings(rings: Sequence[Sequence[Sequence[float]]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels (H, W) whose centres lie in a polygon, of corners in the coordinates of :func:`mask_rings`.

    Example:
        >>> draw_rings([[[0, 0], [0, 1], [2, 1], [2, 0]]], (1, 3)).tolist()
        [[True, True, False]]
    """
    mask = np.zeros(shape, bool)
    for ring in rings:
        corners = np.asarray(ring, float)[:, ::-1] - 0.5  # from corners of pixels to their centres
        top, left = np.clip(np.floor(corners.min(axis=0)), 0, shape).astype(int)
        bottom, right = np.clip(np.ceil(corners.max(axis=0)) + 1, 0, shape).astype(int)
        if top < bottom and left < right:
            window = mask[top:bottom, left:right]
            window |= polygon2mask(window.shape, corners - (top, left))
    return mask


def annotation(
    numbers: NDArray[np.uint8],
    labels: Mapping[str, int],
    location: tuple[int, int] = (0, 0),
    size: tuple[int, int] = (0, 0),
    min_area: float = 0,
) -> dict[str, Any]:
    """Class numbers (H, W) as MONAI Label's plugins for CVAT and QuPath read them.

    The region that is asked for begins at x and y of ``location``; its ``size`` is width and height, 0 for all of the
    image. ``min_area`` as of :func:`mask_rings`.

    Returns:
        ``annotation``: ``labels``, a colour (red, green, blue) by name; ``elements``, for each class that occurs its
        ``label`` and ``contours``, polygons in the coordinates of the image.
    """
    (x, y), (width, height) = location, size
    region = numbers[y : y + height, x : x + width] if width and height else numbers
    x, y = (x, y) if width and height else (0, 0)
    elements = []
    for name, number in labels.items():
        rings = mask_rings(region == number, min_area)
        if rings:
            contours = [[[column + x, row + y] for column, row in ring] for ring in rings]
            elements.append({"label": name, "contours": contours})
    return {"annotation": {"labels": {name: _colour(number) for name, number in labels.items()}, "elements": elements}}


def _colour(number: int) -> list[int]:
    colours = ([230, 25, 75], [60, 180, 75], [0, 130, 200], [245, 130, 48], [145, 30, 180], [70, 240, 240])
    return colours[(number - 1) % len(colours)]
