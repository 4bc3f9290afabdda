"""Soft Dice for each class of each image, of whole masks and of what lies near their boundary."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import Tensor

from topolora_monai.losses.base import ClassScores, Pixels, SegmentationLoss, check_smooth

__all__ = ["BoundaryDiceLoss", "SoftDiceLoss"]


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


class BoundaryDiceLoss(SegmentationLoss):
    """One minus the Dice of the edges of prediction and target.

    An edge is the morphological gradient: the largest less the smallest value among a pixel and its neighbours, corners
    included; of a mask that is a band of two pixels along its border, half inside and half outside. TopoLoRA-SAM
    (arXiv 2601.02273) has such a term at weight 0, on the absolute Laplacian. Beyond the border of the image and
    where pixels do not count there is background, so that a full target has an edge too. On an empty target every
    predicted edge costs: e pixels of edge cost 1 - smooth / (e + smooth); a flat prediction has edges at the
    border alone.

    Args:
        smooth: added to both sides of the ratio, in pixels.
        **options: see :class:`SegmentationLoss`.

    Raises:
        ConfigError: for a ``smooth`` that is not positive.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 1, 9, 9)
        >>> target[..., 3:6, 3:6] = 1  # its edge is 5 x 5 pixels without the middle one: 24
        >>> nothing = torch.zeros_like(target)
        >>> round(BoundaryDiceLoss()(100 * nothing - 50, target).item(), 4)  # 1 - 1 / (24 + 1)
        0.96
    """

    def __init__(self, smooth: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.smooth = check_smooth(smooth)

    def score(self, pixels: Pixels) -> ClassScores:
        """Dice loss over each image's edges."""
        predicted, true = pixels.inside(_edges(pixels.probability)), pixels.inside(_edges(pixels.target))
        overlap = 2 * pixels.total(predicted * true) + self.smooth
        return ClassScores(1 - overlap / (pixels.total(predicted) + pixels.total(true) + self.smooth))


def _edges(image: Tensor) -> Tensor:
    """Largest less smallest value in each pixel's neighbourhood of three along every axis, zeros around."""
    spatial = image.ndim - 2
    largest = F.max_pool2d if spatial == 2 else F.max_pool3d
    padded = F.pad(image, [1] * (2 * spatial))
    edges: Tensor = largest(padded, 3, stride=1) + largest(-padded, 3, stride=1)
    return edges
