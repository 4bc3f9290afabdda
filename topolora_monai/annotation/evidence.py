"""What tells a structure from its surroundings in an image, in one number a pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["local_contrast"]

_FINE, _COARSE = 0.7, 12.0
_MOST_PIXELS = 50_000


def local_contrast(image: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Difference of each pixel to its surroundings, in the colour that tells a mask from the rest.

    Each channel is smoothed a little, and its wide average (12 pixels) taken away, so that uneven light does not
    count. Channels are added with the weights of Fisher's discriminant between mask and background.

    Args:
        image: shape (C, H, W), in [0, 1].
        mask: shape (H, W), a first guess of the structures; where it is empty or full, channels weigh alike.

    Returns:
        Shape (H, W), higher in structures; its standard deviation is 1, or 0 for an image of one colour.

    Example:
        >>> image = np.full((3, 9, 9), 0.5, np.float32)
        >>> image[1, 4] = 0.2  # a line that is seen in one channel
        >>> contrast = local_contrast(image, image[1] < 0.4)
        >>> bool(contrast[4].min() > 1 > contrast[:3].max())
        True
    """
    fine = np.stack([ndimage.gaussian_filter(channel, _FINE) for channel in image])
    contrast = fine - np.stack([ndimage.gaussian_filter(channel, _COARSE) for channel in fine])
    contrast = np.tensordot(_direction(contrast, mask), contrast, 1)
    spread = float(contrast.std())
    return (contrast / spread if spread > 1e-7 else np.zeros_like(contrast)).astype(np.float32)


def _direction(contrast: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    step = max(1, mask.size // _MOST_PIXELS)
    inside, outside = contrast[:, mask][:, ::step], contrast[:, ~mask][:, ::step]
    if min(inside.shape[1], outside.shape[1]) < 2:
        return np.ones(len(contrast)) / len(contrast)
    within = np.atleast_2d(np.cov(inside)) + np.atleast_2d(np.cov(outside))
    ridge = 1e-3 * np.trace(within) / len(within) + 1e-12
    difference = inside.mean(axis=1) - outside.mean(axis=1)
    return np.asarray(np.linalg.solve(within + ridge * np.eye(len(within)), difference), np.float64)
