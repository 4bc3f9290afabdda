"""Masks as class numbers, refusing what is ambiguous; :func:`read_labels` has the whole rule."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from topolora_monai.errors import ConfigError, DataError
from topolora_monai.io.geometry import Alignment, align
from topolora_monai.io.pictures import open_picture, palette_colours, shows_zero_as_white
from topolora_monai.io.rasters import is_raster, read_band_values
from topolora_monai.io.tiff_pages import page_palette
from topolora_monai.io.volumes import is_volume, read_slice

LabelValues = Mapping[int, int] | Literal["cut"]
"""Class number of each stored value, or ``"cut"`` for two classes with interpolated borders, divided at 127.

A mapping that names no class but only values that are :data:`UNLABELLED` is for masks that are two-valued otherwise.
"""

UNLABELLED = -1
"""Class number, in an encoding, of pixels that nobody annotated."""

_CUT = 127
_LARGEST_GREY = 65535
_LOSSY_FORMATS = ("JPEG", "MPO")
_WHITEST = {"1": 1, "L": 255, "I;16": 65535, "I;16B": 65535, "I;16L": 65535}
"""Largest sample by Pillow's mode."""
_LUMINANCE = np.array([299, 587, 114])
"""Thousandths of red, green and blue, ITU-R 601; whole numbers, so that equal is equal."""
_CODE = np.array([1 << 16, 1 << 8, 1], np.int32)
"""Makes ``0xRRGGBB`` of colours."""
_TWO_VALUES = "0 for background and one other value for foreground"
_WAYS_OUT = (
    "for several classes give --classes, a list of their names with the background first; "
    "for a value that nobody annotated give --ignore; otherwise threshold it and save it as PNG"
)


def numbered(classes: Sequence[str], ignore: int | None = None, known: LabelValues | None = None) -> LabelValues | None:
    """Encoding of masks that hold the numbers of ``classes``, whose first is the background; None for two classes.

    Masks of two classes are two-valued anyhow.

    Args:
        classes: their names.
        ignore: value of pixels that nobody annotated, which are left out of loss and scores.
        known: a data set's own encoding, which is taken in place of numbers.

    Raises:
        ConfigError: if ``ignore`` is no whole number, is the number of a class, or comes with a known encoding, which
            says already what is not labelled.

    Example:
        >>> numbered(["background", "cup", "window"], ignore=255)
        {0: 0, 1: 1, 2: 2, 255: -1}
        >>> numbered(["background", "road"], ignore=255)
        {255: -1}
    """
    if ignore is not None and (isinstance(ignore, bool) or not isinstance(ignore, int)):
        raise ConfigError("ignore is not a value of masks", expected="a whole number, such as 255", found=repr(ignore))
    if known is not None:
        if ignore is not None:
            raise ConfigError(
                "this data set says itself what is not labelled", found=f"ignore {ignore}", hint="leave ignore out"
            )
        return known
    numbers = {number: number for number in range(len(classes))} if len(classes) > 2 else {}
    if ignore in numbers:
        raise ConfigError(
            "ignore is the number of a class",
            expected=f"another value than 0 to {len(classes) - 1}",
            found=f"{ignore}, which is {classes[numbers[ignore]]}",
            hint="leave it out, or give another value",
        )
    unlabelled = {} if ignore is None else {ignore: UNLABELLED}
    return {**numbers, **unlabelled} or None


class Labels(NamedTuple):
    """Class numbers, uint8 (H, W), and where they are known, bool (H, W) or None for everywhere."""

    classes: NDArray[np.uint8]
    valid: NDArray[np.bool_] | None


def read_labels(
    path: str | Path,
    encoding: LabelValues | None = None,
    axis: int | None = None,
    index: int | None = None,
    like: str | Path | None = None,
) -> Labels:
    """Read a mask of known or of self-evident encoding.

    Two-valued masks count as what the file shows, by the palette or the photometric interpretation of TIFF, without
    transparency: the darker value is the background if it is stored as 0, is black, or lies in the darkest quarter of
    the scale and the brighter one in the brightest (of 255, or of 65535 for larger values). One value alone is
    foreground if it is brighter than the middle or stored as 1, and background if it is black or stored as 0. All else
    is refused: two colours of equal brightness, and 1 with 2, which may be two classes.

    Class numbers count as stored: of palettes the indices, of TIFF the samples. Where the file shows grey levels that
    could be the numbers (as a GIF does, whose writers renumber the palette), what fits the encoding is taken; a mask is
    refused where both do and differ. JPEG keeps no numbers, and is refused.

    Pixels that are nodata are not known. Zeros are, also of a mask that declares 0 as nodata.

    Args:
        path: a picture, raster or volume.
        encoding: class number of each stored value, :data:`UNLABELLED` for none; colours are written as
            ``0xRRGGBB``. ``"cut"`` for masks that were resampled. Without an encoding, or with one that names no class,
            the mask has to be two-valued.
        axis: of a volume, the one its slices are taken along.
        index: of the slice.
        like: the image, whose grid the mask is brought to, see :func:`~topolora_monai.io.align`; axis and index are
            then the image's.

    Raises:
        DataError: if the file is damaged, holds other values, can be understood in two ways, or lies elsewhere than
            its image.
    """
    if encoding == "cut":
        stored = _stored(path, axis, index, like)
        return Labels((_luminance(stored, stored.values) > _CUT).astype(np.uint8), None)
    if encoding is None or all(number == UNLABELLED for number in encoding.values()):
        unlabelled = encoding or {}
        return _two_valued(_stored(path, axis, index, like, numbers=bool(unlabelled)), unlabelled, path)
    if max(encoding) > _LARGEST_GREY:
        codes = np.asarray(open_picture(path).convert("RGB")) @ _CODE
        return _encoded(path, _Stored(codes, np.ones(codes.shape, bool)), encoding)
    return _encoded(path, _stored(path, axis, index, like, numbers=True), encoding)


def read_mask(
    path: str | Path, axis: int | None = None, index: int | None = None, like: str | Path | None = None
) -> NDArray[np.uint8]:
    """Read a two-valued mask as 0 and 1, by the rule of :func:`read_labels`.

    Accepted: 0/1, 0/255 or 0/any other single value, two values or colours of clear contrast, and JPEG masks, whose
    compression noise is cut at 127. NaN is 0.

    Arguments are those of :func:`read_labels`.

    Returns:
        Array of shape (H, W), values 0 and 1.

    Raises:
        DataError: as :func:`read_labels`, or if it is not known everywhere.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> file = Path(tempfile.mkdtemp()) / "mask.png"
        >>> Image.fromarray(np.uint8([[0, 255]])).save(file)
        >>> read_mask(file).tolist()
        [[0, 1]]
    """
    stored = _stored(path, axis, index, like)
    if not stored.valid[stored.values != 0].all():
        raise DataError(
            "mask has pixels that are nodata",
            path=path,
            expected=_TWO_VALUES,
            found=f"{np.count_nonzero(~stored.valid)} pixels of nodata",
            hint="save it with 0 and 1",
        )
    return _two_valued(stored, {}, path).classes


class _Stored(NamedTuple):
    """A mask (H, W) as it is stored, which pixels are not nodata, and the colours (N, 3) that the values show.

    ``shows`` is None where values are grey levels themselves.
    """

    values: NDArray[Any]
    valid: NDArray[np.bool_]
    shows: NDArray[np.int64] | None = None


def _two_valued(stored: _Stored, unlabelled: Mapping[int, int], path: str | Path) -> Labels:
    for value in unlabelled:
        stored = _without(stored, value, path)
    foreground = _foreground(np.unique(stored.values[stored.valid]), stored, path)
    mask: NDArray[np.uint8] = (np.isin(stored.values, foreground) & stored.valid).astype(np.uint8)
    return Labels(mask, None if stored.valid.all() else stored.valid)


def _foreground(distinct: NDArray[Any], stored: _Stored, path: str | Path) -> list[Any]:
    """Which of at most two stored values are foreground."""
    if len(distinct) == 0:
        return []
    brightness = _luminance(stored, distinct)
    order = np.argsort(brightness, kind="stable")
    (dark, bright), (value, other) = brightness[order[[0, -1]]], distinct[order[[0, -1]]].tolist()
    white = 255 if bright <= 255 else _LARGEST_GREY
    apart = 0 <= dark <= white / 4 and white * 3 / 4 <= bright <= white
    if len(distinct) == 1:
        if white / 2 < bright <= white:
            return [value]
        if dark == 0 or value == 0:
            return []
        if value == 1:
            return [value]
    elif len(distinct) == 2 and dark < bright and (value == 0 or dark == 0 or apart):
        return [other]
    raise DataError(
        "mask has other values than expected"
        if len(distinct) > 2
        else "it is not clear what in the mask is foreground",
        path=path,
        expected=f"{_TWO_VALUES}, or two values of clear contrast",
        found=f"{len(distinct)} value{'s' if len(distinct) > 1 else ''}: {_listed(distinct)}{_shown(stored, distinct)}",
        hint=_WAYS_OUT,
    )


def _encoded(path: str | Path, stored: _Stored, encoding: Mapping[int, int]) -> Labels:
    in_hexadecimal = max(encoding) > _LARGEST_GREY
    readings = _readings(stored)
    fitting = [values for values in readings if np.isin(np.unique(values[stored.valid]), list(encoding)).all()]
    values, valid = (fitting or readings)[0], stored.valid
    distinct = np.unique(values[valid])
    if not fitting:
        raise DataError(
            "mask has other values than expected",
            path=path,
            expected=_listed(np.array(sorted(encoding)), in_hexadecimal),
            found=_listed(distinct, in_hexadecimal),
            hint=f"check that this is the data set it is taken for; {_WAYS_OUT}",
        )
    if len(fitting) > 1 and not np.array_equal(fitting[0][valid], fitting[1][valid]):
        raise _two_readings(path, f"numbers {_listed(distinct)}{_shown(stored, distinct)}")
    classes = np.zeros(values.shape, np.uint8)
    for value in distinct.tolist():
        here = values == value
        if encoding[value] == UNLABELLED:
            valid = valid & ~here
        else:
            classes[here] = encoding[value]
    return Labels(classes, None if valid.all() else valid)


def _without(stored: _Stored, ignored: int, path: str | Path) -> _Stored:
    """Not known where a value is stored, or, as a GIF may have it, shown."""
    places = [place for place in (values == ignored for values in _readings(stored)) if place.any()]
    if len(places) > 1 and not np.array_equal(*places):
        raise _two_readings(path, f"both an index and a grey level of {ignored}, the value to ignore")
    return stored._replace(valid=stored.valid & ~places[0]) if places else stored


def _readings(stored: _Stored) -> list[NDArray[Any]]:
    """What class numbers may be: values as stored, and grey levels that are shown in their place."""
    if stored.shows is None:
        return [stored.values]
    indices = stored.values.astype(np.int64)
    used = stored.shows[np.unique(indices)]
    return [stored.values] if (used != used[:, :1]).any() else [stored.values, stored.shows[:, 0][indices]]


def _two_readings(path: str | Path, found: str) -> DataError:
    return DataError(
        "mask can be understood in two ways",
        path=path,
        expected="class numbers, either stored or shown",
        found=found,
        hint="save the class numbers as a grey PNG",
    )


def _stored(
    path: str | Path, axis: int | None, index: int | None, like: str | Path | None, numbers: bool = False
) -> _Stored:
    """Values as stored; those of lossy files are already cut in two, which is no way to keep ``numbers``."""
    if is_volume(path):
        if axis is None or index is None:
            raise DataError("mask is a volume", path=path, expected="a picture of one slice")
        values = read_slice(path, axis, index, None if like is None else align(path, like).bring)
        known = np.isfinite(values)
        return _Stored(np.where(known, values, 0), known, page_palette(path))
    if is_raster(path):
        bring = (Alignment() if like is None else align(path, like)).bring
        samples, known, shows = read_band_values(path)
        return _Stored(bring(samples), bring(known), shows)
    values, shows = _picture_values(path, numbers)
    return _Stored(values, np.ones(values.shape, bool), shows)


def _picture_values(path: str | Path, numbers: bool) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    image = open_picture(path)
    if image.format in _LOSSY_FORMATS:
        if numbers:
            raise DataError(
                "JPEG does not keep class numbers", path=path, expected="PNG or TIFF", hint="save the mask as PNG"
            )
        return _cut_in_two(_grey(image, path), path), None
    if image.mode in ("P", "PA"):
        indices = np.asarray(image).reshape(image.height, image.width, -1)[..., 0]
        return indices, palette_colours(image)
    values = np.asarray(image)
    if values.ndim == 3:
        values = _grey(image, path, two_colours=not numbers)
    if shows_zero_as_white(image) and image.mode in _WHITEST:
        return _as_samples(values, _WHITEST[image.mode])
    return values.astype(np.uint8) if values.dtype == bool else values, None


def _grey(image: Image.Image, path: str | Path, two_colours: bool = False) -> NDArray[Any]:
    """Grey levels of a picture; where they are taken, the brightness of two colours."""
    colours = np.asarray(image.convert("RGB"))
    if (colours == colours[..., :1]).all():
        return colours[..., 0]
    brightness: NDArray[np.float64] = (colours @ _LUMINANCE) / 1000
    count = len(np.unique(colours @ _CODE))
    if two_colours and len(np.unique(brightness)) == count <= 2:
        return brightness
    raise DataError(
        "mask is a colour picture",
        path=path,
        expected="one value for background and one for foreground",
        found=f"{count} colours" + (" of equal brightness" if two_colours and count == 2 else ""),
        hint="save the mask itself, not a coloured overlay",
    )


def _cut_in_two(values: NDArray[Any], path: str | Path) -> NDArray[np.uint8]:
    """Lossy values as 0 and 255; noise lies at edges, which have both sides of the cut."""
    low, high = int(values.min()), int(values.max())
    if low < high and (low > _CUT or high <= _CUT):
        raise DataError(
            "it is not clear what in the mask is foreground",
            path=path,
            expected=f"a JPEG that is darker and brighter than {_CUT}",
            found=f"values from {low} to {high}",
            hint="save the mask as PNG",
        )
    return np.where(values > _CUT, 255, 0).astype(np.uint8)


def _as_samples(values: NDArray[Any], largest: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """What a TIFF that shows zero as white stores, which Pillow inverts up to 8 bits, and what it shows."""
    levels = np.arange(largest, -1, -1) * (255 if largest == 1 else 1)
    samples = largest - values.astype(np.int64) if largest <= 255 else values
    return samples, np.repeat(levels[:, None], 3, axis=1)


def _luminance(stored: _Stored, values: NDArray[Any]) -> NDArray[Any]:
    """Brightness that stored values show."""
    if stored.shows is None:
        return values
    brightness: NDArray[np.float64] = (stored.shows @ _LUMINANCE) / 1000
    return brightness[values.astype(np.int64)]


def _listed(distinct: NDArray[Any], in_hexadecimal: bool = False) -> str:
    shown = [f"0x{value:06X}" if in_hexadecimal else str(value) for value in distinct[:6].tolist()]
    return ", ".join(shown) + (", ..." if len(distinct) > 6 else "")


def _shown(stored: _Stored, distinct: NDArray[Any]) -> str:
    if stored.shows is None:
        return ""
    colours = stored.shows[distinct[:6].astype(np.int64)].tolist()
    return ", shown as " + ", ".join(str(c[0]) if len(set(c)) == 1 else f"({c[0]}, {c[1]}, {c[2]})" for c in colours)
