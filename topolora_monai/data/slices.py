"""Volumes as series of 2-D images."""

from __future__ import annotations

from topolora_monai.data.items import MASKS, Item
from topolora_monai.errors import DataError
from topolora_monai.io import default_axis, is_volume, shape_on_grid, slice_count

__all__ = ["expand_slices"]


def expand_slices(item: Item, axis: int | None = None) -> list[Item]:
    """One item for each slice of a volume; an item that is no volume comes back alone and unchanged.

    The slices are named ``NAME_s000``, ``NAME_s001``, ... from the first along ``axis``, and say by the keys
    ``axis`` and ``slice`` what to read of each of their files. They keep the item's ``group``; where it has
    none, the volume's name is their group, so that a volume never lies in two splits.

    Args:
        item: paths of an image and of its masks, if any. The field of view may be a volume or one picture for
            all slices.
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
