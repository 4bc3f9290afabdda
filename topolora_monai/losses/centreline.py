"""Losses on centrelines: what is made of the skeletons of prediction and target, and recall of the target's."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from topolora_monai.errors import ConfigError, unknown_choice
from topolora_monai.losses.base import ClassScores, Pixels, RatioLoss, SegmentationLoss
from topolora_monai.losses.soft_skeleton import soft_skeleton
from topolora_monai.losses.topology_skeleton import exact_skeleton, topology_skeleton

SkeletonMethod = Literal["soft", "topology_preserving"]

_NOISE = 0.33  # of the sampled masks in training, as the paper has it


class CentrelineLoss(SegmentationLoss):
    """Base of the losses that compare skeletons of prediction and target.

    A target that comes without its skeleton is thinned as the prediction is.

    Args:
        iterations: scales of the soft skeleton, see :func:`soft_skeleton`; of the topology-preserving one the
            iterations of thinning, see :func:`topology_skeleton`.
        skeleton: ``"soft"`` or ``"topology_preserving"``. The latter draws masks from torch's generator in training;
            after ``loss.eval()`` it takes the prediction at 0.5.
        **options: see :class:`SegmentationLoss`.

    Raises:
        ConfigError: for less than one iteration or an unknown method.
    """

    def __init__(self, iterations: int = 10, skeleton: SkeletonMethod = "soft", **options: Any) -> None:
        super().__init__(**options)
        if iterations < 1:
            raise ConfigError("the skeleton needs iterations", expected="1 or more", found=iterations)
        if skeleton not in get_args(SkeletonMethod):
            raise unknown_choice("skeleton method", skeleton, get_args(SkeletonMethod))
        self.iterations = iterations
        self.skeleton: SkeletonMethod = skeleton

    def predicted_skeleton(self, probability: Tensor, target: Tensor) -> Tensor:
        """Skeleton of the prediction; on an empty target the prediction itself, so that all of it is false."""
        if self.skeleton == "soft":
            skeleton = soft_skeleton(probability, self.iterations)
        else:
            skeleton = topology_skeleton(probability, self.iterations, _NOISE if self.training else 0.0)
        return torch.where(_without_foreground(target), probability, skeleton)

    def target_skeleton(self, pixels: Pixels) -> Tensor:
        """The skeleton that came with the target, or else one of the target."""
        return self.mask_skeleton(pixels.target) if pixels.skeleton is None else pixels.skeleton

    def mask_skeleton(self, mask: Tensor) -> Tensor:
        """Skeleton of a mask by the method chosen, 0 and 1, without noise or gradient."""
        if self.skeleton == "soft":
            small = (mask > 0.5).to(torch.uint8)  # the same zeros and ones in a quarter of the memory
            return soft_skeleton(small, self.iterations).to(mask)
        return topology_skeleton(mask.detach(), self.iterations, noise=0.0)


class SoftClDiceLoss(CentrelineLoss, RatioLoss):
    """One minus the soft centreline Dice (Shit et al., CVPR 2021, arXiv 2003.07311) of each class of each image.

    Differences from MONAI 1.6's ``SoftclDiceLoss``: classes are scored one by one instead of pooled; on an
    empty target every predicted pixel counts as a false centreline, where a thick false positive has no
    soft skeleton and would cost nothing; the target's skeleton can be exact, and both can preserve topology; half
    precision is computed in float32; time and memory are a fraction.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 4, :] = 1.0
        >>> loss = SoftClDiceLoss(iterations=2)
        >>> round(loss(100 * target - 50, target).item(), 4)
        0.0
        >>> loss(torch.full((1, 1, 64, 64), 50.0), torch.zeros(1, 1, 64, 64)).item() > 0.99
        True
    """

    def score(self, pixels: Pixels) -> ClassScores:
        """The clDice loss over each image's pixels."""
        probability, target = pixels.probability, pixels.target
        found, true = self.predicted_skeleton(probability, target), self.target_skeleton(pixels)
        return _one_less_mean(self.ratio(found * target, found), self.ratio(true * probability, true))


class ClCrossEntropyLoss(CentrelineLoss):
    """Centreline cross entropy, clCE (Acebes et al., MICCAI 2024).

    The sum of two means over all pixels that count: of the cross entropy times the target's skeleton, and of the cross
    entropy times the prediction's, as the authors' code has it (with three iterations instead of ten). The gradient
    flows through the entropies and the predicted skeleton. Since the means are over all pixels and skeletons hold
    few of them, values are small. Each class is scored against the rest, which for one class is the paper's softmax
    over two. On an empty target every predicted pixel counts as a false centreline; the authors' code takes the soft
    skeleton there too, which thick false positives do not have.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 1, 8, 10)
        >>> target[..., 4, :] = 1.0  # a tenth of 80 pixels, of which each costs ln 2; the prediction has no ridges
        >>> round(ClCrossEntropyLoss()(torch.zeros_like(target), target).item(), 4)
        0.0866
    """

    def score(self, pixels: Pixels) -> ClassScores:
        """Mean over each image's pixels; the mean over images weighs by pixels."""
        skeletons = self.target_skeleton(pixels) + self.predicted_skeleton(pixels.probability, pixels.target)
        return ClassScores(pixels.total(pixels.entropy * skeletons) / pixels.count.clamp(min=1.0), pixels.count)


class CbDiceLoss(CentrelineLoss, RatioLoss):
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
    cancels. To be used beside Dice or cross entropy. Distances are taken on the CPU, topology-preserving skeletons
    without noise.

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
        skeleton = torch.where(_without_foreground(target), found, self.mask_skeleton(found))
        predicted = _Weights.of(found, skeleton).times(probability)
        true = _Weights.of(target, self.target_skeleton(pixels))
        return _one_less_mean(self._share_inside(predicted, true), self._share_inside(true, predicted))

    def _share_inside(self, skeleton: _Weights, volume: _Weights) -> Tensor:
        """Share of a skeleton that lies well inside the other's mask."""
        ideal = torch.where(volume.radius != 0, volume.radius, skeleton.radius) * skeleton.inverse
        return self.ratio(skeleton.inverse * volume.distance, ideal)


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


class SkeletonRecallLoss(RatioLoss):
    """One minus the soft recall on the target's tubed skeleton (Kirchhoff et al., ECCV 2024, arXiv 2404.03010).

    The tube is the exact skeleton widened by ``radius`` steps of the cross-shaped neighbourhood, inside the target.
    The prediction is not thinned, so nothing here but a product needs a gradient. False positives cost nothing, and an
    empty target, whose recall counts as 1, costs 0 whatever is predicted: to be used beside Dice or cross entropy.

    Args:
        radius: of the tube, in pixels; 0 takes the skeleton itself. The paper's is 2.
        **options: see :class:`RatioLoss`.

    Raises:
        ConfigError: for a negative radius.

    Example:
        >>> target = torch.zeros(1, 1, 9, 12)
        >>> target[..., 4, 1:11] = 1
        >>> half = target.clone()
        >>> half[..., 6:] = 0
        >>> round(SkeletonRecallLoss()(100 * half - 50, target, skeleton=target).item(), 4)  # 1 - (5 + 1) / (10 + 1)
        0.4545
    """

    def __init__(self, radius: int = 2, **options: Any) -> None:
        super().__init__(**options)
        if radius < 0:
            raise ConfigError("the radius of the tube must not be negative", found=radius)
        self.radius = radius

    def score(self, pixels: Pixels) -> ClassScores:
        """Missed share of each image's tube."""
        skeleton = exact_skeleton(pixels.target) if pixels.skeleton is None else pixels.skeleton
        tube = (_widened(skeleton > 0.5, self.radius) & (pixels.target > 0.5)).to(pixels.target)
        return ClassScores(1 - self.ratio(tube * pixels.probability, tube))


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


def _without_foreground(target: Tensor) -> Tensor:
    """Where an image has nothing of a class, shape (B, K, 1, ...), bool."""
    return (target.flatten(2).amax(dim=2) == 0).view(*target.shape[:2], *[1] * (target.ndim - 2))


def _one_less_mean(precision: Tensor, sensitivity: Tensor) -> ClassScores:
    return ClassScores(1 - 2 * precision * sensitivity / (precision + sensitivity))
