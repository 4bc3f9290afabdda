"""From pixels of a scene to places in the world, for vectors that are drawn on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

from topolora_monai.errors import DataError
from topolora_monai.io.rasters import open_raster

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

__all__ = ["Placing", "require_placing", "scene_placing"]

Placing = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From (column, row) to (x, y), both (N, 2)."""

_HALF_TURN, _FULL_TURN = 180, 360


def scene_placing(source: DatasetReader) -> tuple[Any, Placing]:
    """The CRS of a scene, None where it has none, and what leads from its pixels there.

    Without an affine transform, the ground control points are met by a thin plate spline, as ``gdalwarp -tps`` does.
    On points as Sentinel-1 has them it is off by a thirtieth of a pixel, a polynomial by a whole one and an affine
    transform by 40. In degrees, longitudes of a scene across the 180th meridian go on beyond 180.

    Raises:
        DataError: if rational polynomials alone say where it is, since that depends on the height of the ground; or
            if the control points do not span an area.
    """
    points, crs_of_points = source.gcps
    if not source.transform.is_identity or not (points or source.rpcs):
        matrix = np.array(source.transform).reshape(3, 3)
        return source.crs, lambda pixels: pixels @ matrix[:2, :2].T + matrix[:2, 2]
    if not points:
        raise _no_place(source, "rational polynomials (RPC), which need the height of the ground", "-rpc")
    return crs_of_points, _spline(source, points, bool(crs_of_points and crs_of_points.is_geographic))


def require_placing(path: Path) -> None:
    """Refuse a scene on which vectors have no place, before it is segmented.

    Raises:
        DataError: as :func:`scene_placing`.
    """
    with open_raster(path) as source:
        scene_placing(source)


def _spline(source: DatasetReader, points: Sequence[Any], in_degrees: bool) -> Placing:
    pixels, first = np.unique([(point.col, point.row) for point in points], axis=0, return_index=True)
    places = np.array([(point.x, point.y) for point in points])[first]
    if in_degrees and np.ptp(places[:, 0]) > _HALF_TURN:
        places[:, 0] %= _FULL_TURN
    if np.linalg.matrix_rank(pixels - pixels[0]) < 2:
        raise _no_place(source, f"{len(points)} ground control points in a line", "-order 1")
    spline = RBFInterpolator(pixels, places)
    return lambda asked: np.asarray(spline(asked), np.float64)


def _no_place(source: DatasetReader, found: str, option: str) -> DataError:
    name = Path(source.name)
    return DataError(
        "polygons have no place in this scene",
        path=name,
        expected="an affine transform, or ground control points that span it",
        found=found,
        hint=f"make a georeferenced copy (gdalwarp {option} -t_srs EPSG:4326 {name.name} {name.stem}_placed.tif) and "
        "segment that, or leave polygons out (--polygons false)",
    )
