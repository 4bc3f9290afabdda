"""Georeferenced scenes of any size: read, segmented and written by bands of rows, and continued after a kill."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import json
import logging
import math
import os
import shutil
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import Inferer
from monai.networks.utils import eval_mode
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from topolora_monai.engines.output import prepare_output
from topolora_monai.errors import ConfigError, OutputError
from topolora_monai.io.rasters import is_raster, open_raster, read_bands
from topolora_monai.metrics import threshold_bin, to_16_bit
from topolora_monai.transforms.intensity import IntensityScaling

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

    from topolora_monai.data import Item

__all__ = ["SceneSegmenter"]

_logger = logging.getLogger(__name__)

_MASK_NODATA = 255
_PROBABILITY_NODATA = 65535
_LIMITS_PIXELS = 1_000_000
_BLOCK = 512
"""Side of the output's tiles, in pixels; it is written by as many rows, so that each tile is written once."""
_POLYGON_ROWS = 1024
_POLYGONS_PER_WRITE = 10_000
_GDAL_CACHE_BYTES = 256 * 2**20  # GDAL's own choice is a share of the machine's memory
_DIGEST_TAG = "SETTINGS_SHA256"


class SceneSegmenter:
    """Segment rasters larger than memory and write GeoTIFF with the source's georeference.

    Square tiles overlap and are blended by a Gaussian, at the positions and with the weights of MONAI's
    ``SlidingWindowInferer(mode="gaussian")``, so that the logits are those it gives on the whole image. Only one
    band of tiles is in memory at a time. Pixels that are nodata, masked or not finite enter the network as 0 and
    are nodata in the output; tiles without a valid pixel are not run.

    Values are scaled as :func:`~topolora_monai.io.read_image` and its users do: pictures by their bit depth,
    measurements by ``scaling``, with limits taken once per scene from about a million of its pixels, so that all
    tiles agree.

    Written for each item, ``_K`` standing for the class only where there are several:

    * ``NAME_mask_K.tif``: uint8, 0 and 1, nodata 255;
    * ``NAME_probability_K.tif``: uint16 as :func:`~topolora_monai.metrics.to_16_bit`, at most 65534, nodata
      65535, with the band scale 1/65536;
    * ``NAME.gpkg``: layer ``mask_K`` of 4-connected foreground regions, with ``id`` from 1 and ``area`` in
      squared units of the CRS, or in pixels where the scene has no affine transform.

    Finished rows are kept in ``.NAME.parts`` until a scene is done. After an interruption, the same call
    continues with the band of tiles that was under way; if the source or a setting has changed, it starts over.
    A scene whose outputs exist already, made from the same source with the same settings, is passed over.

    Args:
        network: maps images (B, C, h, w) in [0, 1] to logits (B, K, h, w).
        inferer: MONAI inferer that runs the network on a batch of tiles, for example
            ``AutocastInferer(SimpleInferer())``.
        channels: C, see :func:`~topolora_monai.io.read_bands` for the bands that are taken.
        scaling: of measurements.
        output_dir: where to; created.
        fingerprint: any text that changes with the weights and with whatever else decides the logits, such as
            precision or mirrored copies; results of another one are never continued.
        threshold: foreground is ``probability >= threshold``.
        crop_size: side of a tile in pixels.
        overlap: of neighbouring tiles, as a share of their side, at least 0 and less than 1.
        batch_size: tiles per call of the network.
        device: the network's.
        probabilities: whether to write them.
        polygons: whether to write them.

    Raises:
        ConfigError: for an impossible setting, or if the packages for polygons are not installed.

    Example:
        >>> import tempfile, rasterio
        >>> from monai.inferers import SimpleInferer
        >>> folder = Path(tempfile.mkdtemp())
        >>> profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "height": 40, "width": 50}
        >>> grid = rasterio.Affine(10, 0, 500000, 0, -10, 4649000)
        >>> with rasterio.open(folder / "scene.tif", "w", **profile, crs="EPSG:32633", transform=grid) as scene:
        ...     scene.write(np.tile(np.uint8([0, 255]), (1, 40, 25)))
        >>> segmenter = SceneSegmenter(
        ...     lambda image: 8 * image - 4, SimpleInferer(), 1, IntensityScaling(), folder, "none", crop_size=32
        ... )
        >>> (mask,) = segmenter.run([{"name": "scene", "image": str(folder / "scene.tif")}])
        >>> with rasterio.open(mask) as written:
        ...     mask.name, written.crs.to_epsg(), written.transform == grid, written.read(1)[0, :4].tolist()
        ('scene_mask.tif', 32633, True, [0, 1, 0, 1])
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        inferer: Inferer,
        channels: int,
        scaling: IntensityScaling,
        output_dir: str | Path,
        fingerprint: str,
        threshold: float = 0.5,
        crop_size: int = 192,
        overlap: float = 0.5,
        batch_size: int = 4,
        device: str | torch.device = "cpu",
        probabilities: bool = True,
        polygons: bool = False,
    ) -> None:
        if crop_size < 1 or batch_size < 1:
            raise ConfigError("crop_size and batch_size must be at least 1", found=f"{crop_size} and {batch_size}")
        if not 0 <= overlap < 1:
            raise ConfigError("overlap is a share of the tile", expected="at least 0 and less than 1", found=overlap)
        if polygons:
            _require_polygon_packages()
        self.network = network
        self.inferer = inferer
        self.channels = channels
        self.scaling = scaling
        self.output_dir = Path(output_dir)
        self.fingerprint = fingerprint
        self.threshold = threshold
        self.crop_size = crop_size
        self.overlap = overlap
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.probabilities = probabilities
        self.polygons = polygons
        self._weights = compute_importance_map((crop_size, crop_size), mode="gaussian").numpy()

    def run(self, items: Sequence[Item]) -> list[Path]:
        """Segment scenes, one after the other.

        Args:
            items: with ``name`` and ``image``, the path of a raster that rasterio reads.

        Returns:
            The mask files, in the order of the items.

        Raises:
            ConfigError: if rasterio is not installed, or the network changes the size of an image.
            DataError: if a scene cannot be read or has other bands than the network needs; scenes are opened
                before the first is segmented.
            OutputError: if results cannot be written; what was finished is kept.
        """
        scenes = [self._open_scene(item) for item in items]
        prepare_output(self.output_dir)
        import rasterio  # noqa: PLC0415 - an optional dependency, there since the scenes could be opened

        with (
            rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE_BYTES),
            eval_mode(self.network),
            tqdm(
                desc="tiles",
                total=sum(scene.grid.tiles for scene in scenes),
                mininterval=0.5 if sys.stderr.isatty() else 30.0,
                dynamic_ncols=True,
            ) as bar,
        ):
            classes = self._count_classes() if scenes else 0
            return [path for scene in scenes for path in self._segment(scene, classes, bar)]

    def _open_scene(self, item: Item) -> _Scene:
        path = Path(item["image"]).absolute()
        with open_raster(path) as source:
            read_bands(source, self.channels, window=((0, 1), (0, 1)))  # refuses other numbers of bands
            grid = _Grid(source.height, source.width, self.crop_size, self.overlap)
            depth = {"uint8": 8, "uint16": 16}.get(source.dtypes[0])
        if depth == 16 and is_raster(path):  # a 16-bit measurement, not a picture
            depth = None
        return _Scene(item["name"], path, grid, depth)

    def _count_classes(self) -> int:
        tile = np.zeros((1, self.channels, self.crop_size, self.crop_size), np.float32)
        shape = self._infer(tile).shape
        if shape[2:] != tile.shape[2:]:
            raise ConfigError("the network changes the size of a tile", expected=tile.shape[2:], found=shape[2:])
        return int(shape[1])

    def _segment(self, scene: _Scene, classes: int, bar: tqdm[Any]) -> list[Path]:
        """Make whatever output of a scene is missing."""
        limits = self._limits(scene)
        settings = self._settings(scene, classes, limits)
        digest = hashlib.sha256(f"{settings}{self.threshold!r}".encode()).hexdigest()
        suffixes = [f"_{index}" for index in range(classes)] if classes > 1 else [""]
        masks = [self.output_dir / f"{scene.name}_mask{suffix}.tif" for suffix in suffixes]
        probabilities = [self.output_dir / f"{scene.name}_probability{suffix}.tif" for suffix in suffixes]
        parts = _Parts(self.output_dir / f".{scene.name}.parts")
        if all(_raster_digest(path) == digest for path in [*masks, *(probabilities if self.probabilities else [])]):
            _logger.info("%s is segmented already", scene.name)
            _pass_over(bar, scene.grid.tiles)
        else:
            parts.open(settings)
            self._run_bands(scene, classes, limits, parts, bar)
            if self.probabilities:
                _assemble(scene, parts, probabilities, digest)
            _assemble(scene, parts, masks, digest, threshold=threshold_bin(self.threshold))
        parts.remove()
        if self.polygons:
            vectors = self.output_dir / f"{scene.name}.gpkg"
            layers = {f"mask{suffix}": mask for suffix, mask in zip(suffixes, masks, strict=True)}
            if any(_layer_digest(vectors, layer) != digest for layer in layers):
                _write_polygons(layers, vectors, digest)
        return masks

    def _limits(self, scene: _Scene) -> NDArray[Any] | None:
        """Limits of the scaling, from every n-th pixel of the scene itself rather than of its overviews."""
        if scene.depth:
            return None
        import rasterio  # noqa: PLC0415 - an optional dependency

        step = max(1.0, math.sqrt(scene.grid.height * scene.grid.width / _LIMITS_PIXELS))
        shape = (max(1, int(scene.grid.height / step)), max(1, int(scene.grid.width / step)))
        # Averaged overviews, which GDAL would take, have less speckle and so narrower limits.
        with open_raster(scene.path), rasterio.open(scene.path, OVERVIEW_LEVEL="NONE") as source:
            values, valid = read_bands(source, self.channels, out_shape=shape)
        return self.scaling.limits(values, valid)

    def _settings(self, scene: _Scene, classes: int, limits: NDArray[Any] | None) -> str:
        """What finished rows depend on; they hold probabilities, so the threshold is not among it."""
        status = scene.path.stat()
        content = {
            "source": str(scene.path),
            "bytes": status.st_size,
            "modified_ns": status.st_mtime_ns,
            "fingerprint": self.fingerprint,
            "channels": self.channels,
            "scaling": self.scaling.to_dict(),
            "classes": classes,
            "limits": None if limits is None else np.asarray(limits).tolist(),
            "crop_size": self.crop_size,
            "overlap": self.overlap,
        }
        return json.dumps(content, indent=2)

    def _run_bands(
        self, scene: _Scene, classes: int, limits: NDArray[Any] | None, parts: _Parts, bar: tqdm[Any]
    ) -> None:
        """Fill ``parts`` with the bands that are not there yet."""
        grid = scene.grid
        first = parts.finished(len(grid.rows))
        if first:
            _logger.info("%s continues after %d of %d bands of tiles", scene.name, first, len(grid.rows))
            _pass_over(bar, first * len(grid.columns))
        if first == len(grid.rows):
            return
        carry = parts.carry(first) if first else np.zeros((classes + 1, 0, grid.padded_width), np.float32)
        with open_raster(scene.path) as source:
            for band in range(first, len(grid.rows)):
                image, valid = self._read_band(source, scene, limits, band)
                total = np.zeros((classes + 1, grid.crop, grid.padded_width), np.float32)
                total[:, : carry.shape[1]] = carry
                self._add_tiles(total, image, valid, grid, bar)
                rows, columns = grid.finished(band)
                done = _stored_probabilities(total[:, rows, columns], valid[rows, columns])
                carry = total[:, grid.step(band) :].copy()
                parts.save(band, done, carry)

    def _read_band(
        self, source: DatasetReader, scene: _Scene, limits: NDArray[Any] | None, band: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Scaled image (C, crop, padded width) under a band of tiles, 0 where not valid, and validity."""
        grid = scene.grid
        top, bottom = grid.source_rows(band)
        values, valid = read_bands(source, self.channels, window=((top, bottom), (0, grid.width)))
        if scene.depth == 16:
            values /= 65535
        elif limits is not None:
            values = self.scaling.apply(values, limits)
        image = np.zeros((self.channels, grid.crop, grid.padded_width), np.float32)
        inside = np.zeros((grid.crop, grid.padded_width), bool)
        rows, columns = slice(grid.top, grid.top + bottom - top), slice(grid.left, grid.left + grid.width)
        inside[rows, columns] = valid
        image[:, rows, columns] = np.where(valid, values, 0)
        return image, inside

    def _add_tiles(
        self,
        total: NDArray[np.float32],
        image: NDArray[np.float32],
        valid: NDArray[np.bool_],
        grid: _Grid,
        bar: tqdm[Any],
    ) -> None:
        """Add the weighted logits of a band's tiles, and in the last plane the weights, to ``total``."""
        tiles = [slice(left, left + grid.crop) for left in grid.columns]
        tiles = [tile for tile in tiles if valid[:, tile].any()]
        bar.update(len(grid.columns) - len(tiles))
        for start in range(0, len(tiles), self.batch_size):
            batch = tiles[start : start + self.batch_size]
            logits = self._infer(np.stack([image[:, :, tile] for tile in batch]))
            for tile, one in zip(batch, logits, strict=True):
                total[:-1, :, tile] += one * self._weights
                total[-1, :, tile] += self._weights
            bar.update(len(batch))

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: Tensor = self.inferer(torch.from_numpy(batch).to(self.device), self.network)
        return logits.float().cpu().numpy()


@dataclasses.dataclass(frozen=True)
class _Grid:
    """Where tiles lie in an image, which is padded with 0 on both sides where it is smaller than one."""

    height: int
    width: int
    crop: int
    overlap: float

    @property
    def rows(self) -> list[int]:
        """First rows of the bands of tiles, in the padded image."""
        return self._starts(max(self.height, self.crop))

    @property
    def columns(self) -> list[int]:
        """First columns of the tiles of a band, in the padded image."""
        return self._starts(self.padded_width)

    @property
    def padded_width(self) -> int:
        return max(self.width, self.crop)

    @property
    def tiles(self) -> int:
        return len(self.rows) * len(self.columns)

    @property
    def top(self) -> int:
        """Rows of padding above the image."""
        return max(self.crop - self.height, 0) // 2

    @property
    def left(self) -> int:
        """Columns of padding left of the image."""
        return max(self.crop - self.width, 0) // 2

    def step(self, band: int) -> int:
        """Rows of a band that no later band reaches."""
        rows = self.rows
        return rows[band + 1] - rows[band] if band + 1 < len(rows) else self.crop

    def source_rows(self, band: int) -> tuple[int, int]:
        """First and last + 1 row of the image under a band."""
        start = self.rows[band]
        return start, min(start + self.crop, self.height)

    def finished(self, band: int) -> tuple[slice, slice]:
        """Rows and columns of a band that are in the image and that no later band reaches."""
        rows = slice(self.top, self.top + min(self.step(band), self.height))
        return rows, slice(self.left, self.left + self.width)

    def _starts(self, size: int) -> list[int]:
        step = max(int(self.crop * (1 - self.overlap)), 1)
        return [int(place.start) for (place,) in dense_patch_slices((size,), (self.crop,), (step,))]


@dataclasses.dataclass(frozen=True)
class _Scene:
    """A raster to segment; ``depth`` is 8 or 16 bits for pictures, none for measurements."""

    name: str
    path: Path
    grid: _Grid
    depth: int | None


class _Parts:
    """Finished rows of a scene on disk, one file a band, and the sums that the next band builds on.

    Every file is written beside and renamed. The sums of a band are there before its rows, and those of the band
    before go after, so that whenever the process ends, the next one finds what it needs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._settings = folder / "settings.json"

    def open(self, settings: str) -> None:
        """Keep what is there if it was made with the same settings, else start over."""
        with _reading_parts(self.folder):
            if self._settings.is_file() and self._settings.read_text() == settings:
                return
        if self.folder.exists():
            _logger.warning("%s belongs to another source or other settings: starting over", self.folder)
            self.remove()
        with _written_whole(self._settings) as beside:
            self.folder.mkdir()
            beside.write_text(settings)

    def finished(self, bands: int) -> int:
        """Number of bands that are there, counted from the first."""
        return next((band for band in range(bands) if not self._rows(band).is_file()), bands)

    def save(self, band: int, rows: NDArray[np.uint16], carry: NDArray[np.float32]) -> None:
        """Keep a band's finished rows (K, rows, W), and the sums (K + 1, rows, padded W) of its other rows."""
        with _written_whole(self._carry(band + 1)) as beside, beside.open("wb") as file:
            np.save(file, carry)
        with _written_whole(self._rows(band)) as beside, gzip.open(beside, "wb", compresslevel=1) as packed:
            np.save(packed, rows)
        self._carry(band).unlink(missing_ok=True)

    def carry(self, band: int) -> NDArray[np.float32]:
        """Sums that a band starts from."""
        with _reading_parts(self.folder):
            sums: NDArray[np.float32] = np.load(self._carry(band), allow_pickle=False)
        return sums

    def rows(self) -> Iterator[NDArray[np.uint16]]:
        """Finished rows of one band after the other, each of shape (K, rows, W)."""
        for path in sorted(self.folder.glob("rows-*.npy.gz")):
            with _reading_parts(self.folder), gzip.open(path) as packed:
                part = np.load(packed, allow_pickle=False)
            yield part

    def remove(self) -> None:
        """Delete everything; the settings first, so that what is left after a kill is never continued."""
        with _writing(self.folder):
            self._settings.unlink(missing_ok=True)
            if self.folder.exists():
                shutil.rmtree(self.folder)

    def _rows(self, band: int) -> Path:
        return self.folder / f"rows-{band:06d}.npy.gz"

    def _carry(self, band: int) -> Path:
        return self.folder / f"carry-{band:06d}.npy"


def _stored_probabilities(total: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Sums of weighted logits and of weights (K + 1, h, w) as 16-bit probabilities (K, h, w)."""
    logits = np.divide(total[:-1], total[-1], out=np.zeros_like(total[:-1]), where=valid)
    stored = to_16_bit(torch.from_numpy(logits).sigmoid()).numpy()
    return np.where(valid, np.minimum(stored, _PROBABILITY_NODATA - 1), _PROBABILITY_NODATA).astype(np.uint16)


def _assemble(scene: _Scene, parts: _Parts, outputs: Sequence[Path], digest: str, threshold: int | None = None) -> None:
    """Write one GeoTIFF per class from the finished rows: the mask if a threshold is given, else probabilities."""
    import rasterio  # noqa: PLC0415 - an optional dependency

    with open_raster(scene.path) as source:
        profile, places = _georeference(source)
    profile |= (
        {"dtype": "uint16", "nodata": _PROBABILITY_NODATA, "predictor": 2}
        if threshold is None
        else {"dtype": "uint8", "nodata": _MASK_NODATA}
    )
    sums: list[list[int]] = [[] for _ in outputs]
    with _georeference_not_needed(), contextlib.ExitStack() as whole:
        beside = [whole.enter_context(_written_whole(path)) for path in outputs]
        with contextlib.ExitStack() as opened:
            files = [opened.enter_context(rasterio.open(path, "w", **profile)) for path in beside]
            for file in files:
                _describe(file, places, digest, scale=1 / 65536 if threshold is None else 1.0)
            for strip, rows in enumerate(_regrouped(parts.rows(), _BLOCK)):
                window = ((strip * _BLOCK, strip * _BLOCK + rows.shape[1]), (0, scene.grid.width))
                for file, stored, of in zip(files, rows, sums, strict=True):
                    plane = stored if threshold is None else _mask(stored, threshold)
                    file.write(plane, 1, window=window)
                    of.append(zlib.crc32(plane.tobytes()))
        for path, expected in zip(beside, sums, strict=True):
            _check_written(path, expected)


def _check_written(path: Path, sums: list[int]) -> None:
    """Read a file back: what fails while GDAL closes it, such as a full disk, is not reported otherwise."""
    import rasterio  # noqa: PLC0415 - an optional dependency

    with rasterio.open(path) as file:
        for strip, expected in enumerate(sums):
            top = strip * _BLOCK
            rows = file.read(1, window=((top, min(top + _BLOCK, file.height)), (0, file.width)))
            if zlib.crc32(rows.tobytes()) != expected:
                raise OSError("it reads back damaged, probably since the disk is full")


def _mask(stored: NDArray[np.uint16], threshold: int) -> NDArray[np.uint8]:
    return np.where(stored == _PROBABILITY_NODATA, _MASK_NODATA, stored >= threshold).astype(np.uint8)


def _georeference(source: DatasetReader) -> tuple[dict[str, Any], dict[str, Any]]:
    """Profile of an output in the source's geometry, and the control points or RPCs that take the transform's place."""
    profile = {
        "driver": "GTiff",
        "count": 1,
        "height": source.height,
        "width": source.width,
        "crs": source.crs,
        "transform": source.transform,
        "tiled": True,
        "blockxsize": _BLOCK,
        "blockysize": _BLOCK,
        "compress": "deflate",
        "BIGTIFF": "IF_SAFER",
    }
    places = {"gcps": source.gcps if source.gcps[0] else None, "rpcs": source.rpcs}
    return profile, {key: value for key, value in places.items() if value is not None}


def _describe(file: Any, places: dict[str, Any], digest: str, scale: float) -> None:
    for key, value in places.items():
        setattr(file, key, value)
    if scale != 1:
        file.scales = (scale,)
    file.update_tags(**{_DIGEST_TAG: digest})


def _regrouped(parts: Iterator[NDArray[np.uint16]], count: int) -> Iterator[NDArray[np.uint16]]:
    """The same rows (K, rows, W), ``count`` at a time."""
    held: list[NDArray[np.uint16]] = []
    for part in parts:
        held.append(part)
        if sum(rows.shape[1] for rows in held) >= count:
            joined = np.concatenate(held, axis=1)
            whole = joined.shape[1] // count * count
            yield from np.split(joined[:, :whole], whole // count, axis=1)
            held = [joined[:, whole:]]
    rest = np.concatenate(held, axis=1)
    if rest.shape[1]:
        yield rest


def _write_polygons(layers: dict[str, Path], path: Path, digest: str) -> None:
    """Write the regions of masks, each as one layer of a GeoPackage."""
    from pyogrio.errors import DataLayerError, DataSourceError  # noqa: PLC0415 - an optional dependency

    with _written_whole(path, suffix=".gpkg") as beside, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")
        beside.unlink(missing_ok=True)  # layers would be added to what a killed run left
        for layer, mask in layers.items():
            try:
                _write_layer(mask, beside, layer, digest)
            except (DataLayerError, DataSourceError) as error:
                raise OSError(str(error)) from error


def _write_layer(mask: Path, path: Path, layer: str, digest: str) -> None:
    import pyogrio.raw  # noqa: PLC0415 - an optional dependency
    import shapely  # noqa: PLC0415

    with open_raster(mask) as source:
        crs = source.crs.to_wkt() if source.crs else None
        matrix = np.array(source.transform).reshape(3, 3)
        written = 0
        for polygons in _batches(_regions(source), _POLYGONS_PER_WRITE):
            placed = shapely.transform(polygons, lambda xy: xy @ matrix[:2, :2].T + matrix[:2, 2])
            pyogrio.raw.write(
                path,
                geometry=shapely.to_wkb(placed),
                field_data=[np.arange(written + 1, written + len(placed) + 1), shapely.area(placed)],
                fields=["id", "area"],
                layer=layer,
                driver="GPKG",
                geometry_type="Polygon",
                crs=crs,
                append=written > 0,
                layer_metadata={_DIGEST_TAG: digest},
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


def _regions(mask: DatasetReader) -> Iterator[Any]:
    """4-connected regions of 1 as polygons in pixel coordinates (column, row), strip by strip.

    Regions that reach the lower border of a strip wait and are joined with what continues them. Pixel
    coordinates are whole numbers, so the joint leaves no slivers.
    """
    import shapely  # noqa: PLC0415 - optional dependencies
    from rasterio.features import shapes  # noqa: PLC0415
    from rasterio.transform import Affine  # noqa: PLC0415
    from shapely.geometry import shape  # noqa: PLC0415

    waiting: list[Any] = []
    for top in range(0, mask.height, _POLYGON_ROWS):
        bottom = min(top + _POLYGON_ROWS, mask.height)
        plane = mask.read(1, window=((top, bottom), (0, mask.width)))
        here = [shape(found) for found, _ in shapes(plane, plane == 1, transform=Affine.translation(0, top))]
        if waiting:
            joined = shapely.union_all([*waiting, *(region for region in here if region.bounds[1] == top)])
            here = [region for region in here if region.bounds[1] != top]
            here += shapely.get_parts(joined.simplify(0)).tolist()  # drops the corners left by the border
        waiting = [region for region in here if region.bounds[3] == bottom != mask.height]
        yield from (region for region in here if region.bounds[3] != bottom or bottom == mask.height)


def _require_polygon_packages() -> None:
    try:
        import pyogrio  # noqa: F401, PLC0415 - optional dependencies
        import shapely  # noqa: F401, PLC0415
    except ImportError as error:
        raise ConfigError(
            "polygons need pyogrio and shapely", hint='install them: pip install "topolora_monai[sar]"'
        ) from error


def _raster_digest(path: Path) -> str | None:
    """What a file written here says of its settings; none if it is not there or not ours."""
    import rasterio  # noqa: PLC0415 - an optional dependency
    from rasterio.errors import RasterioIOError  # noqa: PLC0415

    with contextlib.suppress(RasterioIOError), _georeference_not_needed(), rasterio.open(path) as file:
        return str(file.tags().get(_DIGEST_TAG))
    return None


def _layer_digest(path: Path, layer: str) -> str | None:
    """As :func:`_raster_digest`, for a layer of a GeoPackage."""
    import pyogrio  # noqa: PLC0415 - an optional dependency
    from pyogrio.errors import DataLayerError, DataSourceError  # noqa: PLC0415

    with contextlib.suppress(DataLayerError, DataSourceError):
        return str((pyogrio.read_info(path, layer=layer)["layer_metadata"] or {}).get(_DIGEST_TAG))
    return None


@contextlib.contextmanager
def _georeference_not_needed() -> Iterator[None]:
    from rasterio.errors import NotGeoreferencedWarning  # noqa: PLC0415 - an optional dependency

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextlib.contextmanager
def _written_whole(path: Path, suffix: str = "") -> Iterator[Path]:
    """A place beside ``path``, ending in ``suffix``, whose content gets that name once it is whole."""
    beside = path.with_name(f".{path.name}.part{suffix}")
    try:
        with _writing(path):
            yield beside
            os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            "cannot write a prediction",
            path=path,
            found=error.strerror or str(error),
            hint="free some space, then start again to continue",
        ) from error


@contextlib.contextmanager
def _reading_parts(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise OutputError("finished rows are damaged", path=folder, found=str(error), hint="delete it") from error


def _pass_over(bar: tqdm[Any], tiles: int) -> None:
    """Advance by tiles of an earlier run, which say nothing about the speed of this one."""
    bar.initial += tiles
    bar.n += tiles
    bar.last_print_n += tiles
    bar.refresh()
