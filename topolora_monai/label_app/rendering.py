"""How large images are, before they are decoded, and images and labels as pictures that every browser shows."""

import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from topolora_monai.errors import DataError
from topolora_monai.io.images import image_kind, image_size, read_image
from topolora_monai.io.pictures import deep_maximum, picture_size
from topolora_monai.io.rasters import open_raster
from topolora_monai.io.volumes import default_axis, slice_count, volume_shape
from topolora_monai.label_app.tasks.masks import read_label


class ImageTooLargeError(DataError):
    """An image with more pixels than the server takes."""


def image_shape(path: str | Path) -> tuple[int, ...]:
    """(height, width) of an upright picture or raster, (slices, rows, columns) of a volume, from the file's header.

    Raises:
        DataError: if it cannot be read.
    """
    kind = image_kind(path)
    if kind == "volume":
        return tuple(volume_shape(path))
    return image_size(path) if kind == "raster" else picture_size(path)


def check_image_size(path: str | Path, max_pixels: int) -> None:
    """Refuse an image, or a volume, of more pixels than the server wants to give memory for.

    Raises:
        ImageTooLargeError: if it has more.
        DataError: if it cannot be read.
    """
    shape = image_shape(path)
    if math.prod(shape) > max_pixels:
        raise ImageTooLargeError(
            "image is too large",
            expected=f"at most {max_pixels:,} pixels",
            found=" x ".join(str(side) for side in shape),
            hint="reduce it, or start the server with another --max_megapixels",
        )


def picture_as_png(
    path: str | Path,
    size: int = 0,
    index: int | None = None,
    max_pixels: int | None = None,
    window: tuple[float, float] | None = None,
) -> tuple[bytes, tuple[int, int]]:
    """An image, or one slice of a volume along its coarsest axis, by default the middle one, in 8 bits.

    ``size`` is the longest side in pixels, 0 for the native size, and never more than it; ``window`` the percentiles
    of the image's values that become black and white, by default 1 and 99 of what has more than 8 bits.

    Returns:
        The PNG, and the native (height, width).

    Raises:
        DataError: if the image cannot be read, or has more than ``max_pixels``.
    """
    if max_pixels is not None:
        check_image_size(path, max_pixels)
    values = _values(path, index, window)
    shape = values.shape[1], values.shape[2]
    picture = Image.fromarray((np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))
    if 0 < size < max(shape):
        picture.thumbnail((size, size), Image.Resampling.BOX)
    return _png(picture), shape


def label_as_png(path: str | Path, image: str | Path, index: int | None = None) -> bytes:
    """Class numbers of a label on the grid of its image; of a volume, one slice as of :func:`picture_as_png`.

    Raises:
        DataError: if it cannot be read, or lies elsewhere than its image.
    """
    numbers = read_label(path, image)
    if numbers.ndim == 3:
        axis = default_axis(image)
        numbers = np.moveaxis(numbers, axis, 0)[_index(image, axis, index)]
    return _png(Image.fromarray(numbers))


def probability_as_png(probability: NDArray[np.float32], threshold: float) -> bytes:
    """Probabilities (K, H, W) as levels, the classes' planes one below the other; 128 and more are at the threshold.

    Levels below are as far apart as the threshold allows, and so are those above.
    """
    below = np.floor(probability / threshold * 128).clip(0, 127)
    above = 128 + np.floor((probability - threshold) / max(1 - threshold, 1e-6) * 127).clip(0, 127)
    levels = np.where(probability >= threshold, above, below).astype(np.uint8)
    return _png(Image.fromarray(levels.reshape(-1, levels.shape[-1])))


def _values(path: str | Path, index: int | None, window: tuple[float, float] | None) -> NDArray[np.float32]:
    """Three channels in [0, 1]."""
    if image_kind(path) == "volume":
        axis = default_axis(path)
        image = read_image(path, 3, axis, _index(path, axis, index))
    else:
        image = read_image(path, _bands(path))
    values = image.values[:3] if len(image.values) >= 3 else np.repeat(image.values[:1], 3, axis=0)
    if image.scaled and window is None and (image.kind != "picture" or deep_maximum(path) is None):
        return values
    low, high = np.percentile(values[:, image.valid], window or (1, 99)) if image.valid.any() else (0, 1)
    return np.asarray((values - low) / max(high - low, 1e-6), np.float32)


def _bands(path: str | Path) -> int:
    """All of a raster, of which the first are shown; three of a picture."""
    if image_kind(path) != "raster":
        return 3
    with open_raster(path) as raster:
        return int(raster.count)


def _index(path: str | Path, axis: int, index: int | None) -> int:
    count = slice_count(path, axis)
    if index is not None and not 0 <= index < count:
        raise DataError("volume has no such slice", path=path, expected=f"0 to {count - 1}", found=index)
    return count // 2 if index is None else index


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=3)
    return stream.getvalue()
