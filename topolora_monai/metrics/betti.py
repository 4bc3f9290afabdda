"""Betti numbers of masks, and how far those of a prediction are off."""

import itertools
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage
from skimage.measure import euler_number

from topolora_monai.metrics.image_metric import valid_masks


def betti_numbers(mask: ArrayLike) -> tuple[int, ...]:
    """Numbers of connected components and of holes; in 3-D of components, tunnels and cavities.

    A pixel is a closed square: foreground pixels are neighbours by edge or corner (8 of them, in 3-D 26), background
    pixels by edge only (4, in 3-D 6). What lies beyond the image is background, so that a hole is one only if the
    foreground surrounds it inside the image.

    Returns:
        (b0, b1), in 3-D (b0, b1, b2); zeros for an empty mask, (1, 0) for a full one.

    Raises:
        ValueError: if the mask is neither (H, W) nor (D, H, W).

    Example:
        >>> ring = np.ones((5, 5), bool)
        >>> ring[2, 2] = False
        >>> betti_numbers(ring), betti_numbers(np.eye(3)), betti_numbers(1 - np.eye(3))
        ((1, 1), (1, 0), (1, 1))
    """
    pixels = np.asarray(mask, bool)
    axes = pixels.ndim
    if axes not in (2, 3):
        raise ValueError(f"the mask must be 2-D or 3-D, not of shape {pixels.shape}")
    components = int(ndimage.label(pixels, ndimage.generate_binary_structure(axes, axes))[1])
    surrounded = int(ndimage.label(np.pad(~pixels, 1, constant_values=True))[1]) - 1
    if axes == 2:
        return components, surrounded
    # Euler's characteristic is b0 - b1 + b2.
    tunnels = components + surrounded - int(euler_number(pixels, connectivity=3))
    return components, tunnels, surrounded


def betti_error(
    prediction: ArrayLike,
    target: ArrayLike,
    dimension: Literal[0, 1],
    mask: ArrayLike | None = None,
    patch_size: int | None = None,
) -> float:
    """Absolute difference of a Betti number, of the whole image or as the mean over patches.

    Patches, unlike the whole image, do not let a false component here make up for a missed one there. They tile the
    image from its first pixel and do not overlap; the last of a row or column is as small as the image leaves it, and
    counts like any other. Patches without a pixel that counts are left out. In a patch, as in an image, what lies
    beyond is background. ``dimension`` is 0 for components, 1 for holes (in 3-D tunnels); ``patch_size`` the side of a
    patch in pixels, usually 64, or None for the whole image.

    Returns:
        At least 0, which is right; 0 too if both masks are empty; NaN if ``mask`` is.

    Raises:
        ValueError: if a setting is out of range.

    Example:
        >>> line = np.zeros((9, 40), bool)
        >>> line[4] = True
        >>> broken = line.copy()
        >>> broken[4, 10] = broken[4, 20] = False
        >>> betti_error(broken, line, 0), betti_error(broken, line, 0, patch_size=20)
        (2.0, 0.5)
    """
    if dimension not in (0, 1):
        raise ValueError(f"dimension must be 0 or 1, not {dimension}")
    if patch_size is not None and patch_size < 1:
        raise ValueError(f"patch_size must be at least 1, not {patch_size}")
    predicted, true = valid_masks(prediction, target, mask)
    starts = [range(0, size, patch_size or max(size, 1)) for size in true.shape]
    errors = []
    for corner in itertools.product(*starts):
        patch = tuple(slice(start, start + step.step) for start, step in zip(corner, starts, strict=True))
        if mask is None or np.asarray(mask, bool)[patch].any():
            found, there = predicted[patch], true[patch]
            equal = np.array_equal(found, there)
            errors.append(0 if equal else abs(betti_numbers(found)[dimension] - betti_numbers(there)[dimension]))
    return float(np.mean(errors)) if errors else float("nan")
