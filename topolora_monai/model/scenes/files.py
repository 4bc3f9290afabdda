"""What a scene becomes on disk: rows that are finished, from which a run continues, and then GeoTIFF.

Every file is whole or not there.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from topolora_monai.errors import DataError, OutputError
from topolora_monai.io.atomic import atomic_write, writing
from topolora_monai.io.rasters import open_raster
from topolora_monai.metrics import to_16_bit
from topolora_monai.networks.activation import Activation, probabilities

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

_logger = logging.getLogger(__name__)

DIGEST_TAG = "SETTINGS_SHA256"
"""Metadata item of an output that tells its source and settings."""
_MASK_NODATA = 255
_PROBABILITY_NODATA = 65535
_BLOCK = 512
"""Side of the output's tiles, in pixels; it is written by as many rows, so that each tile is written once."""

written_whole = partial(atomic_write, what="a prediction", instead="start again to continue")
_writing = partial(writing, what="a prediction", instead="start again to continue")


class SceneParts:
    """Finished rows of a scene on disk, one file a band, and the sums that the next band builds on.

    The sums of a band are there before its rows, and those of the band before go after, so that whenever the process
    ends, the next one finds what it needs. Nothing else may be in the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._settings = folder / "settings.json"

    def open(self, settings: str) -> None:
        """Keep what is there if it was made with the same settings, else start over."""
        with self._reading():
            if self._settings.is_file() and self._settings.read_text() == settings:
                return
        if self.folder.exists():
            _logger.warning("%s belongs to another source or other settings: starting over", self.folder)
            self.remove()
        with _writing(self._settings):
            self.folder.mkdir()
        with written_whole(self._settings) as beside:
            beside.write_text(settings)

    def finished(self, bands: int) -> int:
        """Number of bands that are there, counted from the first."""
        return next((band for band in range(bands) if not self._rows(band).is_file()), bands)

    def save(self, band: int, rows: NDArray[np.uint16], carry: NDArray[np.float32]) -> None:
        """Keep a band's finished rows (K, rows, W), and the sums (K + 1, rows, padded W) of its other rows."""
        with written_whole(self._carry(band + 1)) as beside, beside.open("wb") as file:
            np.save(file, carry)
        with written_whole(self._rows(band)) as beside, gzip.open(beside, "wb", compresslevel=1) as packed:
            np.save(packed, rows)
        self._carry(band).unlink(missing_ok=True)

    def carry(self, band: int) -> NDArray[np.float32]:
        """Sums that a band starts from."""
        with self._reading():
            sums: NDArray[np.float32] = np.load(self._carry(band), allow_pickle=False)
        return sums

    def rows(self) -> Iterator[NDArray[np.uint16]]:
        """Finished rows of one band after the other, each of shape (K, rows, W)."""
        for path in sorted(self.folder.glob("rows-*.npy.gz")):
            with self._reading(), gzip.open(path) as packed:
                part = np.load(packed, allow_pickle=False)
                packed.read()  # to the checksum at its end
            yield part

    def remove(self) -> None:
        """Delete everything; the settings first, so that what is left after a kill is never continued."""
        with _writing(self.folder):
            self._settings.unlink(missing_ok=True)
            if self.folder.exists():
                shutil.rmtree(self.folder)

    def _rows(self, band: int) -> Path:
        return self.folder / f"rows-{band:06d}.npy.gz"

    def _carry(self, band: int) -> Path:
        return self.folder / f"carry-{band:06d}.npy"

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise OutputError(
                "finished rows are damaged", path=self.folder, found=str(error), hint="delete it"
            ) from error


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
    """Write one GeoTIFF per class of probabilities, or one per mask, in the geometry of a raster.

    Args:
        source: the raster.
        parts: 16-bit probabilities (K, rows, W) from the first row to the last.
        outputs: a file for each class or mask.
        digest: what :func:`raster_digest` is to find.
        decide: makes masks (outputs, rows, W) of rows, see :func:`~topolora_monai.model.writing.decided`.

    Raises:
        OutputError: if they cannot be written, or read back otherwise than written; none of them is there then.
    """
    import rasterio  # noqa: PLC0415 - an optional dependency

    kind: dict[str, Any] = {"dtype": "uint16", "nodata": _PROBABILITY_NODATA, "predictor": 2}
    with open_raster(source) as raster:
        profile = _georeference(raster) | (kind if decide is None else {"dtype": "uint8", "nodata": _MASK_NODATA})
    sums: list[list[int]] = [[] for _ in outputs]
    with warnings.catch_warnings(), contextlib.ExitStack() as whole:
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        beside = [whole.enter_context(written_whole(path)) for path in outputs]
        with contextlib.ExitStack() as opened:
            files = [opened.enter_context(rasterio.open(path, "w", **profile)) for path in beside]
            for file in files:
                file.update_tags(**{DIGEST_TAG: digest})
                if decide is None:
                    file.scales = (1 / 65536,)
            for strip, rows in enumerate(_regrouped(parts, _BLOCK)):
                window = ((strip * _BLOCK, strip * _BLOCK + rows.shape[1]), (0, rows.shape[2]))
                missing = rows[:1] == _PROBABILITY_NODATA
                planes = rows if decide is None else np.where(missing, _MASK_NODATA, decide(rows)).astype(np.uint8)
                for file, plane, of in zip(files, planes, sums, strict=True):
                    file.write(plane, 1, window=window)
                    of.append(zlib.crc32(plane.tobytes()))
        for path, expected in zip(beside, sums, strict=True):  # what fails while GDAL closes a file, it does not say
            with rasterio.open(path) as file:
                for strip, crc in enumerate(expected):
                    window = ((strip * _BLOCK, min((strip + 1) * _BLOCK, file.height)), (0, file.width))
                    if zlib.crc32(file.read(1, window=window).tobytes()) != crc:
                        raise OSError("it reads back damaged, probably since the disk is full")


def raster_digest(path: Path) -> str | None:
    """What a file written here says of its settings; none if it is not there or not ours."""
    with contextlib.suppress(DataError), open_raster(path) as file:
        return str(file.tags().get(DIGEST_TAG))
    return None


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
