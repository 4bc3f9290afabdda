"""What COCO's and labelme's files have in common: how they are read, and masks drawn of them once and kept."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topolora_monai.data.items import Item, plain_stem
from topolora_monai.errors import DataError, OutputError, unknown_choice
from topolora_monai.io import image_orientation, image_size, is_whole_png, write_png
from topolora_monai.io.atomic import remove_leftovers, writing
from topolora_monai.io.places import in_cache
from topolora_monai.io.regular import FILE, path_kind, require_list, shortened

_VERSION = 2
"""Raise when the drawing changes, so that masks drawn before are drawn again."""


class Place(NamedTuple):
    """Where in an annotation file something is."""

    path: Path
    what: str

    def refuse(
        self, message: str, expected: str, found: object, hint: str = "correct it and export again"
    ) -> DataError:
        """The error for what is wrong there."""
        return DataError(f"{message} ({self.what})", path=self.path, expected=expected, found=found, hint=hint)

    def image(self, file_name: Any, folders: Sequence[Path]) -> Path:
        """The one file of that name in the folders. A ``DataError`` if it is no text, or in none or several of them."""
        if not isinstance(file_name, str) or not file_name:
            raise self.refuse("image has no file name", "file_name", file_name)
        paths = [folder / file_name for folder in folders]
        found = [path for path in paths if path_kind(path) == FILE]
        if len(found) == 1:
            return found[0]
        if not found:
            tried = " or ".join(shortened(str(path)) for path in paths)
            raise self.refuse("image file not found", tried, "none", "put the image there, or correct the path")
        raise self.refuse("several image files", "one", ", ".join(str(path) for path in found), "keep the right one")

    def points(self, points: Any, least: int, what: str) -> NDArray[np.float64]:
        """Coordinates of ``what`` as an array of shape (N, 2), float64.

        A ``DataError`` if they are fewer than ``least``, not in pairs, or not finite numbers.
        """
        try:
            array = np.asarray(points, dtype=np.float64)
        except (TypeError, ValueError):
            array = np.full((1, 1), np.nan)
        if array.size and (array.ndim != 2 or array.shape[1] != 2 or not np.isfinite(array).all()):
            raise self.refuse(f"{what} has points that are none", "pairs of finite numbers", str(points)[:100])
        if len(array) < least:
            raise self.refuse(f"{what} has fewer than {least} points", f"at least {least}", len(array))
        return array


def load_json(path: str | Path) -> Any:
    """Content of a JSON file. A ``DataError`` if it cannot be read, or is not JSON."""
    require_list(path)
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise DataError("file cannot be read", path=path, found=error.strerror) from error
    except (ValueError, RecursionError) as error:
        raise DataError("not valid JSON", path=path, found=str(error), hint="export or copy it again") from error


def json_files(folder: Path) -> list[Path]:
    """JSON files of a folder in order of name, hidden ones passed over."""
    files = (path for path in folder.iterdir() if path.suffix.lower() == ".json" and path.is_file())
    return sorted(path for path in files if not path.name.startswith("."))


def category_values(names: Iterable[str], chosen: Sequence[str] | None, path: Path) -> dict[str, int]:
    """Mask value, 255, of each category that is drawn: the chosen ones, or all where that is None.

    A ``ConfigError`` if there is none of a chosen name.
    """
    known = list(dict.fromkeys(names))
    for name in chosen or ():
        if name not in known:
            raise unknown_choice(f"category of {path}", name, known)
    return dict.fromkeys(known if chosen is None else chosen, 255)


class Annotated(NamedTuple):
    """An image and what is drawn on it.

    Attributes:
        image: its file.
        mask_name: file name of its mask, without suffix.
        source: the annotation file.
        size: (height, width) of the upright image as the annotation file has them; None where it does not say.
        shapes: from (height, width), pairs of a value and the pixels that get it, bool (H, W), in drawing order.
    """

    image: Path
    mask_name: str
    source: Path
    size: tuple[Any, Any]
    shapes: Callable[[tuple[int, int]], Iterable[tuple[int, NDArray[np.bool_]]]]


def draw_masks(images: Sequence[Annotated], settings: object, folder: Path) -> list[Item]:
    """Items of the images; their masks are drawn where they are not there yet, or damaged.

    They go to a folder in ``folder`` that is named after a hash of the annotation files and of ``settings``, all that
    the masks depend on besides, by its ``repr``: so that masks of an older state are never taken for those of the
    present one. Where it cannot be written, a folder in the user's cache takes its place, or one that ends with the
    process. A ``DataError`` if an image cannot be read or, upright, has another size than its annotation file says.
    """
    kept = partial(_kept, images, _digest(sorted({annotated.source for annotated in images}), settings))
    with contextlib.suppress(OutputError):
        return kept(folder)
    tag = hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
    return in_cache(kept, f"masks/{folder.name}-{tag}")


def _kept(images: Sequence[Annotated], digest: str, folder: Path) -> list[Item]:
    """Items with the masks in a folder, which are drawn if they are not there, or damaged."""
    target = folder.absolute() / digest
    remove_leftovers(target)
    files = [target / f"{annotated.mask_name}.png" for annotated in images]
    missing = [(annotated, file) for annotated, file in zip(images, files, strict=True) if not is_whole_png(file)]
    with writing(target, "the masks"):
        if missing:
            target.mkdir(parents=True, exist_ok=True)
        for annotated, file in missing:
            write_png(_draw(annotated), file)
    return [
        Item(name=plain_stem(annotated.image), image=str(annotated.image), label=str(file))
        for annotated, file in zip(images, files, strict=True)
    ]


def _draw(annotated: Annotated) -> NDArray[np.uint8]:
    size = image_size(annotated.image)
    said = tuple(found if said is None else said for said, found in zip(annotated.size, size, strict=True))
    if said != size:
        tag = image_orientation(annotated.image)
        raise DataError(
            f"image has another size than its annotation says ({annotated.image.name})",
            path=annotated.source,
            expected=f"{said[1]}x{said[0]} (width x height)",
            found=f"{size[1]}x{size[0]} in {annotated.image}",
            hint="give the image that was annotated, at its own size"
            if tag == 1
            else f"the image has orientation tag {tag} and is read upright: annotate it upright, "
            "or turn its pixels, take the tag out and annotate that",
        )
    mask = np.zeros(size, dtype=np.uint8)
    for value, pixels in annotated.shapes(size):
        mask[pixels] = value
    return mask


def _digest(sources: Sequence[Path], settings: object) -> str:
    parts = [repr((_VERSION, settings)).encode()]
    for source in sources:
        parts += [source.name.encode(), source.read_bytes()]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]
