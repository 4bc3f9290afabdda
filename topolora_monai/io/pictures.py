"""Pictures of everyday formats: 8 and 16 bit, by Pillow, always upright and as they show."""

from __future__ import annotations

import gzip
import io
import struct
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from topolora_monai.errors import DataError
from topolora_monai.io.atomic import atomic_write
from topolora_monai.io.regular import require_file

__all__ = [
    "PICTURE_SUFFIXES",
    "is_whole_png",
    "open_picture",
    "orientation_tag",
    "page_size",
    "palette_colours",
    "picture_size",
    "read_picture",
    "shows_zero_as_white",
    "write_png",
]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".bmp")
"""Recognised file name endings, in lower case; each may be followed by ``.gz``."""

_LOSSY_FORMATS = ("JPEG", "MPO")
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I", "F")
_WIDTH, _HEIGHT, _PHOTOMETRIC, _ORIENTATION = 256, 257, 262, 274
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by its orientation tag."""
_ON_ITS_SIDE = (5, 6, 7, 8)
_EXIF_IN_PNG = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
"""Chunks that may say the orientation, also after the pixels."""
_EXIF_ENTRIES = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")


def read_picture(path: str | Path, channels: int = 3) -> NDArray[np.float32]:
    """Read an image as intensities in [0, 1], upright.

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
        shown = 65535 - plane if shows_zero_as_white(image) else plane
        return np.repeat((shown.astype(np.float32) / 65535)[None], channels, axis=0)
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
    """Open a picture, upright, turning every way it can be broken into one kind of error.

    Every picture of the package is opened here, so that its orientation tag, if it has one, is obeyed by all readers
    or by none: the picture is turned as viewers show it, and no tag is left.

    Args:
        path: a file of one of :data:`PICTURE_SUFFIXES`.
        decode: read the whole file, so that damage shows; without it, the header alone, whose size may be that of the
            picture on its side, see :func:`picture_size`.

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
            image = _open(source)
            if decode:
                image.load()
                image = _upright(image)
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


def picture_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an upright picture, from its header.

    Raises:
        DataError: as :func:`open_picture`.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "on_its_side.png"
        >>> exif = Image.Exif()
        >>> exif[274] = 6
        >>> Image.new("L", (4, 2)).save(path, exif=exif)
        >>> picture_size(path), orientation_tag(path)
        ((4, 2), 6)
    """
    image = open_picture(path, decode=False)
    return _size_of(image, _tag_in_header(image, path))


def page_size(page: Image.Image) -> tuple[int, int]:
    """(height, width) of an upright page of a TIFF that is not decoded yet."""
    return _size_of(page, _tag(page))


def orientation_tag(path: str | Path) -> int:
    """What the file of a picture says of how it lies, 1 to 8, as EXIF numbers it; 1 is upright, and no tag is 1.

    Raises:
        DataError: as :func:`open_picture`.
    """
    return _tag_in_header(open_picture(path, decode=False), path)


def palette_colours(image: Image.Image) -> NDArray[np.int64]:
    """Colours of the 256 indices of a picture with a palette, shape (256, 3); those it does not name are black."""
    colours = np.zeros(256 * 3, np.int64)
    named = image.getpalette("RGB") or []
    colours[: len(named)] = named
    return colours.reshape(256, 3)


def shows_zero_as_white(image: Image.Image) -> bool:
    """Whether it is a TIFF whose samples grow from white to black. Pillow inverts those of up to 8 bits itself."""
    return image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0  # type: ignore[attr-defined]


def _open(source: Path | io.BytesIO) -> Image.Image:
    image = Image.open(source)
    if image.format == "TIFF":
        # Pillow maps the pixels of a named file to memory at the size of the upright picture, which scrambles them.
        image.filename = ""
    return image


def _upright(image: Image.Image) -> Image.Image:
    """A decoded picture as viewers show it; Pillow has turned a TIFF already, and taken its tag away."""
    tag = _tag(image)
    if tag == 1:
        return image
    upright = image.transpose(_UPRIGHT[tag])
    upright.format = image.format
    for entry in _EXIF_ENTRIES:
        upright.info.pop(entry, None)
    return upright


def _size_of(image: Image.Image, tag: int) -> tuple[int, int]:
    # Whether Pillow turns the size of a TIFF before its pixels are there depends on its version.
    stored = (image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT]) if image.format == "TIFF" else image.size  # type: ignore[attr-defined]
    return stored if tag in _ON_ITS_SIDE else stored[::-1]


def _tag_in_header(image: Image.Image, path: str | Path) -> int:
    if image.format != "PNG":
        return _tag(image)
    # Asked for its tag, Pillow decodes a PNG that says none before its pixels; most say none at all.
    packed = Path(path).suffix.lower() == ".gz"
    content = gzip.decompress(Path(path).read_bytes()) if packed else Path(path).read_bytes()
    return _tag(image) if any(chunk in content for chunk in _EXIF_IN_PNG) else 1


def _tag(image: Image.Image) -> int:
    try:
        tag = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error):
        return 1  # as browsers and other viewers take notes that are damaged
    return tag if tag in _UPRIGHT else 1
