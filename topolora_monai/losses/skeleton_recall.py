"""Recall of the target's centreline, at next to no cost."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from topolora_monai.errors import ConfigError
from topolora_monai.losses.base import ClassScores, Pixels, SegmentationLoss, check_smooth
from topolora_monai.losses.exact_skeleton import exact_skeleton

__all__ = ["SkeletonRecallLoss"]


class SkeletonRecallLoss(SegmentationLoss):
    """One minus the soft recall on the target's tubed skeleton (Kirchhoff et al., ECCV 2024, arXiv 2404.03010).

    The tube is the exact skeleton widened by ``radius`` steps of the cross-shaped neighbourhood, inside the target.
    The prediction is not thinned, so nothing here but a product needs a gradient. False positives cost nothing, and an
    empty target, whose recall counts as 1, costs 0 whatever is predicted: to be used beside Dice or cross entropy.

    Args:
        radius: of the tube, in pixels; 0 takes the skeleton itself. The paper's is 2.
        smooth: added to both sides of the ratio, in pixels.
        **options: see :class:`SegmentationLoss`.

    Raises:
        ConfigError: for a negative radius or a ``smooth`` that is not positive.

    Example:
        >>> target = torch.zeros(1, 1, 9, 12)
        >>> target[..., 4, 1:11] = 1
        >>> half = target.clone()
        >>> half[..., 6:] = 0
        >>> round(SkeletonRecallLoss()(100 * half - 50, target, skeleton=target).item(), 4)  # 1 - (5 + 1) / (10 + 1)
        0.4545
    """

    def __init__(self, radius: int = 2, smooth: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        if radius < 0:
            raise ConfigError("the radius of the tube must not be negative", found=radius)
        self.radius = radius
        self.smooth = check_smooth(smooth)

    def score(self, pixels: Pixels) -> ClassScores:
        """Missed share of each image's tube."""
        skeleton = exact_skeleton(pixels.target) if pixels.skeleton is None else pixels.skeleton
        tube = (_widened(skeleton > 0.5, self.radius) & (pixels.target > 0.5)).to(pixels.target)
        found = pixels.total(tube * pixels.probability)
        return ClassScores(1 - (found + self.smooth) / (pixels.total(tube) + self.smooth))


def _widened(mask: Tensor, radius: int) -> Tensor:
    """Dilation by a cross, ``radius`` times."""
    for _ in range(radius):
        wide = mask.clone()
        for axis in range(2, mask.ndim):
            length = mask.shape[axis] - 1
            for start, other in ((1, 0), (0, 1)):
                inner = wide.narrow(axis, start, length)
                torch.logical_or(inner, mask.narrow(axis, other, length), out=inner)
        mask = wide
    return mask
