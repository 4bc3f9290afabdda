"""Lists of images and masks: MONAI's datalists in JSON, and tables in CSV."""

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from topolora_monai.data.items import SPLITS, Item, Split, plain_stem
from topolora_monai.errors import DataError
from topolora_monai.io.regular import require_list, shortened, unusable_name

SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "training": ("training", "train"),
    "validation": ("validation", "val"),
    "test": ("test", "testing"),
}
"""What splits are called in lists and as folders, in lower case."""

_SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}
_COLUMNS = ("image", "label", "fov", "split", "group")


class Listing(NamedTuple):
    """Items by split, and, where a list divides those for training into folds, the items of each fold."""

    splits: dict[Split, list[Item]]
    folds: list[list[Item]]


def read_json_list(content: object, path: Path) -> Listing:
    """Items of a MONAI datalist, whose paths are relative to its own.

    It has ``training``, and optionally ``validation`` and ``test`` or ``testing``, lists of entries with ``image``,
    ``label`` and optionally ``fov``, ``group`` and, in ``training``, ``fold``. A list for test without any label, as
    the Medical Segmentation Decathlon's, is passed over. A ``DataError`` if the list is not of that form, or has an
    image twice.
    """
    if not isinstance(content, dict) or not isinstance(content.get("training"), list):
        raise DataError("datalist has no training list", path=path, expected='{"training": [{"image", "label"}, ...]}')
    if "test" in content and "testing" in content:
        raise DataError("datalist has two lists for test", path=path, expected="test or testing", found="both")
    rows: dict[Split, Any] = {
        split: next((content[name] for name in names if name in content), []) for split, names in SPLIT_NAMES.items()
    }
    for split, listed in rows.items():
        if not isinstance(listed, list):
            raise DataError(f"{split} is not a list", path=path, expected="[{...}, ...]", found=str(listed)[:100])
    if not any(isinstance(row, dict) and row.get("label") for row in rows["test"]):
        rows["test"] = []
    splits = {split: [_item(row, path, f"{split}[{n}]") for n, row in enumerate(rows[split])] for split in SPLITS}
    _check_listing(splits, path)
    folds = _folds([row.get("fold") for row in rows["training"]], splits["training"], path)
    return Listing({**splits, "training": []} if folds else splits, folds)


def read_csv_list(path: Path) -> Listing:
    """Items of a table with columns ``image``, ``label`` and optionally ``fov``, ``split`` and ``group``.

    Rows without a split are for training. Paths are relative to the table. A ``DataError`` if the table is not of that
    form, or has an image twice.
    """
    splits: dict[Split, list[Item]] = {split: [] for split in SPLITS}
    for number, row in _rows(path):
        name = (row.get("split") or "training").lower()
        if name not in _SPLIT_OF:
            raise DataError(
                f"unknown split in datalist (line {number})", path=path, expected=", ".join(_SPLIT_OF), found=name
            )
        splits[_SPLIT_OF[name]].append(_item(row, path, f"line {number}"))
    _check_listing(splits, path)
    return Listing(splits, [])


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and content of each row."""
    require_list(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.reader(file, strict=True)
            header = [cell.strip().lower() for cell in next(table, [])]
            rows = [(table.line_num, [cell.strip() for cell in row]) for row in table if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError("table cannot be read", path=path, expected="CSV in UTF-8", found=str(error)) from error
    if not {"image", "label"} <= set(header) or len(set(header)) < len(header):
        raise DataError(
            "table has other columns",
            path=path,
            expected=f"{','.join(_COLUMNS)}, of which image and label are needed",
            found=",".join(header) or "an empty file",
            hint="name the columns in the first line, and separate them by commas",
        )
    for number, row in rows:
        if len(row) > len(header):
            raise DataError(
                f"row has more cells than columns (line {number})",
                path=path,
                expected=len(header),
                found=len(row),
                hint="put cells with commas in quotation marks",
            )
    return [(number, dict(zip(header, row, strict=False))) for number, row in rows]


def _item(row: Any, path: Path, where: str) -> Item:
    needed = ("image", "label")
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) and row[key] for key in needed):
        raise DataError(f"datalist entry is incomplete ({where})", path=path, expected="image and label", found=row)
    image = _located(row["image"], path, where)
    item = Item(name=plain_stem(Path(image)), image=image, label=_located(row["label"], path, where))
    if row.get("fov"):
        item["fov"] = _located(str(row["fov"]), path, where)
    if row.get("group") not in (None, ""):
        item["group"] = str(row["group"])
    return item


def _located(file: str, path: Path, where: str) -> str:
    located = str((path.parent / file).absolute())
    unusable = unusable_name(located)
    if unusable:
        raise DataError(
            f"datalist entry names a file that cannot be ({where})",
            path=path,
            expected="the path of a file",
            found=f"{unusable}: {shortened(file)}",
            hint="correct the entry",
        )
    return located


def _check_listing(splits: Mapping[Split, Iterable[Item]], path: Path) -> None:
    seen: dict[str, Split] = {}
    grouped: dict[bool, str] = {}
    for split, items in splits.items():
        for item in items:
            image = os.path.realpath(item["image"])  # pathlib's fails on links that lead in a circle
            if image in seen:
                raise DataError(
                    f"image is listed twice: {item['image']}",
                    path=path,
                    expected="each image once",
                    found=f"in {seen[image]} and in {split}",
                    hint="take one out",
                )
            seen[image] = split
            grouped.setdefault("group" in item, item["image"])
    if len(grouped) == 2:
        raise DataError(
            f"image without group: {grouped[False]}",
            path=path,
            expected="a group for every image or for none",
            hint="fill it in",
        )


def _folds(numbers: list[Any], items: list[Item], path: Path) -> list[list[Item]]:
    """Items of each fold; none if nothing is said of folds."""
    if all(number is None for number in numbers):
        return []
    for number, item in zip(numbers, items, strict=True):
        if type(number) is not int or number < 0:
            raise DataError(
                f"image has no fold: {item['image']}",
                path=path,
                expected='"fold": an integer from 0, for every image of training or for none',
                found=number,
            )
    count = len(set(numbers))
    if max(numbers) >= count or count < 2:
        raise DataError(
            "folds are not numbered from 0 without gaps",
            path=path,
            expected="at least two folds, each with an image",
            found=", ".join(str(number) for number in sorted(set(numbers))),
        )
    return [[item for n, item in zip(numbers, items, strict=True) if n == fold] for fold in range(count)]
