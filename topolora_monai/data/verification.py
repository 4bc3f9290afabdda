"""Opening every file of a data set and naming everything that would spoil training or scores."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from topolora_monai.data.depth import bits_for, item_maximum
from topolora_monai.data.items import MASKS, SPLITS, Item, Split, check_item
from topolora_monai.data.registry import SegmentationData
from topolora_monai.errors import DataError
from topolora_monai.io import (
    ImageData,
    LabelValues,
    align,
    image_kind,
    image_orientation,
    image_size,
    read_blocks,
    read_labels,
    read_mask,
)

__all__ = ["Finding", "SplitFacts", "Verification", "verify"]

_NEARLY_ALL = 0.995
"""A mask with a larger share of one class is worth a look; with all of it, it is blank."""


@dataclass(frozen=True)
class Finding:
    """One thing found: a ``defect`` fails the verification, a ``note`` does not."""

    kind: Literal["defect", "note"]
    split: Split
    path: str
    message: str


@dataclass
class SplitFacts:
    """What a split holds."""

    images: int = 0
    sizes: set[tuple[int, int]] = field(default_factory=set)
    """(height, width)."""
    foreground: list[float] = field(default_factory=list)
    """Share of foreground in each mask, inside what is valid."""


@dataclass
class Verification:
    """Facts of each split and all findings, in order of split and name."""

    splits: dict[Split, SplitFacts]
    findings: list[Finding]

    @property
    def passed(self) -> bool:
        """Whether there is no defect."""
        return not any(finding.kind == "defect" for finding in self.findings)


@dataclass(frozen=True)
class _Seen:
    """One item after it was opened."""

    split: Split
    item: Item
    size: tuple[int, int] | None = None
    foreground: float | None = None
    content: str | None = None
    deep: int | None = None
    """Largest value of a picture of 16 bit."""
    findings: tuple[Finding, ...] = ()


def _pixels(blocks: Iterable[ImageData]) -> tuple[NDArray[np.bool_], str, float]:
    """Where an image is valid, its digest, and the range of values there, negative where nothing is valid."""
    digest, valid, low, high = hashlib.sha256(), [], np.inf, -np.inf
    for block in blocks:
        digest.update(block.values.tobytes())
        valid.append(block.valid)
        seen = block.values[:, block.valid]
        low, high = min(low, seen.min(initial=np.inf)), max(high, seen.max(initial=-np.inf))
    return np.concatenate(valid), digest.hexdigest(), high - low


def verify(data: SegmentationData, blank_is_legal: bool = False, progress: bool = False) -> Verification:
    """Open every image and mask of a data set.

    Defects: files that are missing, damaged, of other sizes or with other values than they should have; masks that lie
    elsewhere than their image, see :func:`~topolora_monai.io.align`; images that occur twice, within a split or across
    splits; groups (patients) on both sides; blank images and blank masks. Notes: masks of which more than half is
    foreground or nearly all one class, masks that were brought to their image, files that are turned upright by an
    orientation tag, pictures of 16 bit that fill fewer, and what is blank where that is legal.

    Args:
        data: an open data set.
        blank_is_legal: images without data and masks of one class belong to this data set.
        progress: show a bar with the time left.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from topolora_monai.data import Folder
        >>> root = Path(tempfile.mkdtemp())
        >>> for number in range(10):
        ...     for folder, shade in (("images", number), ("masks", 255)):
        ...         (root / folder).mkdir(exist_ok=True)
        ...         Image.new("L", (8, 8), shade).save(root / folder / f"{number}.png")
        >>> found = verify(Folder(root))
        >>> found.passed, found.findings[0].message
        (False, 'image is blank: all pixels are equal')
    """
    work = [(split, item) for split in SPLITS for item in data.items(split)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        opened = pool.map(lambda one: _open(one[0], one[1], data.label_values, data.channels, blank_is_legal), work)
        seen = list(tqdm(opened, total=len(work), desc="verifying", unit="image", disable=not progress))
    splits = {split: SplitFacts() for split in SPLITS}
    for one in seen:
        facts = splits[one.split]
        facts.images += 1
        facts.sizes |= {one.size} if one.size else set()
        facts.foreground += [one.foreground] if one.foreground is not None else []
    findings = dict.fromkeys(finding for one in seen for finding in one.findings)  # once for all slices of a volume
    return Verification(splits, [*findings, *_duplicates(seen), *_divided_groups(seen), *_shallow(seen)])


def _open(split: Split, item: Item, label_values: LabelValues | None, channels: int, blank_is_legal: bool) -> _Seen:
    try:
        if "image" in item:
            check_item(item, label_values)
        return _measure(split, item, label_values, channels, blank_is_legal)
    except DataError as error:
        path = item.get("image", item.get("label", ""))
        return _Seen(split, item, findings=(Finding("defect", split, path, str(error)),))


def _measure(split: Split, item: Item, label_values: LabelValues | None, channels: int, blank_is_legal: bool) -> _Seen:
    axis, index = item.get("axis"), item.get("slice")
    findings = list(_orientations(split, item))
    blank: Literal["defect", "note"] = "note" if blank_is_legal or index is not None else "defect"
    content: str | None = None
    deep: int | None = None
    size = image_size(item.get("image", item.get("label", "")), axis)
    valid = np.ones(size, bool)
    if "image" in item:
        notes = ((mask, align(mask, item["image"]).note) for mask in (item[key] for key in MASKS if key in item))
        findings += [Finding("note", split, mask, note) for mask, note in notes if note]
        valid, content, spread = _pixels(read_blocks(item["image"], channels, axis, index))
        deep = item_maximum(item)
        if not spread > 0:
            why = "image is blank: all pixels are equal" if valid.any() else "image holds no valid pixel"
            findings.append(Finding(blank, split, item["image"], why))
            content = None
    if "label" not in item:
        return _Seen(split, item, size, None, content, deep, tuple(findings))
    classes, known = read_labels(item["label"], label_values, axis, index, like=item.get("image"))
    valid = valid if known is None else valid & known
    if "fov" in item:
        valid = valid & (read_mask(item["fov"], axis, index, like=item.get("image")) > 0)
    share = float((classes[valid] > 0).mean()) if valid.any() else 0.0
    message = _about_share(share)
    if message:
        findings.append(Finding(blank if share in (0, 1) else "note", split, item["label"], message))
    return _Seen(split, item, size, share, content, deep, tuple(findings))


def _about_share(foreground: float) -> str | None:
    """What is worth saying of a mask's share of foreground."""
    if foreground in (0, 1):
        return f"mask is blank: all of it is {'foreground' if foreground else 'background'}"
    if max(foreground, 1 - foreground) > _NEARLY_ALL:
        return f"mask is nearly all one class: {foreground:.2%} foreground"
    return f"more than half of the mask is foreground: {foreground:.1%}" if foreground > 0.5 else None


def _orientations(split: Split, item: Item) -> Iterator[Finding]:
    """Notes on files with an orientation tag; of a volume, once."""
    for key in ("image", "label", "fov"):
        path = str({**item}.get(key, ""))
        tag = image_orientation(path) if path and not item.get("slice") else 1
        if tag != 1:
            what = "is passed over for its georeference" if image_kind(path) == "raster" else "is read upright"
            yield Finding("note", split, path, f"{key} has orientation tag {tag} and {what}")


def _duplicates(seen: Iterable[_Seen]) -> Iterator[Finding]:
    """Images with equal pixels; the later one is named."""
    by_content: dict[str, list[_Seen]] = defaultdict(list)
    for one in seen:
        if one.content:
            by_content[one.content].append(one)
    for first, *others in by_content.values():
        for other in others:
            path = first.item["image"]
            where = "twice" if first.split == other.split else f"in {first.split} and {other.split}: scores would leak"
            yield Finding("defect", other.split, other.item["image"], f"same image {where}; first as {path}")


def _shallow(seen: Iterable[_Seen]) -> Iterator[Finding]:
    """Pictures of 16 bit that fill fewer."""
    deep = [one for one in seen if one.deep is not None]
    bits = bits_for(one.deep for one in deep if one.split == "training") if deep else 16
    if bits < 16:
        brightest = max(deep, key=lambda one: one.deep or 0)
        yield Finding(
            "note",
            brightest.split,
            brightest.item["image"],
            f"pictures of 16 bit are dark: largest value {brightest.deep:,} of 65,535; training divides them by "
            f"{2**bits - 1:,} (bits {bits}) unless it is told another --scaling#bits",
        )


def _divided_groups(seen: Sequence[_Seen]) -> Iterator[Finding]:
    members: dict[str, list[_Seen]] = defaultdict(list)
    for one in seen:
        if "group" in one.item:
            members[one.item["group"]].append(one)
    for group, (first, *others) in members.items():
        splits = sorted({first.split, *(one.split for one in others)})
        if len(splits) > 1:
            message = f"group {group} is divided between {', '.join(splits)}"
            yield Finding("defect", first.split, first.item.get("image", group), message)
