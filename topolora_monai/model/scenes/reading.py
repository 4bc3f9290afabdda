"""A scene before it is segmented: its header, and its tiles as the network takes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from monai.utils import convert_to_numpy
from numpy.typing import NDArray
from torch import Tensor

from topolora_monai.errors import ConfigError
from topolora_monai.io import require_whole
from topolora_monai.io.rasters import is_raster, open_raster, read_bands
from topolora_monai.model.tiling import TileGrid
from topolora_monai.transforms.intensity import IntensityScaling
from topolora_monai.transforms.loading import raster_limits

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

Prepare = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]


class Scene(NamedTuple):
    """A raster to segment; ``depth`` is 8 or 16 bits for pictures, none for measurements."""

    name: str
    path: Path
    channels: int
    grid: TileGrid
    depth: int | None

    def limits(self, scaling: IntensityScaling) -> NDArray[np.float64]:
        """What values are scaled between, shape (C, 2): 0 and 1 for pictures."""
        if self.depth:
            return np.tile([0.0, 1.0], (self.channels, 1))
        return raster_limits(self.path, self.channels, scaling)


def open_scene(name: str, path: Path, channels: int, crop_size: int, overlap: float) -> Scene:
    """Look at a raster's header; refuses bands that do not fit ``channels``."""
    with open_raster(path) as source:
        read_bands(source, channels, window=((0, 1), (0, 1)))  # refuses other numbers of bands
        grid = TileGrid(source.height, source.width, crop_size, overlap)
        depth = {"uint8": 8, "uint16": 16}.get(source.dtypes[0])
    if depth == 16 and is_raster(path):  # a 16-bit measurement, not a picture
        depth = None
    return Scene(name, path, channels, grid, depth)


class Band(NamedTuple):
    """Rows of a scene under a band of tiles and, as far as the scene goes, a margin above and below.

    Attributes:
        image: scaled, float32 (C, rows, W), 0 where not valid.
        valid: validity (rows, W).
        own: the rows without the margin.
    """

    image: NDArray[np.float32]
    valid: NDArray[np.bool_]
    own: slice


@dataclasses.dataclass
class TileReader:
    """Reads a scene band by band and cuts its tiles.

    Tiles are prepared one by one, since a filter's intermediate results on a whole band would take a multiple of
    its memory. ``limits`` (C, 2) are what measurements are scaled between; of ``prepare`` and ``margin`` see
    :class:`~topolora_monai.model.scenes.SceneSegmenter`.
    """

    scene: Scene
    source: DatasetReader
    scaling: IntensityScaling
    limits: NDArray[np.float64]
    prepare: Prepare | None = None
    margin: int | None = 0

    def read(self, band: int) -> Band:
        """Read and scale a band of tiles; a whole scene, if it is prepared as one, has to fit in memory."""
        grid = self.scene.grid
        first, last = grid.source_rows(band)
        if self.margin is None:
            image, valid = self._whole
            return Band(image[:, first:last], valid[first:last], slice(0, last - first))
        top, bottom = grid.source_rows(band, self.margin)
        return Band(*self._scaled(top, bottom), slice(first - top, last - top))

    @cached_property
    def _whole(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The scene as it is prepared, and its validity."""
        require_whole(self.scene.path, self.scene.channels)
        values, valid = self._scaled(0, self.scene.grid.height)
        return self._prepared(values, valid), valid

    def _scaled(self, top: int, bottom: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        window = ((top, bottom), (0, self.scene.grid.width))
        values, valid = read_bands(self.source, self.scene.channels, window=window)
        if self.scene.depth == 16:
            values = np.minimum(values / (2**self.scaling.bits - 1), 1)
        elif self.scene.depth is None:
            values = self.scaling.apply(values, self.limits)
        values[:, ~valid] = 0
        return values, valid

    def has_data(self, band: Band, start: int) -> bool:
        """Whether the tile that starts at column ``start`` has a valid pixel."""
        return bool(band.valid[band.own, slice(*self.scene.grid.source_columns(start))].any())

    def tile(self, band: Band, start: int) -> Tensor:
        """The tile that starts at column ``start``, shape (C, crop, crop), 0 beyond the scene."""
        grid = self.scene.grid
        first, last = grid.source_columns(start)
        if self.margin is None:  # prepared already
            image = band.image[:, band.own, first:last]
        else:
            left, right = grid.source_columns(start, self.margin)
            image = self._prepared(band.image[:, :, left:right], band.valid[:, left:right])
            image = image[:, band.own, first - left : last - left]
        tile = np.zeros((self.scene.channels, grid.crop, grid.crop), np.float32)
        tile[:, grid.top : grid.top + image.shape[1], grid.left : grid.left + image.shape[2]] = image
        return torch.from_numpy(tile)

    def _prepared(self, image: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        if self.prepare is None:
            return image
        item = {  # copies, as neighbouring tiles share pixels and transforms may work in place
            "image": torch.from_numpy(image.copy()),
            "fov": torch.from_numpy(valid[None].astype(np.float32)),
            "limits": torch.from_numpy(self.limits.copy()),
        }
        prepared: NDArray[np.float32] = convert_to_numpy(self.prepare(item)["image"], dtype=np.float32)
        if prepared.shape != image.shape:
            raise ConfigError(
                "prepare changes the shape of a tile",
                expected=image.shape,
                found=prepared.shape,
                hint="give transforms that keep the number of channels and the size",
            )
        return prepared
