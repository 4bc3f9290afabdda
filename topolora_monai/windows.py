"""Attention windows that tile a grid of tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["fill_windows"]


def fill_windows(mapped: Tensor, tokens: Tensor, linear: Callable[[Tensor], Tensor], window: int) -> Tensor:
    """Fill a grid up to whole windows with what a linear layer makes of zero tokens.

    SAM's ViT pads tokens with zeros before its ``qkv`` layer; to pad the layer's result with its bias instead is the
    same, and leaves less to multiply.

    Args:
        mapped: ``linear(tokens)``, shape (B, H, W, D).
        tokens: shape (B, H, W, C).
        linear: the layer, adapters included.
        window: side of a window in tokens.

    Returns:
        ``mapped`` with rows below and columns to the right, sides multiples of ``window``.

    Example:
        >>> layer = torch.nn.Linear(2, 3)
        >>> tokens = torch.rand(1, 5, 7, 2)
        >>> filled = fill_windows(layer(tokens), tokens, layer, window=4)
        >>> filled.shape, torch.equal(filled[0, 7, 7], layer.bias)
        (torch.Size([1, 8, 8, 3]), True)
    """
    height, width = mapped.shape[1:3]
    below, right = -height % window, -width % window
    if not below and not right:
        return mapped
    filler = linear(tokens.new_zeros(1, 1, 1, tokens.shape[-1]))
    outside = F.pad(tokens.new_zeros(height, width, 1), (0, 0, 0, right, 0, below), value=1.0)
    return torch.addcmul(F.pad(mapped, (0, 0, 0, right, 0, below)), outside.to(filler.dtype), filler)
