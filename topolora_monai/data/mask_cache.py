"""Masks that are drawn from annotations, kept as files so that they are drawn once."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topolora_monai.data.items import Item, plain_stem
from topolora_monai.errors import DataError, OutputError
from topolora_monai.io import image_orientation, image_size, is_whole_png, write_png
from topolora_monai.io.atomic import remove_leftovers, writing
from topolora_monai.io.places import in_cache

__all__ = ["Annotated", "draw_masks"]

_VERSION = 2
"""Raise when the drawing changes, so that masks drawn before are drawn again."""


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


def draw_masks(
    images: Sequence[Annotated], settings: object, folder: str | Path | None, by_default: Path
) -> list[Item]:
    """Draw the masks that are not there yet, or damaged.

    They go to a folder in ``folder`` that is named after a hash of the annotation files and of ``settings``, so
    that masks of an older state are never taken for those of the present one.

    Args:
        images: with distinct mask names.
        settings: whatever else the masks depend on, with a ``repr`` that tells them apart.
        folder: created if need be.
        by_default: what takes its place if it is None; where this cannot be written, a folder in the user's cache, or
            one that ends with the process.

    Returns:
        ``name``, ``image`` and ``label`` of each image, in the order given.

    Raises:
        DataError: if an image cannot be read or, upright, has another size than its annotation file says.
        OutputError: if the masks cannot be written.
    """
    kept = partial(_kept, images, _digest(sorted({annotated.source for annotated in images}), settings))
    if folder is not None:
        return kept(Path(folder))
    with contextlib.suppress(OutputError):
        return kept(by_default)
    tag = hashlib.sha256(os.fsencode(by_default)).hexdigest()[:8]
    return in_cache(kept, f"masks/{by_default.name}-{tag}")


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
