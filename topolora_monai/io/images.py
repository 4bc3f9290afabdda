"""One way to read an image, whatever kind of file it is in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topolora_monai.io.memory import CUT_HINT, require_memory
from topolora_monai.io.pictures import PICTURE_SUFFIXES, open_picture, orientation_tag, read_picture
from topolora_monai.io.rasters import is_raster, open_raster, raster_orientation, read_bands
from topolora_monai.io.volumes import VOLUME_SUFFIXES, is_volume, read_slice, volume_shape

IMAGE_SUFFIXES = (*PICTURE_SUFFIXES, *VOLUME_SUFFIXES)
"""Recognised file name endings, in lower case; those of pictures may be followed by ``.gz``."""

_BLOCK_PIXELS = 16_000_000
_TILE_ROWS = 512
"""Blocks begin at multiples of this, which are where the tiles of most files begin."""

Kind = Literal["picture", "raster", "volume"]


class ImageData(NamedTuple):
    """Values, float32 (C, H, W); validity, bool (H, W); and whether the values are in [0, 1] already.

    Pictures are; rasters and volumes come in the units of their files.
    """

    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    scaled: bool
    kind: Kind


def image_kind(path: str | Path) -> Kind:
    """Tell pictures, rasters and volumes apart by suffix and header."""
    if is_volume(path):
        return "volume"
    return "raster" if is_raster(path) else "picture"


def read_image(
    path: str | Path, channels: int = 3, axis: int | None = None, index: int | None = None, bits: int = 16
) -> ImageData:
    """Read a picture, a whole raster, or one slice of a volume.

    Args:
        path: the file, or the folder of a DICOM series.
        channels: number of channels to give; one band is repeated to three where three are asked for.
        axis: of a volume, the one its slices are taken along.
        index: of the slice.
        bits: that are filled in pictures of 16 bit, see :func:`~topolora_monai.io.read_picture`.

    Raises:
        DataError: if the file is missing, damaged, of an unknown format, too large, or has other channels.
    """
    kind = image_kind(path)
    if kind == "volume":
        plane = read_slice(path, axis or 0, index or 0)
        valid = np.isfinite(plane)
        values = np.repeat(np.where(valid, plane, 0).astype(np.float32)[None], channels, axis=0)
        return ImageData(values, valid, False, kind)
    if kind == "raster":
        require_whole(path, channels)
        with open_raster(path) as dataset:
            values, valid = read_bands(dataset, channels)
            return ImageData(values, valid, dataset.dtypes[0] == "uint8", kind)
    values = read_picture(path, channels, bits)
    return ImageData(values, np.ones(values.shape[1:], bool), True, kind)


def image_orientation(path: str | Path) -> int:
    """Orientation tag of an image's file, 1 to 8, 1 where it has none; of several pages, the first's.

    Raises:
        DataError: if it cannot be opened.
    """
    kind = image_kind(path)
    if kind == "raster":
        return raster_orientation(path)
    pages = Path(path).name.lower().endswith((".tif", ".tiff"))
    return orientation_tag(path) if kind == "picture" or pages else 1


def read_blocks(
    path: str | Path, channels: int = 3, axis: int | None = None, index: int | None = None
) -> Iterator[ImageData]:
    """What :func:`read_image` reads, a raster's rows some at a time, so that any size fits in memory.

    Raises:
        DataError: as :func:`read_image`, but for rasters that are too large.
    """
    if image_kind(path) != "raster":
        yield read_image(path, channels, axis, index)
        return
    with open_raster(path) as dataset:
        rows = max(_BLOCK_PIXELS // dataset.width // _TILE_ROWS, 1) * _TILE_ROWS
        for top in range(0, dataset.height, rows):
            window = ((top, min(top + rows, dataset.height)), (0, dataset.width))
            values, valid = read_bands(dataset, channels, window=window)
            yield ImageData(values, valid, dataset.dtypes[0] == "uint8", "raster")


def require_whole(path: str | Path, channels: int | None = None) -> None:
    """Refuse a raster that memory does not hold whole, with so many channels or its bands; other images pass.

    Raises:
        DataError: if it is too large, or cannot be opened.
    """
    if image_kind(path) != "raster":
        return
    with open_raster(path) as dataset:
        # As read, validated, scaled and masked, float32 each; and one channel sorted as float64 for its percentiles.
        needed = 12 * (channels or dataset.count) + 24
        require_memory(path, dataset.shape, needed, CUT_HINT)


def image_size(path: str | Path, axis: int | None = None) -> tuple[int, int]:
    """(height, width) of an upright image, or of a volume's slices along an axis.

    Raises:
        DataError: as :func:`read_image`; a picture is decoded to its end, so that damage shows.
    """
    kind = image_kind(path)
    if kind == "volume":
        height, width = (size for other, size in enumerate(volume_shape(path)) if other != (axis or 0))
        return height, width
    if kind == "raster":
        with open_raster(path) as dataset:
            return dataset.height, dataset.width
    image = open_picture(path)
    return image.height, image.width
