"""What a network computes besides its logits, handed to a loss that asks for it."""

from __future__ import annotations

from typing import Generic, TypeVar

from torch import nn

from topolora_monai.errors import ConfigError

__all__ = ["KeepsOutput"]

Kept = TypeVar("Kept")


class KeepsOutput(nn.Module, Generic[Kept]):
    """A network that keeps a further output of its last training step, for one loss to take.

    Nothing is kept before :attr:`keeping` is set, nor in evaluation: no graph outlives its step unasked,
    and exported graphs hold no trace of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.keeping = False
        self._kept: Kept | None = None

    def keep(self, output: Kept) -> None:
        """Remember the output if a loss wants it."""
        if self.keeping and self.training:
            self._kept = output

    def take(self) -> Kept:
        """Hand over the output of the last step and forget it.

        Raises:
            ConfigError: if there is none.
        """
        kept, self._kept = self._kept, None
        if kept is None:
            raise ConfigError(
                "the network has kept nothing for its loss",
                expected="one forward pass in training mode before each loss",
                found="training mode" if self.training else "evaluation mode",
            )
        return kept
