"""Soft Dice for each class of each image."""

from __future__ import annotations

from typing import Any

from monai.losses import DiceLoss

from topolora_monai.losses.base import ClassScores, Pixels, SegmentationLoss

__all__ = ["SoftDiceLoss"]


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
