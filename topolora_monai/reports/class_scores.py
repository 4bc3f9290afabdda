"""Scores of each class and their mean, over any number of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from topolora_monai.metrics import ClassCounts, ThresholdCurve, best_common_threshold, cldice, predicted_masks
from topolora_monai.networks.activation import Activation

__all__ = ["ClassScores"]


class ClassScores:
    """Overlap of K classes pooled over images, and the mean of their clDice over images.

    Args:
        classes: names, the background first.
        activation: what made the probabilities; with ``"softmax"``, several classes exclude one another, and each
            pixel is of the most probable one instead of what reaches a threshold.

    Example:
        >>> import torch
        >>> scores = ClassScores(["background", "cup", "window"], "softmax")
        >>> probability = torch.tensor([[[0.7, 0.2, 0.1]], [[0.1, 0.5, 0.6]]])
        >>> scores.add(probability, torch.tensor([[[1.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]]))
        >>> scores.summary()["classes"]["cup"]["recall"], round(scores.summary()["iou"], 3)
        (0.5, 0.5)
    """

    def __init__(self, classes: Sequence[str], activation: Activation = "sigmoid") -> None:
        self.foreground = tuple(classes[1:])
        self.exclusive = activation == "softmax" and len(self.foreground) > 1
        self.curves = [ThresholdCurve() for _ in self.foreground]
        self.counts = ClassCounts(len(self.foreground))
        self.cldices: list[list[float]] = [[] for _ in self.foreground]

    def add(self, probability: Tensor, label: Tensor, fov: Tensor | None = None) -> None:
        """Count one image.

        Args:
            probability: shape (K, H, W).
            label: same shape, foreground above 0.5.
            fov: shape (1, H, W); only pixels above 0.5 count.
        """
        if self.exclusive:
            inside = None if fov is None else fov.cpu().numpy() > 0.5
            self.counts.add(predicted_masks(probability, None), label.cpu().numpy() > 0.5, inside)
            return
        for curve, one, truth in zip(self.curves, probability, label, strict=True):
            curve.add(one, truth, fov)

    def add_cldice(self, predicted: NDArray[np.bool_], truth: NDArray[np.bool_], inside: NDArray[np.bool_]) -> None:
        """Count one image's skeletons; masks of shape (K, H, W), the last of (H, W)."""
        for values, one, true in zip(self.cldices, predicted, truth, strict=True):
            values.append(cldice(one, true, inside))

    def merge(self, other: ClassScores) -> None:
        """Add another one's images to this one."""
        self.counts.merge(other.counts)
        for curve, more in zip(self.curves, other.curves, strict=True):
            curve.merge(more)
        for values, further in zip(self.cldices, other.cldices, strict=True):
            values.extend(further)

    def predicted(self, probability: Tensor, threshold: float) -> NDArray[np.bool_]:
        """Masks (K, H, W) of probabilities of that shape."""
        return predicted_masks(probability, None if self.exclusive else threshold)

    def best_threshold(self) -> float:
        """The threshold of the highest mean Dice; 0.5 before any image, and where there is none to choose."""
        if self.exclusive or not any(curve.positives.any() for curve in self.curves):
            return 0.5
        return best_common_threshold(self.curves)

    def summary(self, threshold: float = 0.5) -> dict[str, Any]:
        """Scores by name.

        Returns:
            ``dice``, ``iou``, ``precision`` and ``recall``; ``auc``, ``threshold`` and ``dice_at_half`` where there is
            a threshold; ``cldice`` where it was counted. Of several classes these are means over the classes, those
            left out for which a score is not defined, and ``classes`` has the scores of each by its name.
        """
        each = {
            name: self._of_class(number, threshold) | self._cldice_of_class(number)
            for number, name in enumerate(self.foreground)
        }
        total = {score: _mean([scores[score] for scores in each.values()]) for score in next(iter(each.values()))}
        return total if len(each) == 1 else total | {"classes": each}

    def row(self, threshold: float) -> dict[str, float]:
        """The same in one line of a table; Dice and IoU of each class after the means."""
        scores = self.summary(threshold)
        each: Mapping[str, Mapping[str, float]] = scores.pop("classes", {})
        return scores | {f"{score}_{name}": of[score] for name, of in each.items() for score in ("dice", "iou")}

    def _of_class(self, number: int, threshold: float) -> dict[str, float]:
        if self.exclusive:
            return dataclasses.asdict(self.counts.scores()[number])
        curve = self.curves[number]
        return {
            **dataclasses.asdict(curve.scores(threshold)),
            "auc": curve.auc(),
            "threshold": threshold,
            "dice_at_half": curve.scores(0.5).dice,
        }

    def _cldice_of_class(self, number: int) -> dict[str, float]:
        return {"cldice": _mean(self.cldices[number])} if self.cldices[number] else {}


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
