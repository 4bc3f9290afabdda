"""Images and labels as pictures that every browser shows."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from topolora_monai.errors import DataError
from topolora_monai.io.images import image_kind, read_image
from topolora_monai.io.rasters import open_raster
from topolora_monai.io.volumes import default_axis, slice_count
from topolora_monai.label_app.sizes import check_image_size
from topolora_monai.label_app.tasks.masks import read_label

__all__ = ["label_as_png", "picture_as_png"]


def picture_as_png(
    path: str, size: int = 0, index: int | None = None, max_pixels: int | None = None
) -> tuple[bytes, tuple[int, int]]:
    """An image, or one slice of a volume, in 8 bits.

    Args:
        path: of the image.
        size: longest side in pixels; 0 for the native size, and never more than it.
        index: of the slice along the coarsest axis; the middle one by default.
        max_pixels: limit, see :func:`~topolora_monai.label_app.sizes.check_image_size`.

    Returns:
        The PNG, and the native (height, width).

    Raises:
        DataError: if the image cannot be read.
    """
    if max_pixels is not None:
        check_image_size(path, max_pixels)
    values = _values(path, index)
    shape = values.shape[1], values.shape[2]
    picture = Image.fromarray((np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))
    if 0 < size < max(shape):
        picture.thumbnail((size, size), Image.Resampling.BOX)
    return _png(picture), shape


def label_as_png(path: str, image: str, index: int | None = None) -> bytes:
    """Class numbers of a label; a mask of 0 and 255 becomes one of 0 and 1.

    Args:
        path: of the label.
        image: path of its image, on whose grid it is shown.
        index: of a volume's slice, as of :func:`picture_as_png`.

    Raises:
        DataError: if it cannot be read, or lies elsewhere than its image.
    """
    numbers = read_label(path, image)
    if numbers.ndim == 3:
        axis = default_axis(image)
        numbers = np.moveaxis(numbers, axis, 0)[_index(image, axis, index)]
    return _png(Image.fromarray(numbers))


def _values(path: str, index: int | None) -> NDArray[np.float32]:
    """Three channels in [0, 1]."""
    if image_kind(path) == "volume":
        axis = default_axis(path)
        image = read_image(path, 3, axis, _index(path, axis, index))
    else:
        image = read_image(path, _bands(path))
    values = image.values[:3] if len(image.values) >= 3 else np.repeat(image.values[:1], 3, axis=0)
    if image.scaled:
        return values
    low, high = np.percentile(values[:, image.valid], (1, 99)) if image.valid.any() else (0, 1)
    return np.asarray((values - low) / max(high - low, 1e-6), np.float32)


def _bands(path: str) -> int:
    """All of a raster, of which the first are shown; three of a picture."""
    if image_kind(path) != "raster":
        return 3
    with open_raster(path) as raster:
        return int(raster.count)


def _index(path: str, axis: int, index: int | None) -> int:
    count = slice_count(path, axis)
    if index is not None and not 0 <= index < count:
        raise DataError("volume has no such slice", path=path, expected=f"0 to {count - 1}", found=index)
    return count // 2 if index is None else index


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=3)
    return stream.getvalue()
