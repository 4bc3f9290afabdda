"""Masks and probabilities written as an engine answers."""

from __future__ import annotations

from pathlib import Path

from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys as Keys

from topolora_monai.engines.batches import batch_items
from topolora_monai.engines.finite import FiniteAnswers
from topolora_monai.model.uncertainty import UncertaintyInferer
from topolora_monai.model.writing import MaskWriter
from topolora_monai.networks.activation import Activation

__all__ = ["PredictionWriter"]


class PredictionWriter(MaskWriter):
    """Write what an engine answers, as :class:`~topolora_monai.model.writing.MaskWriter` does.

    Args:
        folder: see there.
        threshold: see there.
        activation: see there.
        uncertainty: the inferer of the engine, whose entropies are written.
        key: of the probabilities in the engine's output.

    Raises:
        ConfigError: for a threshold that is no number from 0 to 1.
    """

    def __init__(
        self,
        folder: str | Path,
        threshold: float = 0.5,
        activation: Activation = "sigmoid",
        uncertainty: UncertaintyInferer | None = None,
        key: str = Keys.PRED,
    ) -> None:
        super().__init__(folder, threshold, activation)
        self.uncertainty = uncertainty
        self.key = key

    def attach(self, engine: Engine) -> None:
        """Act after each batch, if its answers are numbers."""
        FiniteAnswers().attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the images of a batch.

        Raises:
            OutputError: if a file cannot be written; those written before are whole.
        """
        latest = self.uncertainty.latest if self.uncertainty is not None else None
        for number, (one, item) in enumerate(zip(engine.state.output, batch_items(engine.state.batch), strict=True)):
            self.add(item, one[self.key], None if latest is None else latest.entropy[number])
