"""Pictures of everyday formats: 8 and 16 bit, by Pillow, always upright and as they show; and photographs in DICOM."""

import contextlib
import io
import logging
import struct
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from topolora_monai.errors import DataError
from topolora_monai.io.atomic import atomic_write
from topolora_monai.io.itk_formats import is_photograph, photograph
from topolora_monai.io.memory import SCENE_HINT, inflated, require_memory
from topolora_monai.io.regular import require_file

_logger = logging.getLogger(__name__)

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".bmp")
"""Recognised file name endings, in lower case; each may be followed by ``.gz``."""

_BITS_PER_SAMPLE, _PLANAR = 258, 284
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
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
_OTHER_BYTE = {"16L": "16B", "16B": "16L", "16N": "16B" if sys.byteorder == "little" else "16L"}
"""Of 16-bit colour Pillow keeps the high byte alone; read in the other order of bytes, that is the low one."""
_DEEP_COLOURS = ("RGB", "RGBX", "RGBA")
_DAMAGE = (OSError, EOFError, SyntaxError, ValueError, RuntimeError)
_PEAK_BYTES = 32
"""Memory for a pixel while a picture is read: three bytes of Pillow's, twice three float32, and its validity."""


class TiffHeader(TiffImagePlugin.TiffImageFile):
    """The tags of a TIFF of any size, without Pillow's limit, which is one for all of a process."""

    def load_prepare(self) -> None:
        """Make room for the pixels."""
        self.im = Image.new(self.mode, getattr(self, "_tile_size", self.size), None).im
        ImageFile.ImageFile.load_prepare(self)


def read_picture(path: str | Path, channels: int = 3, bits: int = 16) -> NDArray[np.float32]:
    """Read an image as intensities in [0, 1], upright.

    Grey images are repeated to three channels, colour ones reduced to luminance where one channel is asked
    for, transparency is dropped. Values of 8 bit are divided by 255, those of 16 bit by 65535, or by less where
    cameras fill fewer bits; what lies above becomes 1, and a warning names the file.

    Args:
        path: a file of one of :data:`PICTURE_SUFFIXES`, or a DICOM photograph.
        channels: 1 or 3.
        bits: that are filled in pictures of 16 bit.

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
    deep = _deep_values(path, image)
    if deep is not None:
        largest = 2**bits - 1
        if deep.max(initial=0) > largest:
            _logger.warning("%s holds values up to %d, which are cut at %d (bits %d)", path, deep.max(), largest, bits)
        planes: NDArray[np.float32] = np.minimum(deep.astype(np.float32) / largest, 1)
        if len(planes) == channels:
            return planes
        return np.repeat(planes, channels, axis=0) if channels > 1 else np.tensordot(_LUMA, planes, axes=1)[None]
    array = np.asarray(image.convert("L" if channels == 1 else "RGB"), dtype=np.float32) / 255
    return np.ascontiguousarray(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))


def deep_maximum(path: str | Path) -> int | None:
    """Largest value that a picture of 16 bit holds; None for one of 8 bit.

    Raises:
        DataError: as :func:`read_picture`.
    """
    with open_picture(path, decode=False) as image:
        if image.mode not in _DEEP_MODES and not _is_deep_colour(image):
            return None
    deep = _deep_values(path, open_picture(path))
    return None if deep is None else int(deep.max(initial=0))


def write_png(array: NDArray[np.uint8] | NDArray[np.uint16], path: str | Path) -> None:
    """Write a PNG of uint8, (H, W) or (H, W, 3), or uint16, (H, W), beside its place and rename it.

    Raises:
        OSError: if it cannot be written; nothing is left behind.
    """
    with atomic_write(path) as beside:
        Image.fromarray(array).save(beside, format="PNG")


def is_whole_png(path: Path) -> bool:
    """Whether a file is a PNG down to its end, by the checksums in it; nothing is decoded."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True


def open_picture(path: str | Path, decode: bool = True, low_bytes: bool = False) -> Image.Image:
    """Open a picture, upright, turning every way it can be broken into one kind of error.

    Every picture of the package is opened here and turned as viewers show it; no orientation tag is left. Pictures
    that Pillow takes for bombs are decoded if memory holds them. Photographs in DICOM are pictures in RGB.

    Args:
        path: a file of one of :data:`PICTURE_SUFFIXES`, or a DICOM photograph.
        decode: read the whole file, so that damage shows; without it, the header alone, whose size may be that of the
            picture on its side, see :func:`picture_size`.
        low_bytes: of 16-bit colour, in place of the high ones.

    Raises:
        DataError: if it is missing, empty, damaged, of an unknown format or, where it is to be decoded, too large.
    """
    path = Path(path)
    require_file(path)
    if path.stat().st_size == 0:
        raise DataError("file is empty", path=path, found="0 bytes", hint="copy or download it again")
    try:
        if is_photograph(path):
            return Image.fromarray(photograph(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            source = _unpacked(path) if path.suffix.lower() == ".gz" else path
            stored = _open(source, path, decode)
            if low_bytes:
                stored.tile = [_of_other_byte(tile) for tile in stored.tile]
            image: Image.Image = stored
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
    except (*_DAMAGE, zlib.error, Image.DecompressionBombError) as error:
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

    A ``DataError``, as :func:`open_picture`.
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
    content = _unpacked(Path(path)).getvalue() if packed else Path(path).read_bytes()
    return _tag(image) if any(chunk in content for chunk in _EXIF_IN_PNG) else 1


def _tag(image: Image.Image) -> int:
    try:
        tag = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error):
        return 1  # as browsers and other viewers take notes that are damaged
    return tag if tag in _UPRIGHT else 1


def _deep_values(path: str | Path, image: Image.Image) -> NDArray[Any] | None:
    """Values of more than 8 bit of an image that is decoded, shape (1, H, W) or (3, H, W); None for other images."""
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
        return (65535 - plane if shows_zero_as_white(image) else plane)[None]
    with open_picture(path, decode=False) as header:
        if not _is_deep_colour(header):
            return None
        if getattr(header, "tag_v2", {}).get(_PLANAR, 1) != 1:  # of which Pillow mixes the bytes
            raise DataError(
                "image holds 16-bit colour in planes of their own",
                path=path,
                hint="save it with the colours of a pixel beside one another (tiffcp -p contig IN OUT)",
            )
    high, low = (np.asarray(one)[..., :3].transpose(2, 0, 1) for one in (image, open_picture(path, low_bytes=True)))
    return np.asarray((high.astype(np.uint16) << 8) | low)


def _is_deep_colour(image: Image.Image) -> bool:
    """Whether an image that is not decoded holds 16-bit colour, of which Pillow would give 8."""
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
    tiles: list[Any] = getattr(image, "tile", [])
    colour, _, depth = _raw_mode(tiles[0]).partition(";") if tiles else ("", "", "")
    return (colour in _DEEP_COLOURS and depth in _OTHER_BYTE) or (max(bits) > 8 and image.mode in _DEEP_COLOURS)


def _raw_mode(tile: Any) -> str:
    return tile[3] if isinstance(tile[3], str) else str(tile[3][0])


def _of_other_byte(tile: Any) -> Any:
    """A tile's description, with bytes in the other order."""
    colour, _, depth = _raw_mode(tile).partition(";")
    mode = f"{colour};{_OTHER_BYTE[depth]}"
    settings = mode if isinstance(tile[3], str) else (mode, *tile[3][1:])
    return tile._replace(args=settings) if hasattr(tile, "_replace") else (*tile[:3], settings)


def _unpacked(path: Path) -> io.BytesIO:
    with path.open("rb") as file:
        content = io.BytesIO()
        content.writelines(inflated(file))
        return content


def _open(source: Path | io.BytesIO, path: Path, decode: bool) -> ImageFile.ImageFile:
    """As ``Image.open``, bounded by memory in place of Pillow's limit."""
    try:
        image: ImageFile.ImageFile = Image.open(source)  # from the start, wherever it is at
        if image.format == "TIFF":
            # Pillow maps the pixels of a named file to memory at the size of the upright picture, which scrambles them.
            image.filename = ""
        return image
    except Image.DecompressionBombError:
        image = _open_large(source)
        if decode:
            require_memory(path, (image.height, image.width), _PEAK_BYTES, SCENE_HINT)
        return image


def _open_large(source: Path | io.BytesIO) -> ImageFile.ImageFile:
    """What ``Image.open`` does before it looks at the size."""
    file = source.open("rb") if isinstance(source, Path) else source
    file.seek(0)
    start = file.read(16)
    for name, (factory, accept) in Image.OPEN.items():
        if accept is None or accept(start) is not True:
            continue
        file.seek(0)
        with contextlib.suppress(SyntaxError):
            return (TiffHeader if name == "TIFF" else factory)(file, "")
    file.close()
    raise OSError("its size cannot be told")
