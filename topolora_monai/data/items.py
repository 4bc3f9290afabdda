"""What a data set hands over: pairs of files with a name, and the checks they must pass."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypedDict

from topolora_monai.errors import DataError
from topolora_monai.io import (
    IMAGE_SUFFIXES,
    LabelValues,
    default_axis,
    image_size,
    is_volume,
    read_labels,
    read_mask,
    require_whole,
    shape_on_grid,
    size_on_grid,
    slice_count,
)
from topolora_monai.io.regular import FOLDER, path_kind, require_file

Split = Literal["training", "validation", "test"]
SPLITS: tuple[Split, ...] = ("training", "validation", "test")
MASKS: tuple[Literal["label", "second_label", "fov"], ...] = ("label", "second_label", "fov")
"""Keys of an item's files that must lie on its image."""


class Item(TypedDict, total=False):
    """One annotated image. ``name`` and ``image`` are always there; paths are absolute strings.

    ``group`` names what must not be divided between splits, such as a patient, and stands in tables of scores; ``axis``
    and ``slice`` choose one slice of a volume, for the image and its masks alike.
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
    """File name without its image suffix and without ``.gz``; a folder's whole name.

    Example:
        >>> plain_stem(Path("im0001.ppm.gz"))
        'im0001'
    """
    if path.is_dir():  # a series of DICOM
        return path.name
    return Path(path.name[:-3] if path.suffix.lower() == ".gz" else path.name).stem


def image_files(folder: Path) -> list[Path]:
    """Image files of a folder in order of name; hidden and other files, and folders, are passed over.

    A ``DataError`` for what has the name of an image and is no file: a link that leads nowhere, a named pipe, a device.
    """
    named = [path for path in folder.iterdir() if _has_image_name(path) and path_kind(path) != FOLDER]
    for path in named:
        require_file(path)
    return sorted(named)


def scans_in(folder: Path) -> list[Path]:
    """Images and volumes of a folder, which may be folders of DICOM files, in order of name."""
    series = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".") and is_volume(path)]
    return sorted([*image_files(folder), *series])


def check_items(items: Iterable[Item], label_values: LabelValues | None = None) -> None:
    """Open every file once: readable, masks of known values, of the image's size and place. To run before any epoch.

    Images that have a mask are also checked for fitting in memory, as training and scores take them whole.

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


def expand_slices(item: Item, axis: int | None = None) -> list[Item]:
    """One item for each slice of a volume; an item that is no volume comes back alone and unchanged.

    The slices are named ``NAME_s000``, ``NAME_s001``, ... and have ``axis`` and ``slice``. Where the item has no
    ``group``, its name is theirs, so that a volume never lies in two splits.

    Args:
        item: its field of view may be a volume or one picture for all slices.
        axis: that the slices are taken along: 0, 1 or 2; by default the volume's own choice, see
            :func:`~topolora_monai.io.default_axis`.

    Raises:
        DataError: if a volume's mask is none, or has another number of slices, or the other way round.

    Example:
        >>> expand_slices({"name": "a", "image": "a.png"})
        [{'name': 'a', 'image': 'a.png'}]
    """
    if not is_volume(item["image"]):
        for key in MASKS:
            if key in item and is_volume(item[key]):
                raise _mismatch(item[key], "a picture", "a volume", item["image"])
        return [item]
    axis = default_axis(item["image"]) if axis is None else axis
    count = slice_count(item["image"], axis)
    _check_masks(item, axis, count)
    digits = max(3, len(str(count - 1)))
    group = item.get("group", item["name"])
    return [
        Item(**{**item, "name": f"{item['name']}_s{i:0{digits}d}", "group": group, "axis": axis, "slice": i})
        for i in range(count)
    ]


def without_fov(items: Sequence[Item], active: bool = True) -> list[Item]:
    """Items scored on whole images, as some published protocols do; unchanged where not ``active``."""
    if not active:
        return list(items)
    return [Item(**{key: value for key, value in item.items() if key != "fov"}) for item in items]  # type: ignore[typeddict-item]


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


def _check_masks(item: Item, axis: int, count: int) -> None:
    for key in MASKS:
        if key not in item:
            continue
        mask: str = item[key]
        if not is_volume(mask):
            if key != "fov":
                raise _mismatch(mask, "a volume", "a picture", item["image"])
            continue
        found = shape_on_grid(mask, item["image"])[axis]
        if found != count:
            raise _mismatch(mask, f"{count} slices along axis {axis}", f"{found} slices", item["image"])


def _mismatch(mask: str, expected: str, found: str, image: str) -> DataError:
    return DataError(
        "mask and image do not belong together",
        path=mask,
        expected=f"{expected}, as {image}",
        found=found,
        hint="give the mask that was drawn on this image",
    )
