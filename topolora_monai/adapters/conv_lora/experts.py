"""Convolutions at several scales, of which each feature map uses the chosen ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topolora_monai.adapters.conv_lora.gate import Routing

__all__ = ["ConvExperts"]


class ConvExperts(nn.Module):
    """Expert i computes ``down_i(GELU(conv3x3_i(up_i(z))))``; resizing by ``scales[i]`` is bicubic.

    The parameters of all experts lie in two tensors, so each gets a gradient (zero for an expert without
    maps) in every step, which distributed training relies on.

    Args:
        channels: channels r of the maps.
        scales: factor of each expert, whole numbers from 1.

    Example:
        >>> from topolora_monai.adapters.conv_lora import NoisyTopKGate
        >>> experts, gate, maps = ConvExperts(3, (1, 2)), NoisyTopKGate(3, 2), torch.rand(5, 3, 14, 10)
        >>> experts(maps, gate(maps)).shape
        torch.Size([5, 3, 14, 10])
    """

    def __init__(self, channels: int, scales: Sequence[int]) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.weight = nn.Parameter(torch.empty(len(self.scales), channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(len(self.scales), channels))
        for kernel in self.weight:
            nn.init.kaiming_uniform_(kernel, a=math.sqrt(5))

    def forward(self, maps: Tensor, routing: Routing, dense: bool = False) -> Tensor:
        """Weighted sum of the chosen experts' answers.

        Args:
            maps: shape (N, channels, h, w), any grid, float32 or float64.
            routing: what a gate made of them.
            dense: run every expert on every map and mask, which has no control flow that depends on the
                data and can be exported; otherwise only chosen experts run. The values are equal.

        Returns:
            Shape (N, channels, h, w).
        """
        return self._dense(maps, routing) if dense else self._dispatch(maps, routing)

    def _dispatch(self, maps: Tensor, routing: Routing) -> Tensor:
        count, top_k = routing.choice.shape
        chosen = routing.choice.flatten()
        order = chosen.argsort()
        sizes = torch.bincount(chosen, minlength=len(self.scales)).tolist()
        batches = maps[order // top_k].split(sizes)
        answers = torch.cat([self._answer(index, batch) for index, batch in enumerate(batches) if len(batch)])
        by_map: Tensor = answers[order.argsort()].unflatten(0, (count, top_k))
        return (by_map * routing.weight[:, :, None, None, None]).sum(dim=1)

    def _dense(self, maps: Tensor, routing: Routing) -> Tensor:
        nothing = routing.weight.new_zeros(maps.shape[0], len(self.scales))
        weight = nothing.scatter(1, routing.choice, routing.weight)
        answers = torch.stack([self._answer(index, maps, matrices=False) for index in range(len(self.scales))], dim=1)
        return (answers * weight[:, :, None, None, None]).sum(dim=1)

    def _answer(self, index: int, maps: Tensor, matrices: bool = True) -> Tensor:
        """One expert on all given maps."""
        height, width = maps.shape[-2:]
        scale = self.scales[index]
        resize = _resize_by_matrices if matrices else _resize_by_interpolation
        enlarged = resize(maps, (height * scale, width * scale)) if scale > 1 else maps
        kernel, bias = self.weight[index].to(maps.dtype), self.bias[index].to(maps.dtype)
        activated = F.gelu(F.conv2d(enlarged, kernel, bias, padding=1))
        return resize(activated, (height, width)) if scale > 1 else activated


def _resize_by_interpolation(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bicubic", align_corners=False)


def _resize_by_matrices(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """The same as two matrix products: faster, most of all backwards, and reproducible on a GPU."""
    rows = _bicubic_matrix(maps.shape[-2], size[0], maps.dtype, maps.device)
    columns = _bicubic_matrix(maps.shape[-1], size[1], maps.dtype, maps.device)
    return torch.matmul(rows, torch.matmul(maps, columns.T))


@lru_cache(maxsize=256)
def _bicubic_matrix(size: int, new_size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Matrix (new_size, size) that resizes a column of values."""
    with torch.inference_mode(False), torch.no_grad():  # a tensor made in inference could not be trained with
        identity = torch.eye(size, dtype=torch.float64, device="cpu")[None, None]
        return _resize_by_interpolation(identity, (new_size, size))[0, 0].to(device, dtype)
