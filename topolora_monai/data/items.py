"""What a data set hands over: pairs of files with a name, and the checks they must pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypedDict

from topolora_monai.errors import DataError
from topolora_monai.io import (
    IMAGE_SUFFIXES,
    LabelValues,
    image_size,
    read_labels,
    read_mask,
    require_whole,
    size_on_grid,
)
from topolora_monai.io.regular import FOLDER, path_kind, require_file

__all__ = [
    "MASKS",
    "SPLITS",
    "Item",
    "Split",
    "check_item",
    "check_items",
    "image_files",
    "list_folder",
    "plain_stem",
    "require_unique",
    "without_fov",
]

Split = Literal["training", "validation", "test"]
SPLITS: tuple[Split, ...] = ("training", "validation", "test")
MASKS: tuple[Literal["label", "second_label", "fov"], ...] = ("label", "second_label", "fov")
"""Keys of an item's files that must lie on its image."""


class Item(TypedDict, total=False):
    """One annotated image. ``name`` and ``image`` are always there; paths are absolute strings.

    ``group`` names what must not be divided between splits, such as a patient; ``axis`` and ``slice`` choose
    one slice of a volume, for the image and its masks alike.
    """

    name: str
    image: str
    label: str
    fov: str
    second_label: str
    group: str
    axis: int
    slice: int


def plain_stem(path: Path) -> str:
    """File name without its image suffix and without ``.gz``.

    Example:
        >>> plain_stem(Path("im0001.ppm.gz"))
        'im0001'
    """
    name = path.name[:-3] if path.suffix.lower() == ".gz" else path.name
    return Path(name).stem


def image_files(folder: Path) -> list[Path]:
    """Image files of a folder in order of name; hidden and other files, and folders, are passed over.

    Raises:
        DataError: for what has the name of an image and is no file: a link that leads nowhere, a named pipe, a device.
    """
    named = [path for path in folder.iterdir() if _has_image_name(path) and path_kind(path) != FOLDER]
    for path in named:
        require_file(path)
    return sorted(named)


def list_folder(folder: Path, what: str) -> list[Path]:
    """Image files of a folder that must hold some.

    Raises:
        DataError: if the folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise DataError(f"folder of {what} not found", path=folder, hint="check dataset_dir and its layout")
    files = image_files(folder)
    if not files:
        raise DataError(f"folder of {what} holds no image", path=folder, expected=", ".join(IMAGE_SUFFIXES))
    return files


def check_items(items: Iterable[Item], label_values: LabelValues | None = None) -> None:
    """Open every file once: readable, masks of known values, of the image's size and place. To run before any epoch.

    Images that have a mask are also checked for fitting in memory, as training and scores take them whole.

    Args:
        items: what to check.
        label_values: of the data set, see :func:`~topolora_monai.io.read_labels`.

    Raises:
        DataError: for the first defect, naming its file.
    """
    for item in items:
        check_item(item, label_values)


def check_item(item: Item, label_values: LabelValues | None = None) -> None:
    """As :func:`check_items`, for one."""
    if "image" not in item:
        raise DataError("mask without image", path=item["label"], hint="complete the data set")
    axis, index = item.get("axis"), item.get("slice")
    size = image_size(item["image"], axis)
    if "label" in item:
        require_whole(item["image"])
    for key in MASKS:
        if key not in item:
            continue
        _check_size(item[key], item["image"], size, axis)  # first: a resized mask has too many values, too
        if key == "fov":
            read_mask(item[key], axis, index, like=item["image"])
        else:
            read_labels(item[key], label_values, axis, index, like=item["image"])


def without_fov(items: Sequence[Item], active: bool = True) -> list[Item]:
    """Items scored on whole images, as some published protocols do; unchanged where not ``active``."""
    if not active:
        return list(items)
    return [Item(**{key: value for key, value in item.items() if key != "fov"}) for item in items]  # type: ignore[typeddict-item]


def require_unique(paths: Sequence[Path], key: str, folder: Path, what: str) -> Path:
    """The one file that belongs to an image.

    Raises:
        DataError: if there is none, or more than one.
    """
    if len(paths) == 1:
        return paths[0]
    if not paths:
        raise DataError(
            f"image without {what}: {key}",
            path=folder,
            expected=f"one file of that name in {folder.name}",
            found="none",
            hint="add the missing file, or take the image out",
        )
    raise DataError(
        f"several files for one {what}: {key}",
        path=folder,
        expected="one",
        found=", ".join(path.name for path in paths),
        hint="keep the right one",
    )


def _check_size(mask: str, image: str, size: tuple[int, int], axis: int | None) -> None:
    found = size_on_grid(mask, image, axis)
    if found != size:
        raise DataError(
            "mask and image differ in size",
            path=mask,
            expected=f"{size[1]}x{size[0]} (width x height), as {image}",
            found=f"{found[1]}x{found[0]}",
            hint="export the mask at the image's own size",
        )


def _has_image_name(path: Path) -> bool:
    name = path.name.lower()
    return name.removesuffix(".gz").endswith(IMAGE_SUFFIXES) and not name.startswith(".")
