"""Regions of masks as polygons in a GeoPackage."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topolora_monai.errors import ConfigError
from topolora_monai.io.rasters import open_raster
from topolora_monai.model.scenes.files import DIGEST_TAG, written_whole
from topolora_monai.model.scenes.places import scene_placing

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

__all__ = ["layer_digest", "require_polygon_packages", "write_polygons"]

_ROWS = 1024  # of a mask, vectorised at a time
_POLYGONS_PER_WRITE = 10_000


def require_polygon_packages() -> None:
    """Make sure that polygons can be written.

    Raises:
        ConfigError: if pyogrio or shapely is not installed.
    """
    try:
        import pyogrio  # noqa: F401, PLC0415 - optional dependencies
        import shapely  # noqa: F401, PLC0415
    except ImportError as error:
        raise ConfigError(
            "polygons need pyogrio and shapely", hint='install them: pip install "topolora_monai[sar]"'
        ) from error


def write_polygons(layers: Mapping[str, tuple[Path, int]], path: Path, digest: str) -> None:
    """Write the regions of masks, each as one layer of a GeoPackage.

    Args:
        layers: by name, a mask and the value in it that is the foreground.
        path: the GeoPackage; replaced.
        digest: what :func:`layer_digest` is to find.

    Raises:
        OutputError: if it cannot be written.
    """
    from pyogrio.errors import DataLayerError, DataSourceError  # noqa: PLC0415 - an optional dependency

    with written_whole(path) as beside, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")
        for layer, (mask, value) in layers.items():
            try:
                _write_layer(mask, value, beside, layer, digest)
            except (DataLayerError, DataSourceError) as error:
                raise OSError(str(error)) from error


def layer_digest(path: Path, layer: str) -> str | None:
    """What a layer written here says of its settings; none if it is not there or not ours."""
    if not path.is_file():
        return None
    import pyogrio  # noqa: PLC0415 - an optional dependency
    from pyogrio.errors import DataLayerError, DataSourceError  # noqa: PLC0415

    with contextlib.suppress(DataLayerError, DataSourceError):
        return str((pyogrio.read_info(path, layer=layer)["layer_metadata"] or {}).get(DIGEST_TAG))
    return None


def _write_layer(mask: Path, value: int, path: Path, layer: str, digest: str) -> None:
    import pyogrio.raw  # noqa: PLC0415 - an optional dependency
    import shapely  # noqa: PLC0415

    with open_raster(mask) as source:
        crs, place = scene_placing(source)
        written = 0
        for polygons in _batches(_regions(source, value), _POLYGONS_PER_WRITE):
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
                append=written > 0,
                layer_metadata={DIGEST_TAG: digest},
            )
            written += len(placed)


def _batches(polygons: Iterator[Any], size: int) -> Iterator[NDArray[Any]]:
    """Arrays of at most ``size`` polygons; at least one, which may be empty, so that the layer is made."""
    held: list[Any] = []
    for polygon in polygons:
        held.append(polygon)
        if len(held) == size:
            yield np.array(held, object)
            held = []
    yield np.array(held, object)


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
