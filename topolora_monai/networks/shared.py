"""What the networks here share: the check of their images, and what they keep for a loss that asks for it."""

from functools import lru_cache
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from topolora_monai.errors import ConfigError

Kept = TypeVar("Kept")


def checked_image(image: Tensor, in_channels: int) -> Tensor:
    """The image itself, if it has shape (B, in_channels, H, W).

    Sizes are numbers while a network runs, so that tracing makes constants of all that follows from them: in a graph
    of ``torch.jit.trace``, an image of another size than it was traced with is an error.

    Raises:
        ConfigError: when the number of channels is not the one the network was built for.
    """
    if image.ndim != 4 or image.shape[1] != in_channels:
        raise ConfigError(
            "image tensor does not fit the network",
            expected=f"shape (B, {in_channels}, H, W)",
            found=tuple(image.shape),
            hint="set in_channels to the number of channels of the images",
        )
    if not torch.jit.is_tracing():  # type: ignore[attr-defined]
        return image
    checked: Tensor = _size_check()(image, int(image.shape[-2]), int(image.shape[-1]))
    return checked


def _same_size(image: Tensor, height: int, width: int) -> Tensor:
    if image.size(-2) != height or image.size(-1) != width:
        raise ValueError(
            f"this file takes images of {height}x{width} pixels (height x width), not {image.size(-2)}x{image.size(-1)}"
        )
    return image


@lru_cache(maxsize=1)
def _size_check() -> Any:
    return torch.jit.script(_same_size)  # a script stays in the graph, branches and all


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
        """Hand over the output of the last step and forget it; a :class:`ConfigError` if there is none."""
        kept, self._kept = self._kept, None
        if kept is None:
            raise ConfigError(
                "the network has kept nothing for its loss",
                expected="one forward pass in training mode before each loss",
                found="training mode" if self.training else "evaluation mode",
            )
        return kept
