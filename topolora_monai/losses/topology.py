"""A weighted sum of terms by name, some of which grow in during training."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from topolora_monai.errors import ConfigError, unknown_choice
from topolora_monai.losses.base import SegmentationLoss
from topolora_monai.losses.centreline import (
    CbDiceLoss,
    ClCrossEntropyLoss,
    SkeletonMethod,
    SkeletonRecallLoss,
    SoftClDiceLoss,
)
from topolora_monai.losses.component_graph import ComponentGraphLoss
from topolora_monai.losses.cross_entropy import BalancedCrossEntropyLoss, BinaryCrossEntropyLoss, CrossEntropyLoss
from topolora_monai.losses.overlap import BoundaryDiceLoss, SoftDiceLoss, StructureLoss

LOSS_TERMS: Mapping[str, Callable[..., SegmentationLoss]] = MappingProxyType(
    {
        "bce": BinaryCrossEntropyLoss,
        "balanced_bce": BalancedCrossEntropyLoss,
        "ce": CrossEntropyLoss,
        "dice": SoftDiceLoss,
        "cldice": SoftClDiceLoss,
        "skeleton_recall": SkeletonRecallLoss,
        "clce": ClCrossEntropyLoss,
        "cbdice": CbDiceLoss,
        "boundary_dice": BoundaryDiceLoss,
        "component_graph": ComponentGraphLoss,
        "structure": StructureLoss,
        "structure_weighted": partial(StructureLoss, weighted=True),
    }
)

DEFAULT_WEIGHTS: Mapping[str, float] = MappingProxyType({"bce": 1.0, "dice": 1.0, "cldice": 1.0})
"""Of the terms of TopoLoRA-SAM, with the weight of clDice that broke fewest vessels; the paper has 0.5."""

_THINNING_TERMS = ("cldice", "clce", "cbdice")  # thin the prediction
_SMOOTHED_TERMS = ("dice", "cldice")  # those of the paper
_SKELETON_TERMS = (*_THINNING_TERMS, "skeleton_recall")  # take the target's skeleton where there is one


class TopologyLoss(nn.Module):
    """Weighted sum of terms on logits; by default cross entropy, Dice and clDice (TopoLoRA-SAM, arXiv 2601.02273).

    Args:
        weights: of terms by their name in :data:`LOSS_TERMS`; a term of weight 0 is not computed.
        ramps: fraction of training over which a term's weight grows linearly from 0, by name; 0 applies it at
            once. The trainer reports its progress through :meth:`set_progress`.
        iterations: scales of the soft skeleton, see :func:`soft_skeleton`.
        skeleton: how predictions are thinned, ``"soft"`` or ``"topology_preserving"``, see :class:`CentrelineLoss`.
        smooth: added to both sides of the ratios of Dice and clDice, in pixels.
        softmax: classes exclude each other, see :class:`SegmentationLoss`.
        **options: of all terms, see :class:`SegmentationLoss`.

    Raises:
        ConfigError: for an unknown name, a negative weight, weights that are all 0 or a ramp outside [0, 1].

    Example:
        >>> loss = TopologyLoss({"bce": 1.0, "cldice": 0.5}, ramps={"cldice": 0.5})
        >>> loss.set_progress(0.25)
        >>> loss.weight("cldice")
        0.25
        >>> target = (torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)) > 0.5).float()
        >>> loss(20 * target - 10, target).item() < loss(torch.zeros(2, 1, 32, 32), target).item()
        True
    """

    def __init__(
        self,
        weights: Mapping[str, float] = DEFAULT_WEIGHTS,
        ramps: Mapping[str, float] | None = None,
        iterations: int = 10,
        skeleton: SkeletonMethod = "soft",
        smooth: float = 1.0,
        softmax: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.weights, self.ramps = dict(weights), dict(ramps or {})
        _check(self.weights, self.ramps)
        self.progress = 1.0
        self.terms = nn.ModuleDict()
        for name, weight in self.weights.items():
            if weight:
                own: dict[str, Any] = {"smooth": smooth} if name in _SMOOTHED_TERMS else {}
                own |= {"iterations": iterations, "skeleton": skeleton} if name in _THINNING_TERMS else {}
                self.terms[name] = LOSS_TERMS[name](softmax=softmax, **options, **own)

    def set_progress(self, progress: float) -> None:
        """Tell how much of training is done, from 0 to 1."""
        self.progress = progress

    def weight(self, name: str) -> float:
        """Weight of a term at the present progress; 0 for one that is not there."""
        ramp = self.ramps.get(name, 0.0)
        return self.weights.get(name, 0.0) * (min(1.0, self.progress / ramp) if ramp else 1.0)

    def forward(
        self, logits: Tensor, target: Tensor, *, mask: Tensor | None = None, skeleton: Tensor | None = None
    ) -> Tensor:
        """The sum, a scalar, float32, or float64 for such logits; otherwise as :meth:`SegmentationLoss.forward`."""
        total = logits.flatten()[:0].sum().to(torch.promote_types(logits.dtype, torch.float32))  # 0 with a gradient
        for name, term in self.terms.items():
            weight = self.weight(name)
            if weight:
                exact = skeleton if name in _SKELETON_TERMS else None
                total = total + weight * term(logits, target, mask=mask, skeleton=exact)
        return total


def topology_loss(weights: Mapping[str, float], exclusive: bool = False, **settings: Any) -> TopologyLoss:
    """The loss for classes that exclude one another, without a channel for the background, or for any others.

    Args:
        weights: as of :class:`TopologyLoss`; of exclusive classes ``bce`` weighs the cross entropy over all of them.
        exclusive: whether a pixel is of one class at most.
        **settings: further arguments of :class:`TopologyLoss`.

    Example:
        >>> list(topology_loss({"bce": 1.0, "dice": 1.0}, exclusive=True).terms)
        ['ce', 'dice']
    """
    if exclusive:
        weights = {"ce" if name == "bce" else name: weight for name, weight in weights.items()}
    return TopologyLoss(weights, softmax=exclusive, implicit_background=exclusive, **settings)


def _check(weights: Mapping[str, float], ramps: Mapping[str, float]) -> None:
    for name in (*weights, *ramps):
        if name not in LOSS_TERMS:
            raise unknown_choice("loss term", name, LOSS_TERMS)
    for name, weight in weights.items():
        if not weight >= 0:
            raise ConfigError(f"the weight of {name} must not be negative", found=weight)
    if not any(weights.values()):
        raise ConfigError("all terms of the loss have weight 0", found=dict(weights), hint="give one a weight")
    for name, ramp in ramps.items():
        if not 0.0 <= ramp <= 1.0:
            raise ConfigError(f"the ramp of {name} is a fraction of training", expected="0 to 1", found=ramp)
