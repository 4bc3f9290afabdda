"""Masks as class numbers, refusing what is ambiguous."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topolora_monai.errors import DataError
from topolora_monai.io.pictures import open_picture
from topolora_monai.io.rasters import is_raster, read_band_values
from topolora_monai.io.volumes import is_volume, read_slice

__all__ = ["UNLABELLED", "LabelValues", "Labels", "numbered", "read_labels", "read_mask"]

LabelValues = Mapping[int, int] | Literal["cut"]
"""Class number of each stored value, or ``"cut"`` for two classes with interpolated borders, divided at 127."""

UNLABELLED = -1
"""Class number, in an encoding, of pixels that nobody annotated."""

_CUT = 127
_LARGEST_GREY = 65535
_LOSSY_FORMATS = ("JPEG", "MPO")


def numbered(classes: Sequence[str]) -> LabelValues | None:
    """Encoding of masks that hold class numbers; None for two classes, whose masks are two-valued anyhow.

    Example:
        >>> numbered(["background", "cup", "window"])
        {0: 0, 1: 1, 2: 2}
    """
    return {number: number for number in range(len(classes))} if len(classes) > 2 else None


class Labels(NamedTuple):
    """Class numbers, uint8 (H, W), and where they are known, bool (H, W) or None for everywhere."""

    classes: NDArray[np.uint8]
    valid: NDArray[np.bool_] | None


def read_labels(
    path: str | Path, encoding: LabelValues | None = None, axis: int | None = None, index: int | None = None
) -> Labels:
    """Read a mask of known or of self-evident encoding.

    Args:
        path: a picture, raster or volume.
        encoding: class number of each stored value, :data:`UNLABELLED` for none; colours are written as
            ``0xRRGGBB``. ``"cut"`` for masks that were resampled. Without an encoding the mask has to be
            two-valued, see :func:`read_mask`.
        axis: of a volume, the one its slices are taken along.
        index: of the slice.

    Raises:
        DataError: if the file is damaged or holds other values.
    """
    if encoding is None:
        return Labels(read_mask(path, axis, index), None)
    if encoding == "cut":
        values, _ = _stored(path, axis, index)
        return Labels((values > _CUT if values.dtype != bool else values).astype(np.uint8), None)
    values, valid = _stored(path, axis, index, coloured=max(encoding) > _LARGEST_GREY)
    distinct = np.unique(values[valid])
    unknown = [value for value in distinct.tolist() if value not in encoding]
    if unknown:
        raise DataError(
            "mask has other values than expected",
            path=path,
            expected=_listed(np.array(sorted(encoding)), in_hexadecimal=max(encoding) > _LARGEST_GREY),
            found=_listed(distinct, in_hexadecimal=max(encoding) > _LARGEST_GREY),
            hint="check that this is the data set it is taken for",
        )
    classes = np.zeros(values.shape, np.uint8)
    for value in distinct.tolist():
        here = values == value
        if encoding[value] == UNLABELLED:
            valid = valid & ~here
        else:
            classes[here] = encoding[value]
    return Labels(classes, None if valid.all() else valid)


def read_mask(path: str | Path, axis: int | None = None, index: int | None = None) -> NDArray[np.uint8]:
    """Read a two-valued mask as 0 and 1.

    Accepted: 0/1, 0/255 or 0/any other single value, palette images by index, colour images whose channels
    agree, and JPEG masks, whose compression noise is cut at 127. A mask of zeros is empty, one of a single
    other value is full. NaN is 0.

    Args:
        path: a picture, raster or volume.
        axis: of a volume, the one its slices are taken along.
        index: of the slice.

    Returns:
        Array of shape (H, W), values 0 and 1.

    Raises:
        DataError: if the file is damaged or holds more than two values.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> file = Path(tempfile.mkdtemp()) / "mask.png"
        >>> Image.fromarray(np.uint8([[0, 255]])).save(file)
        >>> read_mask(file).tolist()
        [[0, 1]]
    """
    values, valid = _stored(path, axis, index)
    if values.dtype == bool:
        return values.astype(np.uint8)
    distinct = np.unique(values)
    if len(distinct) > 2 or (len(distinct) == 2 and distinct[0] != 0) or not valid[values != 0].all():
        raise DataError(
            "mask has other values than expected",
            path=path,
            expected="0 for background and one other value for foreground",
            found=f"{len(distinct)} values: {_listed(distinct)}",
            hint="threshold it, or keep one class, and save it as PNG",
        )
    mask: NDArray[np.uint8] = (values != 0).astype(np.uint8)
    return mask


def _stored(
    path: str | Path, axis: int | None, index: int | None, coloured: bool = False
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values as stored, and which are not nodata; those of lossy files are already cut in two."""
    if is_volume(path):
        if axis is None or index is None:
            raise DataError("mask is a volume", path=path, expected="a picture of one slice")
        values = read_slice(path, axis, index)
        known = np.isfinite(values)
        return np.where(known, values, 0), known
    if is_raster(path):
        return read_band_values(path)
    values = _colours(path) if coloured else _picture_values(path)
    return values, np.ones(values.shape, bool)


def _picture_values(path: str | Path) -> NDArray[Any]:
    image = open_picture(path)
    values = np.asarray(image)
    if image.mode == "P" and not values.any():  # a picture of one colour has one entry, whatever the colour
        return np.full_like(values, image.convert("L").getpixel((0, 0)) > _CUT)  # type: ignore[operator]
    if values.ndim == 3:
        colour = values[..., :3] if image.mode in ("RGB", "RGBA") else values[..., :1]
        if (colour != colour[..., :1]).any():
            raise DataError(
                "mask is a colour picture",
                path=path,
                expected="one value for background and one for foreground",
                found="channels that differ",
                hint="save the mask itself, not a coloured overlay",
            )
        values = colour[..., 0]
    return np.asarray(values > _CUT) if image.format in _LOSSY_FORMATS else values


def _colours(path: str | Path) -> NDArray[Any]:
    red, green, blue = np.asarray(open_picture(path).convert("RGB"), np.int32).transpose(2, 0, 1)
    return np.asarray((red << 16) | (green << 8) | blue)


def _listed(distinct: NDArray[Any], in_hexadecimal: bool = False) -> str:
    shown = [f"0x{value:06X}" if in_hexadecimal else str(value) for value in distinct[:6].tolist()]
    return ", ".join(shown) + (", ..." if len(distinct) > 6 else "")
