"""Losses on centrelines: the skeletons of prediction and target that they share, Dice and cross entropy on them."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from topolora_monai.errors import ConfigError, unknown_choice
from topolora_monai.losses.base import ClassScores, Pixels, SegmentationLoss, check_smooth
from topolora_monai.losses.exact_skeleton import exact_skeleton
from topolora_monai.losses.soft_skeleton import soft_skeleton
from topolora_monai.losses.topology_skeleton import topology_skeleton

__all__ = [
    "CentrelineLoss",
    "ClCrossEntropyLoss",
    "SkeletonMethod",
    "SmoothCentrelineLoss",
    "SoftClDiceLoss",
    "without_foreground",
]

SkeletonMethod = Literal["soft", "topology_preserving"]

_METHODS = ("soft", "topology_preserving")
_NOISE = 0.33  # of the sampled masks in training, as the paper has it


class CentrelineLoss(SegmentationLoss):
    """Base of the losses that compare skeletons of prediction and target.

    Args:
        iterations: scales of the soft skeleton, see :func:`soft_skeleton`; of the topology-preserving one the
            iterations of thinning, see :func:`topology_skeleton`.
        exact_target: take the exact skeleton of a target that comes without one (scikit-image, on the CPU),
            which also exists where structures are wider than ``2 * iterations`` pixels; else the same method as
            for the prediction.
        skeleton: ``"soft"`` or ``"topology_preserving"``. The latter draws masks from torch's generator in training;
            after ``loss.eval()`` it takes the prediction at 0.5.
        **options: see :class:`SegmentationLoss`.

    Raises:
        ConfigError: for less than one iteration or an unknown method.
    """

    def __init__(
        self, iterations: int = 10, exact_target: bool = False, skeleton: SkeletonMethod = "soft", **options: Any
    ) -> None:
        super().__init__(**options)
        if iterations < 1:
            raise ConfigError("the skeleton needs iterations", expected="1 or more", found=iterations)
        if skeleton not in _METHODS:
            raise unknown_choice("skeleton method", skeleton, _METHODS)
        self.iterations = iterations
        self.exact_target = exact_target
        self.skeleton: SkeletonMethod = skeleton

    def predicted_skeleton(self, probability: Tensor, target: Tensor) -> Tensor:
        """Skeleton of the prediction; on an empty target the prediction itself, so that all of it is false."""
        if self.skeleton == "soft":
            skeleton = soft_skeleton(probability, self.iterations)
        else:
            skeleton = topology_skeleton(probability, self.iterations, _NOISE if self.training else 0.0)
        return torch.where(without_foreground(target), probability, skeleton)

    def target_skeleton(self, pixels: Pixels) -> Tensor:
        """The skeleton that came with the target, or else one of the target."""
        if pixels.skeleton is not None:
            return pixels.skeleton
        if self.exact_target:
            return exact_skeleton(pixels.target)
        return self.mask_skeleton(pixels.target)

    def mask_skeleton(self, mask: Tensor) -> Tensor:
        """Skeleton of a mask by the method chosen, 0 and 1, without noise or gradient."""
        if self.skeleton == "soft":
            small = (mask > 0.5).to(torch.uint8)  # the same zeros and ones in a quarter of the memory
            return soft_skeleton(small, self.iterations).to(mask)
        return topology_skeleton(mask.detach(), self.iterations, noise=0.0)


class SmoothCentrelineLoss(CentrelineLoss):
    """Base of those that are made of ratios.

    Args:
        iterations: see :class:`CentrelineLoss`.
        smooth: added to both sides of each ratio, in pixels.
        exact_target: see :class:`CentrelineLoss`.
        skeleton: likewise.
        **options: see :class:`SegmentationLoss`.

    Raises:
        ConfigError: as :class:`CentrelineLoss`, and for a ``smooth`` that is not positive.
    """

    def __init__(
        self,
        iterations: int = 10,
        smooth: float = 1.0,
        exact_target: bool = False,
        skeleton: SkeletonMethod = "soft",
        **options: Any,
    ) -> None:
        super().__init__(iterations, exact_target, skeleton, **options)
        self.smooth = check_smooth(smooth)


def without_foreground(target: Tensor) -> Tensor:
    """Where an image has nothing of a class, shape (B, K, 1, ...), bool."""
    return (target.flatten(2).amax(dim=2) == 0).view(*target.shape[:2], *[1] * (target.ndim - 2))


class SoftClDiceLoss(SmoothCentrelineLoss):
    """One minus the soft centreline Dice (Shit et al., CVPR 2021, arXiv 2003.07311) of each class of each image.

    Differences from MONAI 1.6's ``SoftclDiceLoss``: classes are scored one by one instead of pooled; on an
    empty target every predicted pixel counts as a false centreline, where a thick false positive has no
    soft skeleton and would cost nothing; the target's skeleton can be exact, and both can preserve topology; half
    precision is computed in float32; time and memory are a fraction.

    Args:
        iterations: scales of the soft skeleton, see :class:`CentrelineLoss`.
        smooth: added to both sides of each ratio, in pixels.
        exact_target: see :class:`CentrelineLoss`.
        skeleton: ``"soft"`` or ``"topology_preserving"``, see :class:`CentrelineLoss`.
        **options: see :class:`SegmentationLoss`.

    Raises:
        ConfigError: for less than one iteration, a ``smooth`` that is not positive or an unknown skeleton.

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
        precision = self._ratio(self.predicted_skeleton(probability, target), target)
        sensitivity = self._ratio(self.target_skeleton(pixels), probability)
        return ClassScores(1 - 2 * precision * sensitivity / (precision + sensitivity))

    def _ratio(self, skeleton: Tensor, volume: Tensor) -> Tensor:
        return (Pixels.total(skeleton * volume) + self.smooth) / (Pixels.total(skeleton) + self.smooth)


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
