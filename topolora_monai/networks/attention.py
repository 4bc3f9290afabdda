"""Exact attention with decomposed relative positions that never forms the token-by-token matrix."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["relative_position_attention", "relative_position_table"]


def relative_position_table(embedding: Tensor, size: int) -> Tensor:
    """Look up the embedding of every (query, key) distance along one axis.

    Args:
        embedding: learned distances, shape (L, D), L odd; resized linearly when L is not ``2 * size - 1``.
        size: number of tokens along the axis.

    Returns:
        Tensor of shape (size, size, D): entry (q, k) is the embedding of distance ``q - k``.
    """
    distances = 2 * size - 1
    if embedding.shape[0] != distances:
        columns = embedding.T[None].float()
        embedding = F.interpolate(columns, size=distances, mode="linear")[0].T.to(embedding.dtype)
    axis = torch.arange(size, device=embedding.device)
    return embedding[axis[:, None] - axis[None, :] + size - 1]


def relative_position_attention(
    query: Tensor, key: Tensor, value: Tensor, table_h: Tensor, table_w: Tensor, grid: tuple[int, int]
) -> Tensor:
    """Multi-head self-attention over a grid of tokens, with SAM's decomposed relative positions.

    The logits ``scale * q.k + q.Rh[y_q, y_k] + q.Rw[x_q, x_k]`` equal one dot product of
    ``[scale * q, Rh q, Rw q]`` and ``[k, onehot(y_k), onehot(x_k)]``, so a fused kernel computes them
    tile by tile: memory grows with the number of tokens, not with its square.

    Args:
        query: shape (B, heads, N, D) with ``N = grid[0] * grid[1]`` in row-major order.
        key: same shape as ``query``.
        value: same shape as ``query``.
        table_h: shape (H, H, D), from :func:`relative_position_table`.
        table_w: shape (W, W, D).
        grid: (H, W).

    Returns:
        Tensor of shape (B, heads, N, D).
    """
    batch, heads, tokens, dim = query.shape
    height, width = grid
    rows = query.reshape(batch, heads, height, width, dim)
    bias_h = torch.einsum("bnhwc,hkc->bnhwk", rows, table_h.to(query.dtype)).reshape(batch, heads, tokens, height)
    bias_w = torch.einsum("bnhwc,wkc->bnhwk", rows, table_w.to(query.dtype)).reshape(batch, heads, tokens, width)
    eye_h = torch.eye(height, device=key.device, dtype=key.dtype).repeat_interleave(width, dim=0)
    eye_w = torch.eye(width, device=key.device, dtype=key.dtype).repeat(height, 1)
    position = torch.cat([eye_h, eye_w], dim=-1).expand(batch, heads, tokens, height + width)
    query = torch.cat([query * dim**-0.5, bias_h, bias_w], dim=-1)
    key = torch.cat([key, position], dim=-1)
    value = F.pad(value, (0, height + width))  # CPU kernels want one head size for all three
    return F.scaled_dot_product_attention(query, key, value, scale=1.0)[..., :dim]
