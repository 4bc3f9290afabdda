"""What is known of a scene before it is segmented."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topolora_monai.io.rasters import is_raster, open_raster, read_bands
from topolora_monai.model.tiling import TileGrid
from topolora_monai.transforms.intensity import IntensityScaling
from topolora_monai.transforms.loading import raster_limits

__all__ = ["Scene", "open_scene"]


@dataclasses.dataclass(frozen=True)
class Scene:
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
    """Look at a raster's header.

    Raises:
        ConfigError: if rasterio is not installed.
        DataError: if it cannot be read, or its bands do not fit ``channels``.
    """
    with open_raster(path) as source:
        read_bands(source, channels, window=((0, 1), (0, 1)))  # refuses other numbers of bands
        grid = TileGrid(source.height, source.width, crop_size, overlap)
        depth = {"uint8": 8, "uint16": 16}.get(source.dtypes[0])
    if depth == 16 and is_raster(path):  # a 16-bit measurement, not a picture
        depth = None
    return Scene(name, path, channels, grid, depth)
