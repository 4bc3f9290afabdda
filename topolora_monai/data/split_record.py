"""Which images a run learns from and is judged by, by name and content: written down, and held against later."""

import functools
import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from topolora_monai.data.items import MASKS, SPLITS, Item, Split
from topolora_monai.data.registry import SegmentationData
from topolora_monai.errors import DataError
from topolora_monai.io import volume_state
from topolora_monai.io.download import file_sha256

SPLIT_FILE = "split.json"
"""Name of the record in a run's folder."""

SplitRecord = dict[str, Any]
"""``root``, and for each split the SHA-256 of each file by its key, by the item's name, as
``{"root": "/scans", "training": {"a": {"image": "9f86d0...", "label": "60303a..."}}, ...}``."""

_logger = logging.getLogger(__name__)


def record_split(root: str | Path, **splits: Sequence[Item]) -> SplitRecord:
    """Name and content of every image and mask of the splits; each file is read once in a process.

    Raises:
        DataError: if a file cannot be read.
    """
    return {"root": str(root), **{split: _record(items) for split, items in splits.items()}}


def split_changes(before: SplitRecord, now: SplitRecord, splits: Iterable[Split] = SPLITS) -> list[str]:
    """What differs between two records, in words, one entry an image.

    Example:
        >>> before = {"training": {"a": {"image": "1"}, "b": {"image": "2"}}, "test": {}}
        >>> now = {"training": {"a": {"image": "3"}}, "test": {"b": {"image": "2"}}}
        >>> split_changes(before, now)
        ['a (training): other image', 'b: was for training, now for test']
    """
    was, now_in = ({name: split for split in SPLITS for name in record.get(split, {})} for record in (before, now))
    said = {}
    for split in splits:
        for name in sorted({*before.get(split, {}), *now.get(split, {})}):
            old, new = before.get(split, {}).get(name), now.get(split, {}).get(name)
            if old is None or new is None:
                there = f"was for {was[name]}" if name in was else "is new"
                here = f"now for {now_in[name]}" if name in now_in else "is gone"
                said[name] = f"{name}: {there}, {here}"
            elif old != new:
                other = [key for key in (*old, *(new.keys() - old)) if old.get(key) != new.get(key)]
                said[name] = f"{name} ({split}): other {', '.join(other)}"
    return list(said.values())


def some(said: Sequence[str], separator: str = ", ", most: int = 5) -> str:
    """The first of many things, and how many more there are.

    Example:
        >>> some("abc", most=2)
        'a, b and 1 more'
    """
    left = len(said) - most
    return separator.join(said[:most]) + (f" and {left} more" if left > 0 else "")


def check_unseen(adapter: str | Path, data: SegmentationData, items: Sequence[Item]) -> None:
    """Refuse to score images that an adapter was trained on, going by the record beside its file.

    The same content counts whatever its name and place, and the same name where the data set is the one trained on:
    in the same place, or with an image in common. Only logged are images that a published split has twice, what has
    changed among those recorded, and a record that is not there.

    Args:
        adapter: its file.
        data: what is scored.
        items: of it, for validation and test.

    Raises:
        DataError: if one was trained on, or the record is damaged.
    """
    path = Path(adapter).with_name(SPLIT_FILE)
    if not path.is_file():
        _logger.warning("not checked whether it was trained on these images: no %s beside %s", SPLIT_FILE, adapter)
        return
    record, now = _read(path), _record(items)
    trained: dict[str, str] = {files["image"]: name for name, files in record["training"].items()}
    known = {name: files for split in SPLITS for name, files in record[split].items()}
    same = record["root"] == str(data.root) or any(known.get(name) == files for name, files in now.items())
    published = "split_scheme" in data.describe()
    found = []
    for name, files in now.items():
        twin = trained.get(files["image"]) or (name if same and name in record["training"] else None)
        if twin is not None and published and any(record[s].get(name) == files for s in ("validation", "test")):
            _logger.warning("%s is in the training images as well, as %s: the published split has it twice", name, twin)
        elif twin is not None:
            found.append(name if twin == name else f"{name} (as {twin})")
    if found:
        raise DataError(
            "images to be scored were trained on",
            path=path,
            found=some(found),
            hint="take them out, or train again on today's training images; a datalist with a column split, or folders"
            " training, validation and test, say who belongs where",
        )
    if same:
        changed = [name for name, files in now.items() if known.get(name, files) != files]
        added = [name for name in now if name not in known]
        for what, names in (("other content", changed), ("new", added)):
            if names:
                _logger.warning("%s since training: %s", what, some(names))


def trained_on(adapter: str | Path) -> str | None:
    """Where the data lay that an adapter was trained on, going by the record beside its file; None without one.

    Raises:
        DataError: if they are not there any more, or the record is damaged.
    """
    path = Path(adapter).with_name(SPLIT_FILE)
    if not path.is_file():
        return None
    root: str = _read(path)["root"]
    if not Path(root).exists():
        raise DataError(
            "the data of this run are not where they lay in training",
            path=root,
            hint="give --dataset_dir the place where they are now",
        )
    return root


def _record(items: Iterable[Item]) -> dict[str, dict[str, str]]:
    return {
        item["name"]: {key: _content(item[key]) for key in ("image", *MASKS) if key in item}  # type: ignore[literal-required]
        for item in items
    }


def _content(path: str) -> str:
    """SHA-256 of a file, or of a folder's files by their names."""
    try:
        return _digest(path, volume_state(path))
    except OSError as error:
        raise DataError("file cannot be read", path=path, found=error.strerror) from error


@functools.cache
def _digest(path: str, state: tuple[tuple[str, int, int], ...]) -> str:
    """As :func:`_content`; the state makes a changed file another entry of the cache."""
    if not Path(path).is_dir():
        return file_sha256(path)
    files = [(name, file_sha256(Path(path) / name)) for name, *_ in state if (Path(path) / name).is_file()]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def _read(path: Path) -> SplitRecord:
    try:
        record: SplitRecord = json.loads(path.read_text(encoding="utf-8"))
        if not _is_record(record):
            raise ValueError("not a record of a split")
    except (OSError, ValueError) as error:
        raise DataError(
            "the record of what was trained on is damaged",
            path=path,
            found=str(error),
            hint="take the folder's copy from where it was trained; starting the training again writes it anew",
        ) from error
    return record


def _is_record(content: Any) -> bool:
    try:
        images = [files["image"] for split in SPLITS for files in content[split].values()]
        return all(isinstance(text, str) for text in (content["root"], *images))
    except (KeyError, TypeError, AttributeError, IndexError):
        return False
