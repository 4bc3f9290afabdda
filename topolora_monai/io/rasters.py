"""Rasters that Pillow cannot represent: floating point, other numbers of bands, georeference; by rasterio."""

from __future__ import annotations

import contextlib
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from topolora_monai.errors import ConfigError, DataError
from topolora_monai.extras import import_extra
from topolora_monai.io.pictures import TiffHeader
from topolora_monai.io.regular import FILE, path_kind, require_file

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

_TIFF_SUFFIXES = (".tif", ".tiff")
_GEO_TAGS = {33550, 33922, 34264, 34735}
"""ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory of the GeoTIFF standard."""
_ORIENTATION, _SAMPLES_PER_PIXEL, _SAMPLE_FORMAT = 274, 277, 339
_SIGNED_OR_FLOAT = {2, 3}
_PICTURE_BANDS = (1, 3, 4)
_COLOURS = ("red", "green", "blue")


def is_raster(path: str | Path) -> bool:
    """Whether a file is a TIFF with georeference, float or signed values, or a number of bands no picture has.

    Only the header is read. A file that is no TIFF at all is none.
    """
    path = Path(path)
    if path.suffix.lower() not in _TIFF_SUFFIXES or path_kind(path) != FILE:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with TiffHeader(path) as image:
                tags: Any = image.tag_v2
                if _GEO_TAGS & set(tags):
                    return True
                formats = tags.get(_SAMPLE_FORMAT, (1,))
                return bool(_SIGNED_OR_FLOAT & set(formats)) or tags.get(_SAMPLES_PER_PIXEL, 1) not in _PICTURE_BANDS
    except (OSError, SyntaxError, ValueError):
        with contextlib.suppress(ConfigError, DataError), _opened(path):  # of kinds that Pillow does not even identify
            return True
        return False


@contextlib.contextmanager
def open_raster(path: str | Path) -> Iterator[DatasetReader]:
    """Open a raster for reading, turning rasterio's errors into one kind.

    A georeference says where each stored row lies, so an orientation tag beside it is passed over, as GDAL does.
    Without one the tag would have to be obeyed, as that of a picture is, and such a raster is refused.

    Raises:
        ConfigError: if rasterio is not installed.
        DataError: if the file is missing, damaged, lies on its side, or fails while it is read.
    """
    with _opened(path) as dataset:
        tag = raster_orientation(path)
        if tag != 1 and not (dataset.crs or dataset.gcps[0] or not dataset.transform.is_identity):
            raise DataError(
                "raster has an orientation tag and no georeference",
                path=path,
                expected="no tag, or orientation 1",
                found=f"orientation {tag}",
                hint="turn the pixels and take the tag out (exiftool -n -Orientation=1 if they are upright already)",
            )
        yield dataset


def raster_orientation(path: str | Path) -> int:
    """Orientation tag of a TIFF of any kind of values, 1 where it has none."""
    try:
        with Path(path).open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = file.read(8)
            header += file.read(8) if header[2:3] == b"+" else b""  # BigTIFF
            tags: Any = TiffImagePlugin.ImageFileDirectory_v2(header)
            file.seek(tags.next)
            tags.load(file)
            tag = tags.get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        return 1
    return int(tag) if tag in range(1, 9) else 1


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[DatasetReader]:
    rasterio = import_extra("rasterio", "sar", "GeoTIFF", path)
    require_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                yield dataset
    except rasterio.errors.RasterioError as error:
        raise DataError(
            "raster is damaged or incomplete", path=path, found=str(error), hint="copy or download it again"
        ) from error


def read_bands(dataset: DatasetReader, channels: int, **window: Any) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read the bands a network with so many channels looks at, and where they are valid.

    All bands, where there are as many as channels; else those that are not alpha, or those that the file calls red,
    green and blue, where these are as many. The only band is repeated to three channels, and three bands of 8 bit are
    reduced to their luminance where one channel is asked for. Anything else is refused, as nothing says which bands
    are meant. Pixels that are nodata, masked, transparent or not finite in any of these bands are not valid and read
    as 0.

    Args:
        dataset: an open raster.
        channels: number of channels wanted.
        **window: ``window``, ``out_shape`` and the like of rasterio's ``read``.

    Returns:
        Values of shape (channels, H, W) in the file's units (8-bit ones in [0, 1]) and validity (H, W).

    Raises:
        DataError: if the file has another number of bands.
    """
    bands = _choose_bands(dataset, channels)
    _require_measurements(dataset)
    values = dataset.read(bands, **window).astype(np.float32)
    valid = (dataset.read_masks(bands, **window) > 0).all(axis=0) & np.isfinite(values).all(axis=0)
    values[:, ~valid] = 0
    if dataset.dtypes[0] == "uint8":
        values /= 255
    if len(bands) == 3 and channels == 1:
        values = np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), values, axes=1)[None]
    elif len(bands) == 1 and channels == 3:
        values = np.repeat(values, 3, axis=0)
    return values, valid


def read_band_values(path: str | Path) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.int64] | None]:
    """Read a raster of class numbers as it is stored; see :func:`~topolora_monai.io.read_labels`.

    Returns:
        Its one band, shape (H, W), with 0 for NaN; where it is neither that nor nodata, which 0 never is in a mask; and
        the colours (N, 3) that the values show, None where they are grey levels themselves.
    """
    with open_raster(path) as dataset:
        if dataset.count != 1:
            raise DataError("mask has several bands", path=path, expected="1", found=dataset.count)
        values = dataset.read(1)
        valid = np.ones(values.shape, bool) if dataset.nodata == 0 else dataset.read_masks(1) > 0
        shows = _colour_table(dataset)
    missing = ~np.isfinite(values)
    values[missing] = 0
    return values, valid & ~missing, shows


def _colour_table(dataset: DatasetReader) -> NDArray[np.int64] | None:
    """Of a palette, and of samples that grow from white to black, whose own table GDAL has in 8 bits if at all."""
    if dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES" and dataset.dtypes[0] in ("uint8", "uint16"):
        bits = int(dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", np.dtype(dataset.dtypes[0]).itemsize * 8))
        largest = 2**bits - 1
        levels = np.arange(largest, -1, -1) * max(255 // largest, 1)
        return np.repeat(levels[:, None], 3, axis=1)
    if dataset.colorinterp[0].name != "palette":
        return None
    table = dataset.colormap(1)
    return np.array([table.get(value, (0, 0, 0))[:3] for value in range(max(table) + 1)], np.int64)


def _choose_bands(dataset: DatasetReader, channels: int) -> list[int]:
    """Bands that are meant without doubt; which of more would do, only a person can tell."""
    meanings = [colour.name for colour in dataset.colorinterp]
    seen = [number for number, meaning in enumerate(meanings, 1) if meaning != "alpha"]
    colours = [meanings.index(colour) + 1 for colour in _COLOURS if colour in meanings]
    for bands in (list(dataset.indexes), seen, colours):
        if len(bands) == channels:
            return bands
    if channels == 3 and len(seen) == 1:
        return seen
    for bands in (seen, colours):
        if channels == 1 and len(bands) == 3 and dataset.dtypes[0] == "uint8":
            return bands
    chosen = " ".join(f"-b {number}" for number in range(channels, 0, -1))
    raise DataError(
        "raster has another number of bands than the network has channels",
        path=dataset.name,
        expected=channels,
        found=f"{dataset.count}, {len(seen)} of them not alpha" if len(seen) < dataset.count else dataset.count,
        hint="copy the bands that the network was trained on, in their order, for example "
        f"gdal_translate {chosen} IN.tif OUT.tif, or train with --model#in_channels {len(seen)}",
    )


def _require_measurements(dataset: DatasetReader) -> None:
    """Refuse what would silently become something else as float32."""
    if "complex" in dataset.dtypes[0]:
        hint = "give the amplitude or the intensity"
        raise DataError("raster holds complex numbers", path=dataset.name, found=dataset.dtypes[0], hint=hint)
    if dataset.colorinterp[0].name == "palette":
        hint = "convert it to grey or RGB (gdal_translate -expand rgb)"
        raise DataError("raster holds indices of a palette", path=dataset.name, hint=hint)
