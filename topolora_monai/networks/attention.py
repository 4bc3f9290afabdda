"""Exact attention with decomposed relative positions that never forms the token-by-token matrix."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

_CHUNK_ELEMENTS = 1 << 23
"""Logits held at a time on the CPU, 32 MiB in float32: fewer queries multiply slower, more take memory for nothing."""

_Chunk = tuple[slice, slice]


def relative_position_table(embedding: Tensor, size: int) -> Tensor:
    """Look up the learned embedding (L, D) of every (query, key) distance along one axis of ``size`` tokens.

    Entry (q, k) of the result, (size, size, D), is the embedding of distance ``q - k``; the table is resized linearly
    when L is not ``2 * size - 1``.
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

    The logits are ``scale * q.k + q.Rh[y_q, y_k] + q.Rw[x_q, x_k]``. Query, key, value and the result have shape
    (B, heads, N, D), with ``N = grid[0] * grid[1]`` in row-major order; the tables (H, H, D) and (W, W, D) are of
    :func:`relative_position_table`. Memory grows with the number of tokens, not with its square, forward and
    backward: training in float32 on a CPU works through chunks of queries and recomputes them for the gradient;
    everything else goes through one fused kernel.
    """
    batch, heads, tokens, dim = query.shape
    height, width = grid
    rows = query.reshape(batch, heads, height, width, dim)
    bias_h = torch.einsum("bnhwc,hkc->bnhwk", rows, table_h.to(query.dtype)).reshape(batch, heads, tokens, height)
    bias_w = torch.einsum("bnhwc,wkc->bnhwk", rows, table_w.to(query.dtype)).reshape(batch, heads, tokens, width)
    chunked = query.device.type == "cpu" and query.dtype == torch.float32 and query.requires_grad
    if chunked and not torch.compiler.is_exporting():
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
    """Attention over chunks of queries with a third of the fused form's arithmetic; keeps only its inputs."""

    @staticmethod
    def forward(ctx: FunctionCtx, query: Tensor, key: Tensor, value: Tensor, bias_h: Tensor, bias_w: Tensor) -> Tensor:
        """All of shape (B * heads, N, ...)."""
        query = query * query.shape[-1] ** -0.5
        out = torch.empty(value.shape, dtype=value.dtype)
        buffers = _Buffers(query, count=2)
        for heads, chunk in buffers.chunks:
            probability = _probabilities(query, key, bias_h, bias_w, (heads, chunk), buffers)
            torch.bmm(probability, value[heads], out=out[heads, chunk])
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
        for heads, chunk in buffers.chunks:
            here = (heads, chunk)
            probability = _probabilities(query, key, bias_h, bias_w, here, buffers)
            grad_value[heads].baddbmm_(probability.transpose(1, 2), grad_out[here])
            grad = torch.bmm(grad_out[here], value[heads].transpose(1, 2), out=buffers.view(0, here))
            grad_logits = torch.ops.aten._softmax_backward_data.out(
                grad, probability, -1, grad.dtype, grad_input=buffers.view(2, here)
            )
            torch.bmm(grad_logits, key[heads], out=grad_query[here])
            grad_key[heads].baddbmm_(grad_logits.transpose(1, 2), query[here])
            by_axis = grad_logits.unflatten(2, axes)
            torch.sum(by_axis, dim=3, out=grad_h[here])
            torch.sum(by_axis, dim=2, out=grad_w[here])
        return grad_query.mul_(query.shape[-1] ** -0.5), grad_key, grad_value, grad_h, grad_w


class _Buffers:
    """Cuts the work into chunks and holds their logits in memory taken once.

    A chunk has as many queries as fit, and more heads only when all queries of one do: tall matrices
    multiply faster. Fresh pages for every chunk would cost more than the arithmetic.
    """

    def __init__(self, query: Tensor, count: int) -> None:
        heads, self.tokens, _ = query.shape
        length = min(self.tokens, max(1, _CHUNK_ELEMENTS // self.tokens))
        group = min(heads, max(1, _CHUNK_ELEMENTS // self.tokens**2))
        self.memory = query.new_empty(count, group * length * self.tokens)
        self.chunks = [(h, q) for h in _slices(heads, group) for q in _slices(self.tokens, length)]

    def view(self, index: int, chunk: _Chunk) -> Tensor:
        """Buffer ``index``, contiguous, shape (heads of the chunk, its queries, N)."""
        shape = (*(part.stop - part.start for part in chunk), self.tokens)
        return self.memory[index, : math.prod(shape)].view(shape)


def _slices(total: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, total)) for start in range(0, total, step)]


def _probabilities(
    scaled_query: Tensor, key: Tensor, bias_h: Tensor, bias_w: Tensor, chunk: _Chunk, buffers: _Buffers
) -> Tensor:
    """Softmax over all keys for the queries of a chunk, in buffer 1."""
    logits = torch.bmm(scaled_query[chunk], key[chunk[0]].transpose(1, 2), out=buffers.view(0, chunk))
    by_axis = logits.unflatten(2, (bias_h.shape[-1], bias_w.shape[-1]))
    by_axis.add_(bias_h[chunk].unsqueeze(3)).add_(bias_w[chunk].unsqueeze(2))
    return torch.softmax(logits, dim=-1, out=buffers.view(1, chunk))


def fill_windows(mapped: Tensor, tokens: Tensor, linear: Callable[[Tensor], Tensor], window: int) -> Tensor:
    """Fill ``mapped = linear(tokens)``, (B, H, W, D), up to whole windows with what the layer makes of zero tokens.

    SAM's ViT pads tokens with zeros before its ``qkv`` layer; to pad the layer's result with its bias instead is the
    same, and leaves less to multiply.

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
