"""Skeletons of one pixel's width by scikit-image, on the CPU."""

from __future__ import annotations

import numpy as np
import torch
from skimage.morphology import skeletonize
from torch import Tensor

__all__ = ["exact_skeleton"]


def exact_skeleton(mask: Tensor) -> Tensor:
    """Topological skeleton of each channel: Zhang-Suen thinning of images, Lee's of volumes.

    Args:
        mask: shape (B, K, H, W) or (B, K, D, H, W), foreground above 0.5.

    Returns:
        0 and 1, of the shape, dtype and device of ``mask``; without a gradient. Mirrored masks may have skeletons
        that differ by a pixel from the mirrored ones.

    Example:
        >>> bar = torch.zeros(1, 1, 7, 9)
        >>> bar[..., 2:5, 1:8] = 1
        >>> skeleton = exact_skeleton(bar)
        >>> bool(5 <= skeleton.sum() <= 7), bool((skeleton <= bar).all())
        (True, True)
    """
    found = mask.detach().cpu().numpy() > 0.5
    channels = found.reshape(-1, *found.shape[2:])
    thinned = np.stack([skeletonize(channel) > 0 if channel.any() else channel for channel in channels])
    return torch.from_numpy(thinned).view(mask.shape).to(mask)
