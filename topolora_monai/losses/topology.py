"""BCE + Dice + clDice over the valid part of an image, with a ramp for the topology term."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import Tensor, nn

from topolora_monai.losses.cldice import SoftClDiceLoss

__all__ = ["TopologyLoss"]


class TopologyLoss(nn.Module):
    """Weighted sum of cross entropy, soft Dice and soft clDice on logits (TopoLoRA-SAM, arXiv 2601.02273).

    Each class of each sample counts alike in the overlap terms. Where a mask is given, pixels outside it
    have no influence on any term. All terms are computed in float32.

    Args:
        bce_weight: of the binary cross entropy, averaged over valid pixels.
        dice_weight: of the soft Dice loss.
        cldice_weight: of the soft clDice loss, once the ramp is over.
        iterations: scales of the soft skeleton.
        ramp: fraction of training over which the clDice weight grows linearly from 0; 0 applies it at
            once. The trainer reports its progress through :meth:`set_progress`.

    Raises:
        ValueError: for a negative weight or a ramp outside [0, 1].

    Example:
        >>> loss = TopologyLoss(cldice_weight=0.5)
        >>> target = (torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)) > 0.5).float()
        >>> loss(20 * target - 10, target).item() < loss(torch.zeros(2, 1, 32, 32), target).item()
        True
    """

    def __init__(
        self,
        bce_weight: float = 1.0,
        dice_weight: float = 1.0,
        cldice_weight: float = 0.5,
        iterations: int = 10,
        ramp: float = 0.0,
    ) -> None:
        super().__init__()
        if min(bce_weight, dice_weight, cldice_weight) < 0:
            raise ValueError(f"weights must not be negative, got {(bce_weight, dice_weight, cldice_weight)}")
        if not 0.0 <= ramp <= 1.0:
            raise ValueError(f"ramp is a fraction of training in [0, 1], got {ramp}")
        self.bce_weight = bce_weight
        self.dice_weight = dice_weight
        self.cldice_weight = cldice_weight
        self.ramp = ramp
        self.progress = 1.0
        self.dice = DiceLoss(smooth_nr=1.0, smooth_dr=1.0)
        self.cldice = SoftClDiceLoss(iterations)

    def set_progress(self, progress: float) -> None:
        """Tell how much of training is done, from 0 to 1."""
        self.progress = progress

    @property
    def topology_weight(self) -> float:
        """Weight of the clDice term at the present progress."""
        return self.cldice_weight * (min(1.0, self.progress / self.ramp) if self.ramp else 1.0)

    def forward(
        self, logits: Tensor, target: Tensor, *, mask: Tensor | None = None, skeleton: Tensor | None = None
    ) -> Tensor:
        """Compute the loss.

        Args:
            logits: shape (B, K, H, W), any floating dtype.
            target: same shape, 0 or 1.
            mask: 1 where pixels count (field of view, labelled), shape (B, 1, H, W).
            skeleton: exact skeleton of the target, same shape as ``target``; else a soft one is computed.

        Returns:
            Scalar, float32.

        Raises:
            ValueError: if logits and target differ in shape.
        """
        if logits.shape != target.shape:
            raise ValueError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} differ in shape")
        logits, target = logits.float(), target.float()
        valid = torch.ones_like(target) if mask is None else mask.float().expand_as(target)
        probability, target = torch.sigmoid(logits) * valid, target * valid
        entropy = F.binary_cross_entropy_with_logits(logits, target, weight=valid, reduction="sum")
        total = self.bce_weight * entropy / valid.sum().clamp(min=1.0)
        if self.dice_weight:
            total = total + self.dice_weight * self.dice(probability, target)
        if self.topology_weight:
            exact = skeleton * valid if skeleton is not None else None
            total = total + self.topology_weight * self.cldice(probability, target, exact)
        return total
