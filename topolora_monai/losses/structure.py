"""Overlap and cross entropy that weigh pixels near edges more."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from topolora_monai.losses.base import ClassScores, Pixels, SegmentationLoss

__all__ = ["StructureLoss"]

_WINDOW = 31
_EDGE_WEIGHT = 5.0


class StructureLoss(SegmentationLoss):
    """Weighted IoU plus cross entropy (F3Net, AAAI 2020, arXiv 1911.11445; Conv-LoRA, arXiv 2401.17868).

    A pixel weighs 1 + 5 |m - g|, g its target and m the mean of the target over the 31 x 31 pixels around it;
    beyond the border, and where pixels do not count, the target is taken for 0. On an empty target all pixels
    weigh alike and every predicted one costs.

    Args:
        weighted: weigh the cross entropy as well, as the paper says. The code that F3Net, PraNet and Conv-LoRA were
            trained with takes its plain mean instead, by an argument that no longer means what it says.
        smooth: added to both sides of the IoU, in weighted pixels.
        **options: see :class:`SegmentationLoss`.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> logits = 40 * target - 20
        >>> round(StructureLoss()(logits, target).item(), 4), round(StructureLoss()(-logits, target).item())
        (0.0, 21)
    """

    def __init__(self, weighted: bool = False, smooth: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.weighted = weighted
        self.smooth = smooth

    def score(self, pixels: Pixels) -> ClassScores:
        """Weighted IoU loss plus cross entropy over each image's pixels."""
        probability, target = pixels.probability, pixels.target
        weight = pixels.inside(1 + _EDGE_WEIGHT * (_local_mean(target) - target).abs())
        entropy = F.binary_cross_entropy_with_logits(
            pixels.odds, target, weight=weight if self.weighted else pixels.valid, reduction="none"
        )
        over = pixels.total(weight) if self.weighted else pixels.count
        overlap = pixels.total(probability * target * weight)
        union = pixels.total((probability + target) * weight) - overlap
        iou = (overlap + self.smooth) / (union + self.smooth)
        return ClassScores(pixels.total(entropy) / over.clamp(min=1.0) + 1 - iou)


def _local_mean(target: Tensor) -> Tensor:
    """Mean over a square or cubic window, zero beyond the border; one axis after another, which is much faster."""
    average = F.avg_pool2d if target.ndim == 4 else F.avg_pool3d
    spatial = target.ndim - 2
    for axis in range(spatial):
        window = [_WINDOW if axis == other else 1 for other in range(spatial)]
        padding = [side // 2 for side in reversed(window) for _ in range(2)]
        target = average(F.pad(target, padding), window, stride=1)  # its own padding refuses thin volumes
    return target
