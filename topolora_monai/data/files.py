"""Reading images and masks of everyday formats into one convention, refusing what is ambiguous."""

from __future__ import annotations

import gzip
import io
import os
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from topolora_monai.errors import DataError

__all__ = ["IMAGE_SUFFIXES", "image_size", "read_image", "read_mask", "write_png"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".bmp")
"""Recognised file name endings, in lower case; each may be followed by ``.gz``."""

_LOSSY_FORMATS = ("JPEG", "MPO")
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I", "F")


def read_image(path: str | Path, channels: int = 3) -> NDArray[np.float32]:
    """Read an image as intensities in [0, 1].

    Grey images are repeated to three channels, colour ones reduced to luminance where one channel is asked
    for, transparency is dropped, and 16-bit values are divided by 65535.

    Args:
        path: a file of one of :data:`IMAGE_SUFFIXES`.
        channels: 1 or 3.

    Returns:
        Array of shape (channels, H, W).

    Raises:
        DataError: if the file is missing, empty, damaged, of an unknown format, or holds floating point.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "grey.png"
        >>> Image.new("L", (4, 2), 255).save(path)
        >>> read_image(path).shape, float(read_image(path).max())
        ((3, 2, 4), 1.0)
    """
    image = _open(Path(path))
    if image.mode in _DEEP_MODES:
        plane = np.asarray(image)
        if image.mode == "F" or plane.min() < 0 or plane.max() > 65535:
            raise DataError(
                "image is neither 8 nor 16 bit",
                path=path,
                expected="unsigned integers",
                found=f"{plane.dtype} values from {plane.min()} to {plane.max()}",
                hint="convert it to 8 or 16 bit PNG or TIFF",
            )
        return np.repeat((plane.astype(np.float32) / 65535)[None], channels, axis=0)
    array = np.asarray(image.convert("L" if channels == 1 else "RGB"), dtype=np.float32) / 255
    return np.ascontiguousarray(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))


def read_mask(path: str | Path) -> NDArray[np.uint8]:
    """Read a two-valued mask as 0 and 1.

    Accepted: 0/1, 0/255 or 0/any other single value, palette images by index, colour images whose channels
    agree, and JPEG masks, whose compression noise is cut at 127. A mask of zeros is empty, one of a single
    other value is full.

    Args:
        path: a file of one of :data:`IMAGE_SUFFIXES`.

    Returns:
        Array of shape (H, W), values 0 and 1.

    Raises:
        DataError: if the file is damaged or holds more than two values.
    """
    image = _open(Path(path))
    values = np.asarray(image)
    if values.ndim == 3:
        colour = values[..., :3] if image.mode in ("RGB", "RGBA") else values[..., :1]
        if (colour != colour[..., :1]).any():
            raise DataError(
                "mask is a colour picture",
                path=path,
                expected="one value for background and one for foreground",
                found="channels that differ",
                hint="save the mask itself, not a coloured overlay",
            )
        values = colour[..., 0]
    if image.format in _LOSSY_FORMATS:
        return (values > 127).astype(np.uint8)
    distinct = np.unique(values)
    if len(distinct) > 2 or (len(distinct) == 2 and distinct[0] != 0):
        shown = ", ".join(str(value) for value in distinct[:6]) + (", ..." if len(distinct) > 6 else "")
        raise DataError(
            "mask has other values than expected",
            path=path,
            expected="0 for background and one other value for foreground",
            found=f"{len(distinct)} values: {shown}",
            hint="threshold it, or keep one class, and save it as PNG",
        )
    mask: NDArray[np.uint8] = (values != 0).astype(np.uint8)
    return mask


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of a readable image file.

    Raises:
        DataError: as :func:`read_image`.
    """
    image = _open(Path(path))
    return image.height, image.width


def write_png(array: NDArray[np.uint8] | NDArray[np.uint16], path: str | Path) -> None:
    """Write a PNG beside its place and rename it, so that a file that exists is whole.

    Args:
        array: shape (H, W), uint8 or uint16, or (H, W, 3), uint8.
        path: where to.

    Raises:
        OSError: if it cannot be written; nothing is left behind.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.part")
    try:
        Image.fromarray(array).save(beside, format="PNG")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _open(path: Path) -> Image.Image:
    """Decode a whole file, turning every way it can be broken into one kind of error."""
    if not path.is_file():
        raise DataError("file not found", path=path, hint="check the path and that the disk is mounted")
    if path.stat().st_size == 0:
        raise DataError("file is empty", path=path, found="0 bytes", hint="copy or download it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            source = io.BytesIO(gzip.decompress(path.read_bytes())) if path.suffix.lower() == ".gz" else path
            image = Image.open(source)
            image.load()
    except UnidentifiedImageError as error:
        raise DataError(
            "not an image of a known format",
            path=path,
            expected=", ".join(IMAGE_SUFFIXES),
            found=f"{path.stat().st_size} bytes of something else",
            hint="convert it, or copy it again if it is damaged",
        ) from error
    except (OSError, EOFError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            "image is damaged or incomplete",
            path=path,
            found=f"{path.stat().st_size} bytes that cannot be decoded ({error})",
            hint="copy or download it again",
        ) from error
    return image
