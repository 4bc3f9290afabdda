"""Exact attention with decomposed relative positions that never forms the token-by-token matrix."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

__all__ = ["relative_position_attention", "relative_position_table"]

_CHUNK_ELEMENTS = 1 << 22
"""Logits held at a time on the CPU, 16 MiB in float32: they stay in the last-level cache."""


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

    The logits are ``scale * q.k + q.Rh[y_q, y_k] + q.Rw[x_q, x_k]``. Memory grows with the number of tokens,
    not with its square, forward and backward: training in float32 on a CPU works through chunks of queries
    and recomputes them for the gradient; everything else goes through one fused kernel.

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
    if query.device.type == "cpu" and query.dtype == torch.float32 and query.requires_grad:
        flat = (tensor.reshape(batch * heads, tokens, -1) for tensor in (query, key, value, bias_h, bias_w))
        out: Tensor = _ChunkedAttention.apply(*flat)
        return out.reshape(batch, heads, tokens, dim)
    return _fused_attention(query, key, value, bias_h, bias_w)


def _fused_attention(query: Tensor, key: Tensor, value: Tensor, bias_h: Tensor, bias_w: Tensor) -> Tensor:
    """One fused kernel, by writing the logits as ``[scale * q, Rh q, Rw q] . [k, onehot(y_k), onehot(x_k)]``."""
    batch, heads, tokens, dim = query.shape
    height, width = bias_h.shape[-1], bias_w.shape[-1]
    eye_h = torch.eye(height, device=key.device, dtype=key.dtype).repeat_interleave(width, dim=0)
    eye_w = torch.eye(width, device=key.device, dtype=key.dtype).repeat(height, 1)
    position = torch.cat([eye_h, eye_w], dim=-1).expand(batch, heads, tokens, height + width)
    query = torch.cat([query * dim**-0.5, bias_h, bias_w], dim=-1)
    key = torch.cat([key, position], dim=-1)
    value = F.pad(value, (0, height + width))  # CPU kernels want one head size for all three
    return F.scaled_dot_product_attention(query, key, value, scale=1.0)[..., :dim]


class _ChunkedAttention(torch.autograd.Function):
    """Attention over chunks of queries with a third of the fused form's arithmetic; keeps only in- and outputs."""

    @staticmethod
    def forward(ctx: FunctionCtx, query: Tensor, key: Tensor, value: Tensor, bias_h: Tensor, bias_w: Tensor) -> Tensor:
        """All of shape (B * heads, N, ...)."""
        query = query * query.shape[-1] ** -0.5
        out = torch.empty(value.shape, dtype=value.dtype)
        buffers = _Buffers(query, count=2)
        for chunk in _chunks(query):
            torch.bmm(_probabilities(query, key, bias_h, bias_w, chunk, buffers), value, out=out[:, chunk])
        ctx.save_for_backward(query, key, value, bias_h, bias_w)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, ...]:
        """Gradients of the five inputs; probabilities are computed again chunk by chunk."""
        query, key, value, bias_h, bias_w = ctx.saved_tensors
        axes = (bias_h.shape[-1], bias_w.shape[-1])
        grad_query, grad_key, grad_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        grad_h, grad_w = torch.empty_like(bias_h), torch.empty_like(bias_w)
        buffers = _Buffers(query, count=3)
        for chunk in _chunks(query):
            probability = _probabilities(query, key, bias_h, bias_w, chunk, buffers)
            grad_value.baddbmm_(probability.transpose(1, 2), grad_out[:, chunk])
            grad = torch.bmm(grad_out[:, chunk], value.transpose(1, 2), out=buffers.view(0, chunk))
            grad_logits = torch.ops.aten._softmax_backward_data.out(
                grad, probability, -1, grad.dtype, grad_input=buffers.view(2, chunk)
            )
            torch.bmm(grad_logits, key, out=grad_query[:, chunk])
            grad_key.baddbmm_(grad_logits.transpose(1, 2), query[:, chunk])
            by_axis = grad_logits.unflatten(2, axes)
            torch.sum(by_axis, dim=3, out=grad_h[:, chunk])
            torch.sum(by_axis, dim=2, out=grad_w[:, chunk])
        return grad_query.mul_(query.shape[-1] ** -0.5), grad_key, grad_value, grad_h, grad_w


class _Buffers:
    """Memory for the logits of one chunk, taken once: fresh pages for every chunk cost more than the arithmetic."""

    def __init__(self, query: Tensor, count: int) -> None:
        heads, self.tokens, _ = query.shape
        self.memory = query.new_empty(count, heads * _chunk_length(query) * self.tokens)
        self.heads = heads

    def view(self, index: int, chunk: slice) -> Tensor:
        """Buffer ``index``, contiguous, shape (B * heads, length of the chunk, N)."""
        length = chunk.stop - chunk.start
        return self.memory[index, : self.heads * length * self.tokens].view(self.heads, length, self.tokens)


def _chunk_length(query: Tensor) -> int:
    heads, tokens, _ = query.shape
    return min(tokens, max(1, _CHUNK_ELEMENTS // (heads * tokens)))


def _chunks(query: Tensor) -> list[slice]:
    tokens, step = query.shape[1], _chunk_length(query)
    return [slice(start, min(start + step, tokens)) for start in range(0, tokens, step)]


def _probabilities(
    scaled_query: Tensor, key: Tensor, bias_h: Tensor, bias_w: Tensor, chunk: slice, buffers: _Buffers
) -> Tensor:
    """Softmax over all keys for the queries of a chunk, shape (B * heads, chunk, N), in buffer 1."""
    logits = torch.bmm(scaled_query[:, chunk], key.transpose(1, 2), out=buffers.view(0, chunk))
    by_axis = logits.unflatten(2, (bias_h.shape[-1], bias_w.shape[-1]))
    by_axis.add_(bias_h[:, chunk, :, None]).add_(bias_w[:, chunk, None, :])
    return torch.softmax(logits, dim=-1, out=buffers.view(1, chunk))
