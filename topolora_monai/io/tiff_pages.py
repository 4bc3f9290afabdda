"""Pages of a TIFF, by Pillow."""

import contextlib
import warnings
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from topolora_monai.errors import DataError
from topolora_monai.io.pictures import TiffHeader, open_picture, page_size, palette_colours, shows_zero_as_white
from topolora_monai.io.regular import FILE, path_kind
from topolora_monai.io.volume_header import DAMAGE, Header, not_grey

TIFF_SUFFIXES = (".tif", ".tiff")
"""File name endings, in lower case."""

_MODES = ("1", "L", "P", "I;16", "I;16B", "I;16L", "I", "F")
_NEW_SUBFILE_TYPE, _OVERVIEW, _TRANSPARENCY = 254, 1, 4


def has_several_pages(path: Path) -> bool:
    """Whether a file is a TIFF of more than one page; False for what is missing or no TIFF."""
    if path_kind(path) != FILE:
        return False
    try:
        with warnings.catch_warnings(), TiffHeader(path) as image:
            warnings.simplefilter("ignore")
            if not image.is_animated:
                return False
            try:
                return len(list(islice(_pages(image), 2))) > 1
            except DAMAGE:
                return True  # the next page is announced and broken, and must not go unnoticed
    except DAMAGE:
        return False  # the readers of pictures and rasters say what is wrong


def tiff_header(path: Path) -> Header:
    """Number and size of the upright pages, which are grey and of one size."""
    with _open(path) as image:
        found = [(*page_size(page), page.mode) for page in _pages(image)]
    rows, columns, _ = found[0]
    for number, (height, width, mode) in enumerate(found, 1):
        if mode not in _MODES:
            raise not_grey(path, f"page {number} of mode {mode}")
        if (height, width) != (rows, columns):
            raise DataError(
                "pages differ in size",
                path=path,
                expected=f"{rows} x {columns} as the first",
                found=f"{height} x {width} in page {number}",
                hint="save the pages to files of their own, or remove the others",
            )
    return Header((len(found), rows, columns), (1.0, 1.0, 1.0), None)


def tiff_values(path: Path) -> NDArray[Any]:
    """Values of all pages, each turned upright, shape (pages, rows, columns); of a palette its indices."""
    with _open(path) as image:
        return np.stack([_shown(page) for page in _pages(image)])


def page_palette(path: str | Path) -> NDArray[np.int64] | None:
    """Colours (N, 3) of the indices that all pages of a TIFF hold; None for pages without palette and other files."""
    path = Path(path)
    if not path.name.lower().endswith(TIFF_SUFFIXES):
        return None
    with _open(path) as image:
        palettes = [palette_colours(page) if page.mode == "P" else None for page in _pages(image)]
    first = palettes[0]
    if not all(other is first is None or np.array_equal(other, first) for other in palettes):  # type: ignore[arg-type]
        raise DataError("pages differ in palette", path=path, hint="save the pages in grey, or to files of their own")
    return first


def write_tiff(array: NDArray[Any], path: Path) -> None:
    """Write (pages, rows, columns) as deflated pages."""
    first, *others = (Image.fromarray(page) for page in array)
    first.save(path, format="TIFF", save_all=True, append_images=others, compression="tiff_adobe_deflate")


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        # Pillow only warns where the list of pages breaks off.
        warnings.filterwarnings("error", message="Corrupt EXIF data", category=UserWarning)
        with open_picture(path, decode=False) as image:
            yield image


def _pages(image: Image.Image) -> Iterator[Image.Image]:
    """Pages that are neither a smaller copy nor the transparency of another, as the tags of TIFF say."""
    for number in count():
        try:
            image.seek(number)
        except EOFError:
            return
        except SyntaxError:  # Pillow knows the tags of transparency, but not its pixels
            if not _is_subordinate(image):
                raise
        else:
            if number == 0 or not _is_subordinate(image):
                yield image


def _shown(page: Image.Image) -> NDArray[np.float32]:
    values = np.asarray(page, dtype=np.float32)
    return 65535 - values if page.mode.startswith("I;16") and shows_zero_as_white(page) else values


def _is_subordinate(page: Image.Image) -> bool:
    tags: Any = getattr(page, "tag_v2", {})
    return bool(tags.get(_NEW_SUBFILE_TYPE, 0) & (_OVERVIEW | _TRANSPARENCY))
