"""Outlines, lines, discs and run lengths of annotation files as masks.

Coordinates are in pixels, (x, y) with x to the right and y down, measured from the outer corner of the upper left
pixel, as COCO and labelme store them: pixel (row i, column j) covers [j, j + 1) x [i, i + 1), its centre is
(j + 0.5, i + 0.5). A pixel belongs to a shape if its centre does, so the square from (0, 0) to (10, 10) has 100
pixels. A centre right on a polygon's left or upper edge counts, one on its right or lower edge does not: shapes that
share an edge share no pixel and leave no gap. What lies outside the image is cut off.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage.draw import disk

Mask = NDArray[np.bool_]


def fill_polygon(points: ArrayLike, size: tuple[int, int]) -> Mask:
    """Fill a closed polygon of corners (x, y), shape (N, 2), by the even-odd rule; the mask is (H, W), bool.

    Scan lines instead of scikit-image's point-in-polygon test, whose time grows with area times corners.

    Example:
        >>> fill_polygon([(1, 0), (4, 0), (4, 2), (1, 2)], (3, 5)).astype(int).tolist()
        [[0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]
    """
    corners = np.asarray(points, dtype=np.float64)
    left, top = _first_centre(corners.min(axis=0), size)
    right, bottom = _first_centre(corners.max(axis=0), size)
    crossings = np.zeros((bottom - top, right - left + 1), dtype=np.uint8)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        first, last = sorted(_first_centre(np.array([0, y]), size)[1] for y in (y0, y1))
        if first < last:  # the edge passes the centre line of these rows
            rows = np.arange(first, last)
            x = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
            crossings[rows - top, np.clip(np.ceil(x - 0.5), left, right).astype(int) - left] ^= 1
    mask: Mask = np.zeros(size, dtype=bool)
    mask[top:bottom, left:right] = np.bitwise_xor.accumulate(crossings[:, :-1], axis=1)
    return mask


def draw_disc(centre: tuple[float, float], radius: float, size: tuple[int, int]) -> Mask:
    """Pixels whose centres are nearer than ``radius`` to ``centre`` (x, y); shape (H, W), bool.

    Example:
        >>> int(draw_disc((2, 2), 1, (4, 4)).sum())
        4
    """
    mask: Mask = np.zeros(size, dtype=bool)
    mask[disk((centre[1] - 0.5, centre[0] - 0.5), radius, shape=size)] = True
    return mask


def draw_line(points: ArrayLike, width: float, size: tuple[int, int]) -> Mask:
    """Draw an open line of ``width`` pixels through points (x, y), shape (N, 2), with round ends and joints.

    Example:
        >>> draw_line([(1, 1), (4, 1)], 2, (3, 5)).sum(axis=1).tolist()
        [5, 5, 0]
    """
    nodes = np.asarray(points, dtype=np.float64)
    mask: Mask = np.zeros(size, dtype=bool)
    for x, y in nodes:
        mask |= draw_disc((x, y), width / 2, size)
    for start, end in itertools.pairwise(nodes):
        length = np.hypot(*(end - start))
        if length > 0:
            across = (end - start)[::-1] * (-1, 1) * (width / 2 / length)
            mask |= fill_polygon([start + across, end + across, end - across, start - across], size)
    return mask


def decode_rle(counts: str | Sequence[int], size: tuple[int, int]) -> Mask:
    """Decode COCO's run lengths: background and foreground by turns, down the columns, background first.

    Args:
        counts: the lengths, or their compressed text.
        size: (H, W) of the mask.

    Raises:
        ValueError: if the text is not of that form, or the lengths do not add up to H x W.

    Example:
        >>> decode_rle([1, 2, 1], (2, 2)).astype(int).tolist()
        [[0, 1], [1, 0]]
        >>> decode_rle("121", (2, 2)).astype(int).tolist()
        [[0, 1], [1, 0]]
    """
    height, width = size
    lengths = _decompress(counts) if isinstance(counts, str) else list(counts)
    if any(type(length) is not int or length < 0 for length in lengths) or sum(lengths) != height * width:
        raise ValueError(f"run lengths that do not add up to {width}x{height} pixels")
    runs = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    mask: Mask = np.ascontiguousarray(runs.reshape(width, height).T)
    return mask


def _first_centre(point: NDArray[np.float64], size: tuple[int, int]) -> tuple[int, int]:
    """Column and row of the first pixel in the image whose centre is not left of, or above, a point."""
    column, row = np.clip(np.ceil(point - 0.5), 0, size[::-1]).astype(int)
    return int(column), int(row)


def _decompress(text: str) -> list[int]:
    """Lengths of COCO's compressed form, in which from the fourth on they are differences from the one two before.

    Each number takes as many characters as it needs, least significant first: the code less 48 holds five bits of the
    two's complement number and, in the sixth, whether more follow.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"the character {character!r}, which run lengths never hold")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:  # the sign
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("run lengths that break off")
    return lengths
