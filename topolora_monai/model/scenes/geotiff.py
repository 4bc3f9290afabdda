"""Probabilities and masks as GeoTIFF in the source's geometry."""

from __future__ import annotations

import contextlib
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from topolora_monai.io.rasters import open_raster
from topolora_monai.metrics import to_16_bit
from topolora_monai.model.scenes.files import DIGEST_TAG, written_whole
from topolora_monai.networks.activation import Activation, probabilities

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

__all__ = ["raster_digest", "stored_probabilities", "write_geotiffs"]

_MASK_NODATA = 255
_PROBABILITY_NODATA = 65535
_BLOCK = 512
"""Side of the output's tiles, in pixels; it is written by as many rows, so that each tile is written once."""


def stored_probabilities(
    logits: Tensor, valid: NDArray[np.bool_], activation: Activation = "sigmoid"
) -> NDArray[np.uint16]:
    """Logits (K, h, w) as 16-bit probabilities.

    Example:
        >>> import torch
        >>> stored_probabilities(torch.tensor([[[0.0, 25.0, 3.0]]]), np.array([[True, True, False]])).tolist()
        [[[32768, 65534, 65535]]]
    """
    stored = to_16_bit(probabilities(logits, activation)).cpu().numpy()
    return np.where(valid, np.minimum(stored, _PROBABILITY_NODATA - 1), _PROBABILITY_NODATA).astype(np.uint16)


def write_geotiffs(
    source: Path,
    parts: Iterator[NDArray[np.uint16]],
    outputs: Sequence[Path],
    digest: str,
    decide: Callable[[NDArray[np.uint16]], NDArray[np.uint8]] | None = None,
) -> None:
    """Write one GeoTIFF per class of probabilities, or one per mask.

    Args:
        source: raster whose geometry they get.
        parts: 16-bit probabilities (K, rows, W) from the first row to the last.
        outputs: a file for each class or mask.
        digest: what :func:`raster_digest` is to find.
        decide: makes the masks (outputs, rows, W) of rows, see :func:`~topolora_monai.model.writing.decided`.

    Raises:
        OutputError: if they cannot be written, or read back otherwise than written; none of them is there then.
    """
    import rasterio  # noqa: PLC0415 - an optional dependency

    with open_raster(source) as raster:
        profile = _georeference(raster)
    profile |= (
        {"dtype": "uint16", "nodata": _PROBABILITY_NODATA, "predictor": 2}
        if decide is None
        else {"dtype": "uint8", "nodata": _MASK_NODATA}
    )
    sums: list[list[int]] = [[] for _ in outputs]
    with _georeference_not_needed(), contextlib.ExitStack() as whole:
        beside = [whole.enter_context(written_whole(path)) for path in outputs]
        with contextlib.ExitStack() as opened:
            files = [opened.enter_context(rasterio.open(path, "w", **profile)) for path in beside]
            for file in files:
                _describe(file, digest, scale=1 / 65536 if profile["dtype"] == "uint16" else 1.0)
            for strip, rows in enumerate(_regrouped(parts, _BLOCK)):
                window = ((strip * _BLOCK, strip * _BLOCK + rows.shape[1]), (0, rows.shape[2]))
                missing = rows[:1] == _PROBABILITY_NODATA
                planes = rows if decide is None else np.where(missing, _MASK_NODATA, decide(rows)).astype(np.uint8)
                for file, plane, of in zip(files, planes, sums, strict=True):
                    file.write(plane, 1, window=window)
                    of.append(zlib.crc32(plane.tobytes()))
        for path, expected in zip(beside, sums, strict=True):
            _check_written(path, expected)


def raster_digest(path: Path) -> str | None:
    """What a file written here says of its settings; none if it is not there or not ours."""
    if not path.is_file():  # GDAL would log an error
        return None
    import rasterio  # noqa: PLC0415 - an optional dependency
    from rasterio.errors import RasterioIOError  # noqa: PLC0415

    with contextlib.suppress(RasterioIOError), _georeference_not_needed(), rasterio.open(path) as file:
        return str(file.tags().get(DIGEST_TAG))
    return None


def _check_written(path: Path, sums: list[int]) -> None:
    """Read a file back: what fails while GDAL closes it, such as a full disk, is not reported otherwise."""
    import rasterio  # noqa: PLC0415 - an optional dependency

    with rasterio.open(path) as file:
        for strip, expected in enumerate(sums):
            top = strip * _BLOCK
            rows = file.read(1, window=((top, min(top + _BLOCK, file.height)), (0, file.width)))
            if zlib.crc32(rows.tobytes()) != expected:
                raise OSError("it reads back damaged, probably since the disk is full")


def _georeference(source: DatasetReader) -> dict[str, Any]:
    """Profile of an output in the source's geometry: the transform, or the control points or RPCs in its place."""
    points, crs_of_points = source.gcps
    by_points = source.transform.is_identity and len(points) > 0
    return {
        "driver": "GTiff",
        "count": 1,
        "height": source.height,
        "width": source.width,
        **({"gcps": points} if by_points else {"transform": source.transform}),
        "crs": crs_of_points if by_points else source.crs,
        "rpcs": source.rpcs,
        "tiled": True,
        "blockxsize": _BLOCK,
        "blockysize": _BLOCK,
        "compress": "deflate",
        "BIGTIFF": "IF_SAFER",
    }


def _describe(file: Any, digest: str, scale: float) -> None:
    if scale != 1:
        file.scales = (scale,)
    file.update_tags(**{DIGEST_TAG: digest})


def _regrouped(parts: Iterator[NDArray[np.uint16]], count: int) -> Iterator[NDArray[np.uint16]]:
    """The same rows (K, rows, W), ``count`` at a time."""
    held: list[NDArray[np.uint16]] = []
    for part in parts:
        held.append(part)
        if sum(rows.shape[1] for rows in held) >= count:
            joined = np.concatenate(held, axis=1)
            whole = joined.shape[1] // count * count
            yield from np.split(joined[:, :whole], whole // count, axis=1)
            held = [joined[:, whole:]]
    rest = np.concatenate(held, axis=1)
    if rest.shape[1]:
        yield rest


@contextlib.contextmanager
def _georeference_not_needed() -> Iterator[None]:
    from rasterio.errors import NotGeoreferencedWarning  # noqa: PLC0415 - an optional dependency

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
