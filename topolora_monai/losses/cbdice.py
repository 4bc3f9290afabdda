"""clDice that weighs centrelines by the radius of their vessels."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from topolora_monai.losses.base import ClassScores, Pixels
from topolora_monai.losses.centreline import SmoothCentrelineLoss, without_foreground

__all__ = ["CbDiceLoss"]


class CbDiceLoss(SmoothCentrelineLoss):
    """One minus the centreline boundary Dice (Shi et al., MICCAI 2024, arXiv 2407.01517).

    For a mask with skeleton S let D be the Euclidean distance to its background, R the largest D on S and at least 1.
    Then v = min(D / R, 1) weighs the mask, r = D / R the skeleton's radii, and i = (R - D + 1) / R (squared in
    volumes) the skeleton, so that narrow vessels count more. Let p be the prediction's probability; its mask is p > 0.5
    and its skeleton hard. With l the target, precision is sum(i_p S_p p v_l) over sum(i_p S_p p w_p), w_p being r_l
    on the target's skeleton and r_p p off it; sensitivity is sum(i_l S_l v_p p) over sum(i_l S_l w_l), w_l being
    r_p p on the predicted skeleton and r_l off it; cbDice is their harmonic mean.

    This is the variant of the authors' code with hard skeletons of both and the linear inverse of the radius; their
    other one thins the probability and divides by the radius. Differences: images and classes are scored one by one
    instead of pooled; on an empty target all of the predicted mask counts as skeleton; a mask without background has
    D = 1. As with theirs, the gradient passes through p alone and only inside the predicted mask: a vessel that is
    missed whole costs, but has no gradient here, and where the masks agree the loss is 0 however unsure p is, which
    cancels. To be used beside Dice or cross entropy. Distances are taken on the CPU.

    Args:
        iterations: scales of the soft skeleton, see :class:`CentrelineLoss`.
        smooth: added to both sides of each ratio.
        exact_target: see :class:`CentrelineLoss`.
        skeleton: ``"soft"`` or ``"topology_preserving"``, of the masks without noise, see :class:`CentrelineLoss`.
        **options: see :class:`SegmentationLoss`.

    Raises:
        ConfigError: for less than one iteration, a ``smooth`` that is not positive or an unknown skeleton.

    Example:
        >>> target = torch.zeros(1, 1, 8, 12)
        >>> target[..., 4, 1:11] = 1  # one pixel wide: all weights are 1, and it is clDice
        >>> half = target.clone()
        >>> half[..., 6:] = 0
        >>> round(CbDiceLoss()(100 * half - 50, target).item(), 4)  # recall 6 / 11, precision 1
        0.2941
    """

    def score(self, pixels: Pixels) -> ClassScores:
        """The cbDice loss over each image's pixels."""
        probability, target = pixels.probability, pixels.target
        found = (probability.detach() > 0.5).to(target)
        skeleton = torch.where(without_foreground(target), found, self.mask_skeleton(found))
        predicted = _Weights.of(found, skeleton).times(probability)
        true = _Weights.of(target, self.target_skeleton(pixels))
        precision = self._ratio(predicted, true)
        sensitivity = self._ratio(true, predicted)
        return ClassScores(1 - 2 * precision * sensitivity / (precision + sensitivity))

    def _ratio(self, skeleton: _Weights, volume: _Weights) -> Tensor:
        """Share of a skeleton that lies well inside the other's mask."""
        ideal = torch.where(volume.radius != 0, volume.radius, skeleton.radius) * skeleton.inverse
        inside = skeleton.inverse * volume.distance
        return (Pixels.total(inside) + self.smooth) / (Pixels.total(ideal) + self.smooth)


@dataclasses.dataclass(frozen=True)
class _Weights:
    """Weights of a mask and its skeleton, 0 outside, shape (B, K, ...): v, r on S, and i on S, as named above."""

    distance: Tensor
    radius: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, mask: Tensor, skeleton: Tensor) -> _Weights:
        """Weights of a mask of 0 and 1 and its skeleton."""
        axes = [1] * (mask.ndim - 2)
        distance = _distance(mask)
        radius = distance * skeleton
        largest = radius.flatten(2).amax(dim=2).clamp(min=1.0).view(*mask.shape[:2], *axes)
        inverse = ((largest - radius + 1) / largest) ** (mask.ndim - 3)
        return cls((distance / largest).clamp(max=1.0), radius / largest, inverse * skeleton)

    def times(self, probability: Tensor) -> _Weights:
        """The weights times the probability of each pixel."""
        return _Weights(self.distance * probability, self.radius * probability, self.inverse * probability)


def _distance(mask: Tensor) -> Tensor:
    """Euclidean distance to the background in pixels; 1 where a channel has none."""
    found = mask.detach().cpu().numpy() > 0.5
    channels = found.reshape(-1, *found.shape[2:])
    distances = np.stack([channel * 1.0 if channel.all() else distance_transform_edt(channel) for channel in channels])
    return torch.from_numpy(distances).view(mask.shape).to(mask)
