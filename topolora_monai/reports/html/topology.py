"""Where a prediction breaks a structure, joins what is apart, or sees what is not there, as shapes to draw."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import find_contours

from topolora_monai.metrics.breaks import SkeletonBreak, false_components, skeleton_breaks

__all__ = ["Point", "TopologyErrors", "topology_errors"]

Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class TopologyErrors:
    """Places of errors in one mask.

    Args:
        breaks: gaps in the true centreline that the prediction leaves open.
        bridges: stretches of the predicted centreline that join what is apart.
        false_components: outline of each predicted part that touches nothing true, as points (row, column).
    """

    breaks: tuple[SkeletonBreak, ...]
    bridges: tuple[SkeletonBreak, ...]
    false_components: tuple[tuple[Point, ...], ...]


def topology_errors(
    prediction: NDArray[np.bool_], target: NDArray[np.bool_], mask: NDArray[np.bool_] | None = None
) -> TopologyErrors:
    """Find them, by :func:`~topolora_monai.metrics.breaks.skeleton_breaks` in both directions.

    Args:
        prediction: shape (H, W).
        target: same shape.
        mask: same shape; pixels outside it are background in both.

    Example:
        >>> line = np.zeros((9, 40), bool)
        >>> line[4, 2:38] = True
        >>> spot = np.zeros_like(line)
        >>> spot[7:9, 10:12] = True
        >>> found = topology_errors(line | spot, line)
        >>> len(found.breaks), len(found.bridges), found.false_components[0][0]
        (0, 0, (8.5, 11.0))
    """
    return TopologyErrors(
        breaks=tuple(skeleton_breaks(prediction, target, mask)),
        bridges=tuple(skeleton_breaks(target, prediction, mask)),
        false_components=_outlines(false_components(prediction, target, mask)),
    )


def _outlines(parts: NDArray[np.int32]) -> tuple[tuple[Point, ...], ...]:
    outlines = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(parts), start=1):
        part = np.pad(parts[rows, columns] == number, 1)
        outline = max(find_contours(part.astype(float), 0.5, fully_connected="high"), key=len)
        outlines.append(tuple((float(r) - 1 + rows.start, float(c) - 1 + columns.start) for r, c in outline))
    return tuple(outlines)
