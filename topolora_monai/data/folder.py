"""A user's own images: folders paired by file name, a CSV or JSON datalist, or annotation files."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from topolora_monai.data.annotation_files import load_json
from topolora_monai.data.benchmark import Modality
from topolora_monai.data.coco import is_coco, read_coco
from topolora_monai.data.datalists import SPLIT_NAMES, Listing, read_csv_list, read_json_list
from topolora_monai.data.folds import cross_validation, fold_parts, groups_from_names, random_splits
from topolora_monai.data.items import SPLITS, Item, Split, expand_slices
from topolora_monai.data.layout import find_folder
from topolora_monai.data.pairing import read_part
from topolora_monai.errors import ConfigError, DataError
from topolora_monai.io import numbered
from topolora_monai.io.regular import require_file
from topolora_monai.transforms.intensity import PixelValues

_logger = logging.getLogger(__name__)


class Folder:
    r"""Pairs of images and masks under one root.

    Recognised, in this order:

    - ``root`` is a ``.json`` file of COCO's, see :func:`~topolora_monai.data.coco.read_coco`;
    - ``root`` is another ``.json`` file: a MONAI datalist, see :func:`~topolora_monai.data.datalists.read_json_list`;
    - ``root`` is a ``.csv`` file with columns ``image``, ``label`` and optionally ``fov``, ``split``, ``group``;
    - ``root/{training,validation,test}``, each as the following (also ``train``, ``val``, ``testing``);
    - ``root/{images,masks}`` (also ``labels``) and optionally ``root/fov``, ``root`` with images and labelme's JSON
      files side by side, or with images and masks, see :func:`~topolora_monai.data.pairing.read_part`.

    Upper and lower case are alike in names of folders and in suffixes. Paths in a list are relative to the list.

    A volume (NIfTI, DICOM folder, ...) counts as its slices, all in one split. So do images of one group, such as a
    patient; groups come from the list or from ``group_pattern``.

    What names no validation or test split is split by a hash of each image's or group's name, so that images which are
    added move none that was there, see :func:`~topolora_monai.data.folds.random_splits`; the shares reached are
    logged. With ``folds``, or a datalist with ``fold`` in each entry, it is one round of a cross-validation, see
    :func:`~topolora_monai.data.folds.cross_validation`; of two folds, ``validation_fraction`` of the other one is for
    validation.

    Args:
        root: folder or list file.
        validation_fraction: of the images without a split of their own.
        test_fraction: likewise.
        seed: of the hash, and of the folds.
        folds: number of folds, at least 2.
        fold: number of the round, from 0.
        group_pattern: regular expression that fits the whole name of each image, its one group in parentheses
            being the image's group, for example ``Image_(\d+)[LR]`` for two eyes of a patient.
        axis: that volumes are sliced along; by default each volume's own, see
            :func:`~topolora_monai.data.items.expand_slices`.
        categories: of COCO's or labelme's annotations, those that are foreground; all by default.
        line_width: of lines that labelme drew, in pixels.
        classes: names, the background first, of masks that hold class numbers.
        ignore: value in masks of pixels that nobody annotated.

    Raises:
        DataError: if nothing usable is there, an image lacks its mask or has several, or a group lies in two
            splits.
        ConfigError: if a setting is impossible, or does not fit what is there.
    """

    name = "folder"
    channels = 3
    modality: Modality = "optical"
    pixel_values: PixelValues = "linear"

    def __init__(
        self,
        root: str | Path,
        validation_fraction: float = 0.2,
        test_fraction: float = 0.2,
        seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        group_pattern: str | None = None,
        axis: int | None = None,
        categories: Sequence[str] | None = None,
        line_width: float | None = None,
        classes: Sequence[str] = ("background", "foreground"),
        ignore: int | None = None,
    ) -> None:
        self.root = Path(root).absolute()
        self.classes = tuple(classes)
        self.label_values = numbered(classes, ignore)
        chosen = {"folds": folds, "fold": fold if folds else None, "group_pattern": group_pattern, "ignore": ignore}
        self._chosen = {key: value for key, value in chosen.items() if value is not None}
        require_file(self.root, missing="data folder or list not found", hint="check --dataset_dir", folders=True)
        found = _map(_find(self.root, categories, line_width), _names_apart)
        if group_pattern is not None:
            found = _map(found, lambda items: _grouped(items, group_pattern))
        _check_groups_apart(found, self.root)
        found = _map(found, lambda items: [each for item in items for each in expand_slices(item, axis)])
        if folds is not None or found.folds:
            self._splits = _round(found, folds, fold, validation_fraction, seed, self.root)
        elif fold != 0:
            raise ConfigError("fold without folds", expected="folds, the number of folds", found=f"fold {fold}")
        else:
            self._splits = _filled(found.splits, {"validation": validation_fraction, "test": test_fraction}, seed)
        if not self._splits["training"]:
            items = [item for split in SPLITS for item in self._splits[split]]
            groups = {item.get("group", item["name"]) for item in items}
            raise DataError(
                "no image is left for training",
                path=self.root,
                found=f"{len(items)} annotated images in all, in {len(groups)} groups",
                hint="add images, or lower validation_fraction and test_fraction",
            )

    def items(self, split: Split) -> list[Item]:
        """Annotated images of a split, in order of name."""
        return self._splits[split]

    def describe(self) -> dict[str, Any]:
        """``dataset``, and ``folds``, ``fold``, ``group_pattern`` and ``ignore`` where they were given."""
        return {"dataset": self.name, **self._chosen}


def _find(root: Path, categories: Sequence[str] | None, line_width: float | None) -> Listing:
    def all_for_training(items: list[Item]) -> Listing:
        return Listing({"training": items, "validation": [], "test": []}, [])

    if root.is_file():
        if root.suffix.lower() == ".csv":
            return read_csv_list(root)
        if root.suffix.lower() != ".json":
            raise DataError("not a datalist", path=root, expected="a folder, a .csv or a .json file")
        content = load_json(root)
        if is_coco(content):
            return all_for_training(read_coco(root, categories))
        return read_json_list(content, root)
    parts = {split: find_folder(root, *names) for split, names in SPLIT_NAMES.items()}
    if not any(parts.values()):
        return all_for_training(read_part(root, categories, line_width))
    return Listing({split: read_part(at, categories, line_width) if at else [] for split, at in parts.items()}, [])


def _map(found: Listing, change: Callable[[list[Item]], list[Item]]) -> Listing:
    return Listing({split: change(items) for split, items in found.splits.items()}, [change(f) for f in found.folds])


def _names_apart(items: list[Item]) -> list[Item]:
    """Add as many folders to names as tell equal ones apart, since results are files of these names."""
    repeated = {name for name, count in Counter(item["name"] for item in items).items() if count > 1}
    parents = [Path(item["image"]).parent for item in items if item["name"] in repeated]
    common = os.path.commonpath(parents) if parents else ""
    names = [
        "_".join((*Path(item["image"]).parent.relative_to(common).parts, item["name"]))
        if item["name"] in repeated
        else item["name"]
        for item in items
    ]
    for name, count in Counter(names).items():
        if count > 1:
            paths = [item["image"] for item, other in zip(items, names, strict=True) if other == name]
            raise DataError(f"several images are named {name}", found=", ".join(paths), hint="rename all but one")
    return [Item(**{**item, "name": name}) for item, name in zip(items, names, strict=True)]


def _grouped(items: list[Item], pattern: str) -> list[Item]:
    if any("group" in item for item in items):
        raise ConfigError("group_pattern is given, but the list has groups", expected="one of both", found=pattern)
    groups = groups_from_names([item["name"] for item in items], pattern)
    return [Item(**{**item, "group": group}) for item, group in zip(items, groups, strict=True)]


def _check_groups_apart(found: Listing, root: Path) -> None:
    """Refuse a group in two splits, or folds, that are given: it would be trained on and scored."""
    parts = [*found.splits.items(), *((f"fold {number}", items) for number, items in enumerate(found.folds))]
    first: dict[str, tuple[str, str]] = {}
    for part, item in ((part, item) for part, items in parts for item in items if "group" in item):
        before, name = first.setdefault(item["group"], (part, item["name"]))
        if before != part:
            raise DataError(
                f"images of group {item['group']} are in two splits",
                path=root,
                expected="each group in one",
                found=f"{name} in {before}, {item['name']} in {part}",
                hint="move all images of the group to one of them",
            )


def _round(
    found: Listing, folds: int | None, fold: int, validation_fraction: float, seed: int, root: Path
) -> dict[Split, list[Item]]:
    """Splits of one round of a cross-validation."""
    if found.splits["validation"]:
        raise DataError(
            "folds, but images for validation are given",
            path=root,
            expected="images for training, and for test if need be",
            found=f"{len(found.splits['validation'])} images for validation",
            hint="count them as training, or use no folds",
        )
    if found.folds and folds not in (None, len(found.folds)):
        raise ConfigError(
            "the datalist has another number of folds", path=root, expected=len(found.folds), found=f"folds {folds}"
        )
    parts = found.folds or fold_parts(found.splits["training"], folds or 0, seed)
    test = found.splits["test"] or None
    alone = test is None and len(parts) == 2
    return cross_validation(parts, fold, test, validation_fraction if alone else None, seed)


def _filled(splits: Mapping[Split, list[Item]], fractions: Mapping[Split, float], seed: int) -> dict[Split, list[Item]]:
    """Take missing validation and test images out of training."""
    missing = {split: fraction for split, fraction in fractions.items() if not splits[split]}
    drawn = random_splits(splits["training"], missing, seed)
    if missing:
        _logger.info("%s", _shares(drawn, missing))
    given = {split: sorted(splits[split], key=lambda item: item["name"]) for split in fractions if splits[split]}
    return {**drawn, **given}


def _shares(drawn: Mapping[Split, Sequence[Item]], fractions: Mapping[Split, float]) -> str:
    """How many images each split got, and how many were asked for.

    Example:
        >>> item = Item(name="a", image="a.png")
        >>> _shares({"training": [item] * 4, "validation": [item], "test": []}, {"validation": 0.25})
        '5 images: 4 training, 1 validation (asked for 75/25 %)'
    """
    asked: dict[Split, float] = {"training": 1 - sum(fractions.values()), **fractions}
    counts = ", ".join(f"{len(drawn[split])} {split}" for split in asked)
    shares = "/".join(f"{100 * share:.0f}" for share in asked.values())
    return f"{sum(len(drawn[split]) for split in asked)} images: {counts} (asked for {shares} %)"
