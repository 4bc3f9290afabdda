"""Convolutions at several scales, and noisy top-k routing of feature maps to them."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topolora_monai.errors import ConfigError

Gate = Literal["learned", "published"]

_NOISE_FLOOR = 1e-2


class Routing(NamedTuple):
    """Which experts answer for each of N maps: ``choice``, their indices, int64, shape (N, top_k).

    Their answers are multiplied by ``weight``, shape (N, top_k); ``imbalance`` is a scalar, CV^2 of importance plus
    CV^2 of load over the experts, None outside training.
    """

    choice: Tensor
    weight: Tensor
    imbalance: Tensor | None


class NoisyTopKGate(nn.Module):
    """Choose experts from a map's average (Shazeer et al., arXiv 1701.06538, as Conv-LoRA uses it).

    A linear layer on the globally pooled map scores the experts; in training, Gaussian noise of a learned
    spread is added before the best ``top_k`` are taken, in evaluation none. Both linear layers start at
    zero, so a new gate chooses at random in training.

    Args:
        channels: channels of the maps.
        experts: number of experts.
        top_k: experts that answer for each map, from 1 to ``experts``.
        kind: ``"published"`` weights every chosen answer by one, as the reference code does, so only the
            balance loss trains the gate. ``"learned"`` weights it by ``experts / top_k`` times its
            probability, a softmax of the noise-free scores: the same at the start, where all experts
            are equally likely, and open to the gradient of the task.

    Raises:
        ConfigError: for an impossible ``top_k`` or an unknown ``kind``.

    Example:
        >>> gate = NoisyTopKGate(channels=3, experts=8).eval()
        >>> gate(torch.rand(2, 3, 14, 14)).weight
        tensor([[1.],
                [1.]], grad_fn=<MulBackward0>)
    """

    def __init__(self, channels: int, experts: int, top_k: int = 1, kind: Gate = "learned") -> None:
        super().__init__()
        if not 1 <= top_k <= experts:
            raise ConfigError("top_k does not fit the number of experts", expected=f"1 to {experts}", found=top_k)
        if kind not in ("learned", "published"):
            raise ConfigError("unknown gate", expected='"learned" or "published"', found=repr(kind))
        self.experts, self.top_k, self.kind = experts, top_k, kind
        self.weight = nn.Parameter(torch.zeros(experts, channels))
        self.noise_weight = nn.Parameter(torch.zeros(experts, channels))

    def forward(self, maps: Tensor) -> Routing:
        """Route maps of shape (N, channels, h, w), in float32 or float64."""
        pooled = maps.mean(dim=(2, 3))
        clean = F.linear(pooled, self.weight.to(pooled.dtype))
        if not self.training:
            choice = clean.topk(self.top_k, dim=1).indices
            return Routing(choice, self._weights(clean, choice), None)
        spread = F.softplus(F.linear(pooled, self.noise_weight.to(pooled.dtype))) + _NOISE_FLOOR
        noisy = clean + torch.randn_like(clean) * spread
        scores, ranked = noisy.topk(min(self.top_k + 1, self.experts), dim=1)
        choice = ranked[:, : self.top_k]
        weight = self._weights(clean, choice)
        shares = weight if self.kind == "learned" else scores[:, : self.top_k].softmax(dim=1)
        gates = torch.zeros_like(clean).scatter(1, choice, shares)
        if self.top_k < self.experts:
            load = _chance_to_be_chosen(clean, noisy, spread, scores).sum(dim=0)
        else:
            load = (gates > 0).to(gates.dtype).sum(dim=0)
        return Routing(choice, weight, _squared_variation(gates.sum(dim=0)) + _squared_variation(load))

    def _weights(self, clean: Tensor, choice: Tensor) -> Tensor:
        if self.kind == "published":
            return torch.ones_like(choice, dtype=clean.dtype)
        return clean.softmax(dim=1).gather(1, choice) * (self.experts / self.top_k)


def _chance_to_be_chosen(clean: Tensor, noisy: Tensor, spread: Tensor, scores: Tensor) -> Tensor:
    """Probability that fresh noise on one expert alone would choose it; scores are the best top_k + 1."""
    last_in, first_out = scores[:, -2:].split(1, dim=1)
    threshold = torch.where(noisy > first_out, first_out, last_in)
    chance: Tensor = torch.special.ndtr((clean - threshold) / spread)
    return chance


def _squared_variation(amount: Tensor) -> Tensor:
    """Squared coefficient of variation, with the unbiased variance; zero for a single expert."""
    if amount.numel() == 1:
        return amount.new_zeros(())
    return amount.var() / (amount.mean().square() + 1e-10)


class ConvExperts(nn.Module):
    """Expert i computes ``down_i(GELU(conv3x3_i(up_i(z))))``; resizing by ``scales[i]`` is bicubic.

    The parameters of all experts lie in two tensors, so each gets a gradient (zero for an expert without
    maps) in every step, which distributed training relies on.

    Args:
        channels: channels r of the maps.
        scales: factor of each expert, whole numbers from 1.

    Example:
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
        """Weighted sum of the chosen experts' answers, (N, channels, h, w) in and out, any grid, float32 or float64.

        With ``dense`` every expert runs on every map and is masked, which has no control flow that depends on the data
        and can be exported; otherwise only chosen experts run. The values are equal.
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
