"""Masks and probabilities as image files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys as Keys

from topolora_monai.data import write_png
from topolora_monai.errors import OutputError

__all__ = ["PredictionWriter"]


class PredictionWriter:
    """Write ``NAME_mask.png`` (0 and 255) and ``NAME_probability.png`` (16 bit) at the input's size.

    With several classes, the files are ``NAME_mask_K.png`` and ``NAME_probability_K.png`` for class K.
    Probability p is stored as the whole part of ``65536 * p``, at most 65535.

    Args:
        folder: where to.
        threshold: foreground is ``probability >= threshold``.
    """

    def __init__(self, folder: str | Path, threshold: float = 0.5) -> None:
        self.folder = Path(folder)
        self.threshold = threshold

    def attach(self, engine: Engine) -> None:
        """Act after each batch."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the images of a batch.

        Raises:
            OutputError: if a file cannot be written; those written before are whole.
        """
        batch: Any = engine.state.batch
        names = [one["name"] for one in batch] if isinstance(batch, list) else list(batch["name"])
        for one, name in zip(engine.state.output, names, strict=True):
            planes = one[Keys.PRED].double().cpu().numpy()
            for index, plane in enumerate(planes):
                suffix = f"_{index}" if len(planes) > 1 else ""
                stored = np.minimum(np.floor(plane * 65536), 65535).astype(np.uint16)
                mask = (stored >= math.ceil(self.threshold * 65536)).astype(np.uint8) * 255
                self._write(mask, f"{name}_mask{suffix}.png")
                self._write(stored, f"{name}_probability{suffix}.png")

    def _write(self, array: Any, name: str) -> None:
        try:
            write_png(array, self.folder / name)
        except OSError as error:
            raise OutputError(
                "cannot write a prediction", path=self.folder / name, found=error.strerror, hint="free some space"
            ) from error
