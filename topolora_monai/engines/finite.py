"""Answers that are no numbers: stopped before anything is made of them."""

from __future__ import annotations

from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys

from topolora_monai.engines.batches import image_names
from topolora_monai.model.inferers import check_finite

__all__ = ["FiniteAnswers"]


class FiniteAnswers:
    """Stop an evaluation engine at the first image that the network does not answer in numbers."""

    def attach(self, engine: Engine) -> None:
        """Act once the logits are known."""
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Check the logits of a batch.

        Raises:
            TopoLoRAError: as :func:`~topolora_monai.model.inferers.check_finite`.
        """
        check_finite(engine.state.output[Keys.PRED], image_names(engine.state.batch))
