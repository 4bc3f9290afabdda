"""Tiles as the network takes them: read, scaled, and prepared by the caller's transforms."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from monai.utils import convert_to_numpy
from numpy.typing import NDArray
from torch import Tensor

from topolora_monai.errors import ConfigError
from topolora_monai.io import require_whole
from topolora_monai.io.rasters import read_bands
from topolora_monai.model.scenes.scene import Scene
from topolora_monai.transforms.intensity import IntensityScaling

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

__all__ = ["Band", "Prepare", "TileReader"]

Prepare = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]


@dataclasses.dataclass(frozen=True)
class Band:
    """Rows of a scene under a band of tiles and, as far as the scene goes, a margin above and below.

    Args:
        image: scaled, float32 (C, rows, W), 0 where not valid.
        valid: validity (rows, W).
        top: first row in the source.
        own: the rows without the margin.
    """

    image: NDArray[np.float32]
    valid: NDArray[np.bool_]
    top: int
    own: slice


class TileReader:
    """Reads a scene band by band and cuts its tiles.

    Tiles are prepared one by one, since a filter's intermediate results on a whole band would take a multiple of
    its memory.

    Args:
        scene: the scene.
        source: its raster, open.
        scaling: of measurements.
        limits: what they are scaled between, shape (C, 2).
        prepare: see :class:`~topolora_monai.model.scenes.SceneSegmenter`.
        margin: pixels around a tile that ``prepare`` gets, too; None has it prepare the whole scene at once, in memory.

    Raises:
        DataError: from the first read, if memory does not hold a whole scene.
    """

    def __init__(
        self,
        scene: Scene,
        source: DatasetReader,
        scaling: IntensityScaling,
        limits: NDArray[np.float64],
        prepare: Prepare | None = None,
        margin: int | None = 0,
    ) -> None:
        self.scene = scene
        self.source = source
        self.scaling = scaling
        self.limits = limits
        self.prepare = prepare
        self.margin = margin

    def read(self, band: int) -> Band:
        """Read and scale a band of tiles."""
        grid = self.scene.grid
        first, last = grid.source_rows(band)
        if self.margin is None:
            image, valid = self._whole
            return Band(image[:, first:last], valid[first:last], first, slice(0, last - first))
        top, bottom = grid.source_rows(band, self.margin)
        values, valid = self._scaled(top, bottom)
        return Band(values, valid, top, slice(first - top, last - top))

    @cached_property
    def _whole(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The scene as it is prepared, and its validity."""
        require_whole(self.scene.path, self.scene.channels)
        values, valid = self._scaled(0, self.scene.grid.height)
        return (values if self.prepare is None else self._prepared(values, valid)), valid

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
        if self.prepare is None or self.margin is None:
            image = band.image[:, band.own, first:last]
        else:
            left, right = grid.source_columns(start, self.margin)
            image = self._prepared(band.image[:, :, left:right], band.valid[:, left:right])
            image = image[:, band.own, first - left : last - left]
        tile = np.zeros((self.scene.channels, grid.crop, grid.crop), np.float32)
        tile[:, grid.top : grid.top + image.shape[1], grid.left : grid.left + image.shape[2]] = image
        return torch.from_numpy(tile)

    def _prepared(self, image: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        assert self.prepare is not None
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
