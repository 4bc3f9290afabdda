"""Masks and probabilities as image files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys as Keys

from topolora_monai.data import write_png
from topolora_monai.engines.batches import image_names
from topolora_monai.errors import OutputError
from topolora_monai.metrics import threshold_bin, to_16_bit

__all__ = ["PredictionWriter"]


class PredictionWriter:
    """Write ``NAME_mask.png`` (0 and 255) and ``NAME_probability.png`` (16 bit) at the input's size.

    With several classes, the files are ``NAME_mask_K.png`` and ``NAME_probability_K.png`` for class K.
    Probabilities are stored as :func:`~topolora_monai.metrics.to_16_bit` gives them.

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
        for one, name in zip(engine.state.output, image_names(engine.state.batch), strict=True):
            planes = to_16_bit(one[Keys.PRED]).cpu().numpy().astype(np.uint16)
            for index, stored in enumerate(planes):
                suffix = f"_{index}" if len(planes) > 1 else ""
                mask = (stored >= threshold_bin(self.threshold)).astype(np.uint8) * 255
                self._write(mask, f"{name}_mask{suffix}.png")
                self._write(stored, f"{name}_probability{suffix}.png")

    def _write(self, array: Any, name: str) -> None:
        try:
            write_png(array, self.folder / name)
        except OSError as error:
            raise OutputError(
                "cannot write a prediction", path=self.folder / name, found=error.strerror, hint="free some space"
            ) from error
