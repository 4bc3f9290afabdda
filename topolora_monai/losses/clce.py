"""Cross entropy on the centrelines of prediction and target."""

from __future__ import annotations

import torch.nn.functional as F

from topolora_monai.losses.base import ClassScores, Pixels
from topolora_monai.losses.centreline import CentrelineLoss

__all__ = ["ClCrossEntropyLoss"]


class ClCrossEntropyLoss(CentrelineLoss):
    """Centreline cross entropy, clCE (Acebes et al., MICCAI 2024).

    The sum of two means over all pixels that count: of the cross entropy times the target's skeleton, and of the cross
    entropy times the prediction's, as the authors' code has it (with three iterations instead of ten). The gradient
    flows through the entropies and the predicted skeleton. Since the means are over all pixels and skeletons hold
    few of them, values are small. Each class is scored against the rest, which for one class is the paper's softmax
    over two. On an empty target every predicted pixel counts as a false centreline; the authors' code takes the soft
    skeleton there too, which thick false positives do not have.

    Args:
        iterations: scales of the soft skeleton, see :class:`CentrelineLoss`.
        exact_target: see :class:`CentrelineLoss`.
        skeleton: ``"soft"`` or ``"topology_preserving"``, see :class:`CentrelineLoss`.
        **options: see :class:`SegmentationLoss`.

    Raises:
        ConfigError: for less than one iteration or an unknown skeleton.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 1, 8, 10)
        >>> target[..., 4, :] = 1.0  # a tenth of 80 pixels, of which each costs ln 2; the prediction has no ridges
        >>> round(ClCrossEntropyLoss()(torch.zeros_like(target), target).item(), 4)
        0.0866
    """

    def score(self, pixels: Pixels) -> ClassScores:
        """Mean over each image's pixels; the mean over images weighs by pixels."""
        entropy = F.binary_cross_entropy_with_logits(pixels.odds, pixels.target, weight=pixels.valid, reduction="none")
        skeletons = self.target_skeleton(pixels) + self.predicted_skeleton(pixels.probability, pixels.target)
        return ClassScores(pixels.total(entropy * skeletons) / pixels.count.clamp(min=1.0), pixels.count)
