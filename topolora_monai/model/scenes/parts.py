"""Finished rows of a scene on disk, from which an interrupted run continues."""

from __future__ import annotations

import contextlib
import gzip
import logging
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topolora_monai.errors import OutputError
from topolora_monai.model.scenes.files import writing, written_whole

__all__ = ["SceneParts"]

_logger = logging.getLogger(__name__)


class SceneParts:
    """Finished rows of a scene on disk, one file a band, and the sums that the next band builds on.

    Every file is written beside and renamed. The sums of a band are there before its rows, and those of the band
    before go after, so that whenever the process ends, the next one finds what it needs.

    Args:
        folder: where to; nothing else may be in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._settings = folder / "settings.json"

    def open(self, settings: str) -> None:
        """Keep what is there if it was made with the same settings, else start over."""
        with _reading(self.folder):
            if self._settings.is_file() and self._settings.read_text() == settings:
                return
        if self.folder.exists():
            _logger.warning("%s belongs to another source or other settings: starting over", self.folder)
            self.remove()
        with writing(self._settings):
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
        with _reading(self.folder):
            sums: NDArray[np.float32] = np.load(self._carry(band), allow_pickle=False)
        return sums

    def rows(self) -> Iterator[NDArray[np.uint16]]:
        """Finished rows of one band after the other, each of shape (K, rows, W)."""
        for path in sorted(self.folder.glob("rows-*.npy.gz")):
            with _reading(self.folder), gzip.open(path) as packed:
                part = np.load(packed, allow_pickle=False)
                packed.read()  # to the checksum at its end
            yield part

    def remove(self) -> None:
        """Delete everything; the settings first, so that what is left after a kill is never continued."""
        with writing(self.folder):
            self._settings.unlink(missing_ok=True)
            if self.folder.exists():
                shutil.rmtree(self.folder)

    def _rows(self, band: int) -> Path:
        return self.folder / f"rows-{band:06d}.npy.gz"

    def _carry(self, band: int) -> Path:
        return self.folder / f"carry-{band:06d}.npy"


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise OutputError("finished rows are damaged", path=folder, found=str(error), hint="delete it") from error
