"""Regions of masks as polygons in a GeoPackage, at their places in the world."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

from topolora_monai.errors import DataError
from topolora_monai.extras import import_extra
from topolora_monai.io.rasters import open_raster
from topolora_monai.model.scenes.files import DIGEST_TAG, written_whole

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

Placing = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From (column, row) to (x, y), both (N, 2)."""

_ROWS = 1024  # of a mask, vectorised at a time
_POLYGONS_PER_WRITE = 10_000


def require_polygon_packages() -> None:
    """Raise a ``ConfigError`` if what writes polygons is not installed."""
    for library in ("pyogrio", "shapely"):
        import_extra(library, "sar", "a file of polygons")


def write_polygons(layers: Mapping[str, tuple[Path, int]], path: Path, digest: str) -> None:
    """Write the regions of masks, each as one layer of a GeoPackage that is replaced.

    Layers are, by name, a mask and the value in it that is the foreground; :func:`layer_digest` finds ``digest``.
    """
    import pyogrio  # noqa: PLC0415 - an optional dependency

    with written_whole(path) as beside, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")
        for layer, (mask, value) in layers.items():
            try:
                _write_layer(mask, value, beside, layer, digest)
            except (pyogrio.errors.DataLayerError, pyogrio.errors.DataSourceError) as error:
                raise OSError(str(error)) from error


def layer_digest(path: Path, layer: str) -> str | None:
    """What a layer written here says of its settings; none if it is not there or not ours."""
    import pyogrio  # noqa: PLC0415 - an optional dependency

    if not path.is_file():
        return None
    with contextlib.suppress(pyogrio.errors.DataLayerError, pyogrio.errors.DataSourceError):
        return str((pyogrio.read_info(path, layer=layer)["layer_metadata"] or {}).get(DIGEST_TAG))
    return None


def _write_layer(mask: Path, value: int, path: Path, layer: str, digest: str) -> None:
    import pyogrio.raw  # noqa: PLC0415 - an optional dependency
    import shapely  # noqa: PLC0415

    with open_raster(mask) as source:
        crs, place = scene_placing(source)
        regions, written = _regions(source, value), 0
        for batch in itertools.count():
            polygons = np.array([*itertools.islice(regions, _POLYGONS_PER_WRITE)], object)
            if batch and not len(polygons):  # the first is written anyhow, so that the layer is made
                break
            placed = shapely.transform(polygons, place) if len(polygons) else polygons
            pyogrio.raw.write(
                path,
                geometry=shapely.to_wkb(placed),
                field_data=[np.arange(written + 1, written + len(placed) + 1), shapely.area(placed)],
                fields=["id", "area"],
                layer=layer,
                driver="GPKG",
                geometry_type="Polygon",
                crs=crs.to_wkt() if crs else None,
                append=batch > 0,
                layer_metadata={DIGEST_TAG: digest},
            )
            written += len(placed)


def _regions(mask: DatasetReader, value: int = 1) -> Iterator[Any]:
    """4-connected regions of one value as polygons in pixel coordinates (column, row), strip by strip.

    Regions that reach the lower border of a strip wait and are joined with what continues them. Pixel
    coordinates are whole numbers, so the joint leaves no slivers.
    """
    import shapely  # noqa: PLC0415 - optional dependencies
    from rasterio.features import shapes  # noqa: PLC0415
    from rasterio.transform import Affine  # noqa: PLC0415
    from shapely.geometry import shape  # noqa: PLC0415

    waiting: list[Any] = []
    for top in range(0, mask.height, _ROWS):
        bottom = min(top + _ROWS, mask.height)
        plane = mask.read(1, window=((top, bottom), (0, mask.width)))
        here = [shape(found) for found, _ in shapes(plane, plane == value, transform=Affine.translation(0, top))]
        if waiting:
            joined = shapely.union_all([*waiting, *(region for region in here if region.bounds[1] == top)])
            here = [region for region in here if region.bounds[1] != top]
            here += shapely.get_parts(joined.simplify(0)).tolist()  # drops the corners left by the border
        waiting = [region for region in here if region.bounds[3] == bottom != mask.height]
        yield from (region for region in here if region.bounds[3] != bottom or bottom == mask.height)


def scene_placing(source: DatasetReader) -> tuple[Any, Placing]:
    """The CRS of a scene, None where it has none, and what leads from its pixels there.

    Without an affine transform, the ground control points are met by a thin plate spline, as ``gdalwarp -tps`` does. On
    points as Sentinel-1 has them it is off by a thirtieth of a pixel, a polynomial by a whole one and an affine
    transform by 40. In degrees, longitudes of a scene across the 180th meridian go on beyond 180. A ``DataError`` if
    rational polynomials alone say where it is, since that depends on the height of the ground; or if the control points
    do not span an area.
    """
    points, crs_of_points = source.gcps
    if not source.transform.is_identity or not (points or source.rpcs):
        matrix = np.array(source.transform).reshape(3, 3)
        return source.crs, lambda pixels: pixels @ matrix[:2, :2].T + matrix[:2, 2]
    if not points:
        raise _no_place(source, "rational polynomials (RPC), which need the height of the ground", "-rpc")
    return crs_of_points, _spline(source, points, bool(crs_of_points and crs_of_points.is_geographic))


def _spline(source: DatasetReader, points: Sequence[Any], in_degrees: bool) -> Placing:
    pixels, first = np.unique([(point.col, point.row) for point in points], axis=0, return_index=True)
    places = np.array([(point.x, point.y) for point in points])[first]
    if in_degrees and np.ptp(places[:, 0]) > 180:
        places[:, 0] %= 360
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
