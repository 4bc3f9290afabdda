"""Pictures of everyday formats: 8 and 16 bit, by Pillow."""

from __future__ import annotations

import gzip
import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from topolora_monai.errors import DataError
from topolora_monai.io.atomic import atomic_write
from topolora_monai.io.regular import require_file

__all__ = ["PICTURE_SUFFIXES", "is_whole_png", "open_picture", "read_picture", "write_png"]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".bmp")
"""Recognised file name endings, in lower case; each may be followed by ``.gz``."""

_LOSSY_FORMATS = ("JPEG", "MPO")
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I", "F")


def read_picture(path: str | Path, channels: int = 3) -> NDArray[np.float32]:
    """Read an image as intensities in [0, 1].

    Grey images are repeated to three channels, colour ones reduced to luminance where one channel is asked
    for, transparency is dropped, and 16-bit values are divided by 65535.

    Args:
        path: a file of one of :data:`PICTURE_SUFFIXES`.
        channels: 1 or 3.

    Returns:
        Array of shape (channels, H, W).

    Raises:
        DataError: if the file is missing, empty, damaged, of an unknown format, or holds floating point.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "grey.png"
        >>> Image.new("L", (4, 2), 255).save(path)
        >>> read_picture(path).shape, float(read_picture(path).max())
        ((3, 2, 4), 1.0)
    """
    image = open_picture(path)
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


def write_png(array: NDArray[np.uint8] | NDArray[np.uint16], path: str | Path) -> None:
    """Write a PNG beside its place and rename it, so that a file that exists is whole.

    Args:
        array: shape (H, W), uint8 or uint16, or (H, W, 3), uint8.
        path: where to.

    Raises:
        OSError: if it cannot be written; nothing is left behind.
    """
    with atomic_write(path) as beside:
        Image.fromarray(array).save(beside, format="PNG")


def is_whole_png(path: Path) -> bool:
    """Whether a file is a PNG down to its end, by the checksums in it; nothing is decoded.

    For what the package keeps and can make again.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True


def open_picture(path: str | Path, decode: bool = True) -> Image.Image:
    """Open a picture, turning every way it can be broken into one kind of error.

    Args:
        path: a file of one of :data:`PICTURE_SUFFIXES`.
        decode: read the whole file, so that damage shows; without it, the header alone.

    Raises:
        DataError: if it is missing, empty, damaged or of an unknown format.
    """
    path = Path(path)
    require_file(path)
    if path.stat().st_size == 0:
        raise DataError("file is empty", path=path, found="0 bytes", hint="copy or download it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            source = io.BytesIO(gzip.decompress(path.read_bytes())) if path.suffix.lower() == ".gz" else path
            image = Image.open(source)
            if decode:
                image.load()
    except UnidentifiedImageError as error:
        raise DataError(
            "not an image of a known format",
            path=path,
            expected=", ".join(PICTURE_SUFFIXES),
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
