"""Noisy top-k routing of feature maps to experts, and how far it is from balanced."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topolora_monai.adapters.config import Gate
from topolora_monai.errors import ConfigError

__all__ = ["NoisyTopKGate", "Routing"]

_NOISE_FLOOR = 1e-2


class Routing(NamedTuple):
    """Which experts answer for each of N maps.

    Args:
        choice: indices of the chosen experts, int64, shape (N, top_k).
        weight: what their answers are multiplied by, shape (N, top_k).
        imbalance: CV^2 of importance plus CV^2 of load over the experts, a scalar; None outside training.
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
