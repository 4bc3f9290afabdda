"""Overlap for each class of each image: Dice of masks and of their edges, and an IoU that stresses edges."""

from typing import Any

import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import Tensor

from topolora_monai.losses.base import ClassScores, Pixels, RatioLoss, SegmentationLoss

_WINDOW = 31
_EDGE_WEIGHT = 5.0


class SoftDiceLoss(SegmentationLoss):
    """One minus the soft Dice, by MONAI's ``DiceLoss``; the mean is over images and classes alike.

    On an empty target every predicted pixel costs: p predicted pixels cost 1 - smooth / (p + smooth).

    Args:
        smooth: added to both sides of the ratio, in pixels.
        **options: see :class:`SegmentationLoss`.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 1, 4, 4)
        >>> SoftDiceLoss()(torch.zeros_like(target), target).item()  # 16 pixels of one half: 1 - 1 / 9
        0.8888888955116272
    """

    def __init__(self, smooth: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.dice = DiceLoss(smooth_nr=smooth, smooth_dr=smooth, reduction="none")

    def score(self, pixels: Pixels) -> ClassScores:
        """Dice loss over each image's pixels."""
        return ClassScores(self.dice(pixels.probability, pixels.target).flatten(1))


class BoundaryDiceLoss(RatioLoss):
    """One minus the Dice of the edges of prediction and target.

    An edge is the morphological gradient: the largest less the smallest value among a pixel and its neighbours, corners
    included; of a mask that is a band of two pixels along its border, half inside and half outside. TopoLoRA-SAM
    (arXiv 2601.02273) has such a term at weight 0, on the absolute Laplacian. Beyond the border of the image and
    where pixels do not count there is background, so that a full target has an edge too. On an empty target every
    predicted edge costs: e pixels of edge cost 1 - smooth / (e + smooth); a flat prediction has edges at the
    border alone.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 1, 9, 9)
        >>> target[..., 3:6, 3:6] = 1  # its edge is 5 x 5 pixels without the middle one: 24
        >>> nothing = torch.zeros_like(target)
        >>> round(BoundaryDiceLoss()(100 * nothing - 50, target).item(), 4)  # 1 - 1 / (24 + 1)
        0.96
    """

    def score(self, pixels: Pixels) -> ClassScores:
        """Dice loss over each image's edges."""
        predicted, true = pixels.inside(_edges(pixels.probability)), pixels.inside(_edges(pixels.target))
        return ClassScores(1 - self.ratio(2 * predicted * true, predicted + true))


class StructureLoss(RatioLoss):
    """Weighted IoU plus cross entropy (F3Net, AAAI 2020, arXiv 1911.11445; Conv-LoRA, arXiv 2401.17868).

    A pixel weighs 1 + 5 |m - g|, g its target and m the mean of the target over the 31 x 31 pixels around it;
    beyond the border, and where pixels do not count, the target is taken for 0. On an empty target all pixels
    weigh alike and every predicted one costs.

    Args:
        weighted: weigh the cross entropy as well, as the paper says. The code that F3Net, PraNet and Conv-LoRA were
            trained with takes its plain mean instead, by an argument that no longer means what it says.
        **options: see :class:`RatioLoss`; its pixels are weighted ones here.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> logits = 40 * target - 20
        >>> round(StructureLoss()(logits, target).item(), 4), round(StructureLoss()(-logits, target).item())
        (0.0, 21)
    """

    def __init__(self, weighted: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.weighted = weighted

    def score(self, pixels: Pixels) -> ClassScores:
        """Weighted IoU loss plus cross entropy over each image's pixels."""
        probability, target = pixels.probability, pixels.target
        weight = pixels.inside(1 + _EDGE_WEIGHT * (_local_mean(target) - target).abs())
        entropy, count = pixels.entropy, pixels.count
        if self.weighted:
            entropy, count = entropy * weight, pixels.total(weight)
        overlap = probability * target * weight
        iou = self.ratio(overlap, (probability + target) * weight - overlap)
        return ClassScores(pixels.total(entropy) / count.clamp(min=1.0) + 1 - iou)


def _edges(image: Tensor) -> Tensor:
    """Largest less smallest value in each pixel's neighbourhood of three along every axis, zeros around."""
    spatial = image.ndim - 2
    largest = F.max_pool2d if spatial == 2 else F.max_pool3d
    padded = F.pad(image, [1] * (2 * spatial))
    edges: Tensor = largest(padded, 3, stride=1) + largest(-padded, 3, stride=1)
    return edges


def _local_mean(target: Tensor) -> Tensor:
    """Mean over a square or cubic window, zero beyond the border; one axis after another, which is much faster."""
    average = F.avg_pool2d if target.ndim == 4 else F.avg_pool3d
    spatial = target.ndim - 2
    for axis in range(spatial):
        window = [_WINDOW if axis == other else 1 for other in range(spatial)]
        padding = [side // 2 for side in reversed(window) for _ in range(2)]
        target = average(F.pad(target, padding), window, stride=1)  # its own padding refuses thin volumes
    return target
