"""Opening every file of a data set and naming everything that would spoil training or scores."""

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
    align,
    image_kind,
    image_orientation,
    image_size,
    read_blocks,
    read_labels,
    read_mask,
)

_NEARLY_ALL = 0.995
"""A mask with a larger share of one class is worth a look, as is one that may be inverted."""


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


@dataclass
class _Seen:
    """One item after it was opened."""

    split: Split
    item: Item
    size: tuple[int, int] | None = None
    foreground: float | None = None
    content: str | None = None
    deep: int | None = None
    """Largest value of a picture of 16 bit."""
    findings: list[Finding] = field(default_factory=list)

    def find(self, kind: Literal["defect", "note"], path: str, message: str) -> None:
        self.findings.append(Finding(kind, self.split, path, message))


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
        >>> from pathlib import Path
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
        opened = pool.map(lambda one: _open(one[0], one[1], data, blank_is_legal), work)
        seen = list(tqdm(opened, total=len(work), desc="verifying", unit="image", disable=not progress))
    splits = {split: SplitFacts() for split in SPLITS}
    for one in seen:
        facts = splits[one.split]
        facts.images += 1
        facts.sizes |= {one.size} if one.size else set()
        facts.foreground += [one.foreground] if one.foreground is not None else []
    findings = dict.fromkeys(finding for one in seen for finding in one.findings)  # once for all slices of a volume
    return Verification(splits, [*findings, *_duplicates(seen), *_divided_groups(seen), *_shallow(seen)])


def _open(split: Split, item: Item, data: SegmentationData, blank_is_legal: bool) -> _Seen:
    seen = _Seen(split, item)
    try:
        if "image" in item:
            check_item(item, data.label_values)
        _look_at(seen, data, blank_is_legal)
    except DataError as error:
        seen = _Seen(split, item)
        seen.find("defect", item.get("image", item.get("label", "")), str(error))
    return seen


def _look_at(seen: _Seen, data: SegmentationData, blank_is_legal: bool) -> None:
    item = seen.item
    axis, index, image = item.get("axis"), item.get("slice"), item.get("image")
    blank: Literal["defect", "note"] = "note" if blank_is_legal or index is not None else "defect"
    seen.size = image_size(image or item["label"], axis)
    valid = np.ones(seen.size, bool)
    for kind in () if index else ("image", "label", "fov"):  # of a volume, once
        path = str({**item}.get(kind, ""))
        tag = image_orientation(path) if path else 1
        if tag != 1:
            what = "is passed over for its georeference" if image_kind(path) == "raster" else "is read upright"
            seen.find("note", path, f"{kind} has orientation tag {tag} and {what}")
    if image is not None:
        for mask in (item[key] for key in MASKS if key in item):
            note = align(mask, image).note
            if note:
                seen.find("note", mask, note)
        valid, digest, spread = _pixels(read_blocks(image, data.channels, axis, index))
        seen.deep = item_maximum(item)
        if spread > 0:
            seen.content = digest
        else:
            why = "image is blank: all pixels are equal" if valid.any() else "image holds no valid pixel"
            seen.find(blank, image, why)
    if "label" not in item:
        return
    classes, known = read_labels(item["label"], data.label_values, axis, index, like=image)
    valid = valid if known is None else valid & known
    if "fov" in item:
        valid = valid & (read_mask(item["fov"], axis, index, like=image) > 0)
    seen.foreground = share = float((classes[valid] > 0).mean()) if valid.any() else 0.0
    if share in (0, 1):
        seen.find(blank, item["label"], f"mask is blank: all of it is {'foreground' if share else 'background'}")
    elif max(share, 1 - share) > _NEARLY_ALL:
        seen.find("note", item["label"], f"mask is nearly all one class: {share:.2%} foreground")
    elif share > 0.5:
        seen.find("note", item["label"], f"more than half of the mask is foreground: {share:.1%}")


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
