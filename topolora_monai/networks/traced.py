"""A traced network is right for images of one size; here is what makes it refuse others."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

__all__ = ["of_one_size"]


def of_one_size(image: Tensor) -> Tensor:
    """The image itself; in a graph of ``torch.jit.trace``, an error for one of another size than it was traced with.

    Sizes are numbers while a network runs, so that tracing makes constants of all that follows from them.

    Args:
        image: shape (B, C, H, W).
    """
    if not torch.jit.is_tracing():  # type: ignore[attr-defined]
        return image
    checked: Tensor = _checked()(image, int(image.shape[-2]), int(image.shape[-1]))
    return checked


def _same_size(image: Tensor, height: int, width: int) -> Tensor:
    if image.size(-2) != height or image.size(-1) != width:
        raise ValueError(
            f"this file takes images of {height}x{width} pixels (height x width), not {image.size(-2)}x{image.size(-1)}"
        )
    return image


@lru_cache(maxsize=1)
def _checked() -> Any:
    return torch.jit.script(_same_size)  # a script stays in the graph, branches and all
