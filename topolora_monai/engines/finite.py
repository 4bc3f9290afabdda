"""Answers that are no numbers: stopped before anything is made of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor

from topolora_monai.engines.batches import image_names
from topolora_monai.errors import TopoLoRAError

__all__ = ["FiniteAnswers", "check_finite"]


def check_finite(logits: Tensor, images: Sequence[str]) -> None:
    """Make sure that a network answered in numbers; anything else would come out as an empty mask.

    Args:
        logits: or probabilities, any shape.
        images: names of what was asked about.

    Raises:
        TopoLoRAError: if a value is infinite or none at all.

    Example:
        >>> check_finite(torch.tensor([0.5, -3.0]), ["a"])
    """
    finite = torch.isfinite(logits)
    if not finite.all():
        raise TopoLoRAError(
            "the network's answer is not a number",
            found=f"{int((~finite).sum()):,} of {finite.numel():,} values, image {', '.join(images)}",
            hint="try --precision fp32; if that does not help its training diverged: take an earlier adapter",
        )


class FiniteAnswers:
    """Stop an evaluation engine at the first image that the network does not answer in numbers."""

    def attach(self, engine: Engine) -> None:
        """Act once the logits are known."""
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Check the logits of a batch.

        Raises:
            TopoLoRAError: as :func:`check_finite`.
        """
        check_finite(engine.state.output[Keys.PRED], image_names(engine.state.batch))
