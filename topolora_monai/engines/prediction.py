"""What an engine answers: checked, and written as masks and probabilities."""

from __future__ import annotations

from pathlib import Path

from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys

from topolora_monai.engines.batches import batch_items, image_names
from topolora_monai.engines.handlers import Handler
from topolora_monai.model.inferers import check_finite
from topolora_monai.model.uncertainty import UncertaintyInferer
from topolora_monai.model.writing import MaskWriter
from topolora_monai.networks.activation import Activation

__all__ = ["FiniteAnswers", "PredictionWriter"]


class FiniteAnswers(Handler):
    """Stop an evaluation engine at the first image that the network does not answer in numbers."""

    event = IterationEvents.FORWARD_COMPLETED

    def __call__(self, engine: Engine) -> None:
        """Check the logits of a batch.

        Raises:
            TopoLoRAError: as :func:`~topolora_monai.model.inferers.check_finite`.
        """
        check_finite(engine.state.output[Keys.PRED], image_names(engine.state.batch))


class PredictionWriter(MaskWriter):
    """Write what an engine answers, as :class:`~topolora_monai.model.writing.MaskWriter` does.

    Args:
        folder: as there, and so are ``threshold`` and ``activation``.
        threshold: foreground is what is at least that.
        activation: what made the probabilities.
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
