"""Decisions and scores over several classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from topolora_monai.metrics.overlap import OverlapScores, ThresholdCurve, best_on_grid, threshold_bin, to_16_bit

__all__ = ["ClassCounts", "best_common_threshold", "class_indices", "class_masks", "mean_scores", "predicted_masks"]

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


class ClassCounts:
    """True positives, false positives and false negatives of K classes, pooled over images.

    Args:
        classes: number of foreground classes K.

    Example:
        >>> counts = ClassCounts(2)
        >>> truth = class_masks(np.uint8([0, 1, 1, 2]), 2)
        >>> counts.add(class_masks(np.uint8([1, 1, 2, 2]), 2), truth)
        >>> [scores.iou for scores in counts.scores()]
        [0.3333333333333333, 0.5]
    """

    def __init__(self, classes: int) -> None:
        self.counts: NDArray[np.int64] = np.zeros((classes, 3), np.int64)

    def add(
        self, predicted: NDArray[np.bool_], truth: NDArray[np.bool_], inside: NDArray[np.bool_] | None = None
    ) -> None:
        """Count one image.

        Args:
            predicted: shape (K, ...).
            truth: same shape.
            inside: where pixels count, shape (...) or (1, ...).

        Raises:
            ValueError: if the shapes differ.
        """
        if predicted.shape != truth.shape or len(truth) != len(self.counts):
            raise ValueError(f"prediction {predicted.shape} and target {truth.shape} are not of {len(self.counts)}")
        counted = np.ones(truth.shape, bool) if inside is None else np.broadcast_to(inside, truth.shape)
        for column, pixels in enumerate((predicted & truth, predicted & ~truth, ~predicted & truth)):
            self.counts[:, column] += (pixels & counted).reshape(len(truth), -1).sum(axis=1)

    def merge(self, other: ClassCounts) -> None:
        """Add another one's images to this one."""
        self.counts += other.counts

    def scores(self) -> list[OverlapScores]:
        """Scores of each class."""
        return [OverlapScores.of_counts(*(int(count) for count in row)) for row in self.counts]


def mean_scores(scores: Sequence[OverlapScores]) -> OverlapScores:
    """Mean over classes of each score; those that are not defined for a class are left out.

    Example:
        >>> mean_scores([OverlapScores.of_counts(1, 0, 0), OverlapScores.of_counts(0, 0, 0)]).dice
        1.0
    """
    return OverlapScores(*(_mean([getattr(one, name) for one in scores]) for name in OverlapScores.names()))


def best_common_threshold(curves: Sequence[ThresholdCurve]) -> float:
    """The threshold on a grid of hundredths with the highest mean Dice of several classes; of equals as for one."""
    return best_on_grid(lambda threshold: mean_scores([curve.scores(threshold) for curve in curves]).dice)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return sum(known) / len(known) if known else float("nan")
