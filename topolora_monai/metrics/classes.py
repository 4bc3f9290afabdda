"""Decisions over several classes, and how many pixels of each are right."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from topolora_monai.metrics.overlap import threshold_bin, to_16_bit

_WHOLE = 65536
"""Of :func:`~topolora_monai.metrics.to_16_bit`, a probability of 1."""


def class_indices(stored: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """The most probable of classes that exclude one another; the background has what the others leave to 1.

    Decided on probabilities as they are stored, so that a mask follows from its probability images. Of equals, the
    background is taken, then the class of the lower number.

    Args:
        stored: values of :func:`~topolora_monai.metrics.to_16_bit` of classes 1 to K, shape (K, ...).

    Returns:
        Class numbers, 0 for the background, shape (...).

    Example:
        >>> import torch
        >>> probability = torch.tensor([[0.6, 0.3, 0.2], [0.1, 0.4, 0.3]])
        >>> class_indices(to_16_bit(probability).numpy().astype(np.uint16)).tolist()
        [1, 2, 0]
    """
    background = _WHOLE - stored.sum(axis=0, dtype=np.int64)
    return np.where(stored.max(axis=0) > background, stored.argmax(axis=0) + 1, 0).astype(np.uint8)


def class_masks(indices: NDArray[np.uint8], classes: int) -> NDArray[np.bool_]:
    """One mask for each of ``classes`` foreground classes, shape (K, ...), of class numbers of shape (...).

    Example:
        >>> class_masks(np.uint8([0, 2, 1]), 2).tolist()
        [[False, False, True], [False, True, False]]
    """
    numbers = np.arange(1, classes + 1).reshape(-1, *[1] * indices.ndim)
    return np.asarray(indices == numbers)


def predicted_masks(probability: Tensor, threshold: float | None) -> NDArray[np.bool_]:
    """Masks of all foreground classes.

    Args:
        probability: shape (K, H, W).
        threshold: what counts as foreground, each class by itself; None for classes that exclude one another.

    Returns:
        Shape (K, H, W).
    """
    stored = to_16_bit(probability).cpu().numpy()
    if threshold is None:
        return class_masks(class_indices(stored), len(stored))
    return np.asarray(stored >= threshold_bin(threshold))


def class_counts(predicted: NDArray[np.bool_], target: Tensor, mask: Tensor | None = None) -> NDArray[np.int64]:
    """True positives, false positives and false negatives of each of K classes, shape (K, 3); to be added up.

    Args:
        predicted: masks, shape (K, ...).
        target: same shape, foreground above 0.5.
        mask: shape (...) or (1, ...); only pixels above 0.5 count.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> class_counts(np.array([[True, True, False]]), torch.tensor([[1.0, 0.0, 0.0]])).tolist()
        [[1, 1, 0]]
    """
    if predicted.shape != target.shape:
        raise ValueError(f"prediction {predicted.shape} and target {tuple(target.shape)} differ in shape")
    true, inside = target.cpu().numpy() > 0.5, True if mask is None else mask.cpu().numpy() > 0.5
    kinds = np.stack([predicted & true, predicted & ~true, ~predicted & true], axis=1) & inside
    return np.asarray(kinds.reshape(*kinds.shape[:2], -1).sum(axis=2))
