"""A user's own images: folders paired by file name, or a CSV or JSON datalist."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np

from topolora_monai.data.items import SPLITS, Item, Split, image_files, list_folder, plain_stem, require_unique
from topolora_monai.errors import DataError

__all__ = ["Folder"]

_IMAGE_FOLDERS = ("images", "image")
_LABEL_FOLDERS = ("masks", "mask", "labels", "label")
_FOV_FOLDERS = ("fov",)
_SPLIT_FOLDERS = {"training": ("training", "train"), "validation": ("validation", "val"), "test": ("test",)}
_ALIASES = {alias: split for split, aliases in _SPLIT_FOLDERS.items() for alias in aliases}


class Folder:
    """Pairs of images and masks under one root.

    Recognised, in this order:

    - ``root`` is a ``.json`` file: a MONAI datalist, ``{"training": [{"image": ..., "label": ...}], ...}``;
    - ``root`` is a ``.csv`` file with columns ``image``, ``label`` and optionally ``fov`` and ``split``;
    - ``root/{training,validation,test}/{images,masks}`` (also ``train``, ``val``, ``labels``);
    - ``root/{images,masks}``.

    Masks belong to the image with the same stem. Paths in a list are relative to the list. What names no
    validation or test split is split by a seeded shuffle.

    Args:
        root: folder or list file.
        validation_fraction: of the images without a split of their own.
        test_fraction: likewise.
        seed: of the shuffle.

    Raises:
        DataError: if nothing usable is there, an image lacks its mask, or has several.
    """

    name = "folder"
    channels = 3

    def __init__(
        self, root: str | Path, validation_fraction: float = 0.2, test_fraction: float = 0.2, seed: int = 0
    ) -> None:
        self.root = Path(root).absolute()
        if not self.root.exists():
            raise DataError("data folder or list not found", path=self.root, hint="check --dataset_dir")
        self._splits = self._find()
        self._fill(validation_fraction, test_fraction, seed)

    def items(self, split: Split) -> list[Item]:
        """Annotated images of a split, in order of name."""
        return self._splits[split]

    def _find(self) -> dict[Split, list[Item]]:
        if self.root.is_file():
            readers = {".json": _read_json, ".csv": _read_csv}
            if self.root.suffix.lower() not in readers:
                raise DataError("not a datalist", path=self.root, expected="a folder, a .csv or a .json file")
            return readers[self.root.suffix.lower()](self.root)
        splits: dict[Split, list[Item]] = {split: [] for split in SPLITS}
        for split in SPLITS:
            for part in (self.root / alias for alias in _SPLIT_FOLDERS[split]):
                if part.is_dir():
                    splits[split] = _pairs(part)
        return splits if any(splits.values()) else {"training": _pairs(self.root), "validation": [], "test": []}

    def _fill(self, validation_fraction: float, test_fraction: float, seed: int) -> None:
        """Take missing validation and test images out of training."""
        pool = self._splits["training"]
        order = [int(i) for i in np.random.default_rng(seed).permutation(len(pool))]
        for split, fraction in (("validation", validation_fraction), ("test", test_fraction)):
            if not self._splits[split]:  # type: ignore[index]
                count = max(1, round(fraction * len(pool))) if fraction > 0 else 0
                taken, order = order[:count], order[count:]
                self._splits[split] = [pool[i] for i in sorted(taken)]  # type: ignore[index]
        self._splits["training"] = [pool[i] for i in sorted(order)]
        if not self._splits["training"]:
            raise DataError(
                "no image is left for training",
                path=self.root,
                found=f"{len(pool)} annotated images in all",
                hint="add images, or lower validation_fraction and test_fraction",
            )


def _pairs(part: Path) -> list[Item]:
    images = _subfolder(part, _IMAGE_FOLDERS)
    labels = _subfolder(part, _LABEL_FOLDERS)
    fovs = next((part / name for name in _FOV_FOLDERS if (part / name).is_dir()), None)
    by_stem = _by_stem(image_files(labels))
    fov_by_stem = _by_stem(image_files(fovs)) if fovs else {}
    items = []
    for stem, paths in _by_stem(list_folder(images, "images")).items():
        image = require_unique(paths, stem, images, "image")
        item = Item(name=stem, image=str(image), label=str(require_unique(by_stem.get(stem, []), stem, labels, "mask")))
        if fovs:
            item["fov"] = str(require_unique(fov_by_stem.get(stem, []), stem, fovs, "field of view"))
        items.append(item)
    return items


def _subfolder(part: Path, names: tuple[str, ...]) -> Path:
    found = [part / name for name in names if (part / name).is_dir()]
    if len(found) == 1:
        return found[0]
    content = sorted(path.name for path in part.iterdir())
    raise DataError(
        "this is not a folder of images and masks",
        path=part,
        expected=f"one of {', '.join(name + '/' for name in names)}",
        found=", ".join(content[:5]) + (", ..." if len(content) > 5 else "") if content else "an empty folder",
        hint="put images in images/ and masks of the same names in masks/, or give a CSV or JSON datalist",
    )


def _by_stem(files: Iterable[Path]) -> dict[str, list[Path]]:
    stems: dict[str, list[Path]] = {}
    for path in files:
        stems.setdefault(plain_stem(path), []).append(path)
    return stems


def _read_json(path: Path) -> dict[Split, list[Item]]:
    try:
        content = json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError("datalist is not valid JSON", path=path, found=str(error)) from error
    if not isinstance(content, dict) or not isinstance(content.get("training"), list):
        raise DataError("datalist has no training list", path=path, expected='{"training": [{"image", "label"}, ...]}')
    return {split: [_entry(row, path) for row in content.get(split, [])] for split in SPLITS}


def _read_csv(path: Path) -> dict[Split, list[Item]]:
    splits: dict[Split, list[Item]] = {split: [] for split in SPLITS}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            split = (row.pop("split", None) or "training").strip().lower()
            if split not in _ALIASES:
                raise DataError("unknown split in datalist", path=path, expected=", ".join(_ALIASES), found=split)
            splits[_ALIASES[split]].append(_entry(row, path))  # type: ignore[index]
    return splits


def _entry(row: Any, path: Path) -> Item:
    if not isinstance(row, dict) or not row.get("image") or not row.get("label"):
        raise DataError("datalist entry is incomplete", path=path, expected="image and label", found=row)
    files = {key: str((path.parent / row[key]).absolute()) for key in ("image", "label", "fov") if row.get(key)}
    return cast(Item, {"name": plain_stem(Path(files["image"])), **files})
