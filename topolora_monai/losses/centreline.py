"""What the losses on centrelines share: the skeletons of prediction and target."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from topolora_monai.errors import ConfigError, unknown_choice
from topolora_monai.losses.base import Pixels, SegmentationLoss, check_smooth
from topolora_monai.losses.exact_skeleton import exact_skeleton
from topolora_monai.losses.soft_skeleton import soft_skeleton
from topolora_monai.losses.topology_skeleton import topology_skeleton

__all__ = ["CentrelineLoss", "SkeletonMethod", "SmoothCentrelineLoss", "without_foreground"]

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
