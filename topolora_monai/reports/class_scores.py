"""Scores of each class and their mean, over any number of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from topolora_monai.metrics import (
    OverlapScores,
    ThresholdCurve,
    best_common_threshold,
    class_counts,
    mean_of_defined,
    predicted_masks,
    reliability_diagram,
)
from topolora_monai.networks.activation import Activation


class ClassScores:
    """Overlap and calibration of K classes pooled over images, and means over images of scores of single ones.

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
        self.counts = np.zeros((len(self.foreground), 3), np.int64)  # of classes that exclude one another
        self.of_images: list[Sequence[Mapping[str, float]]] = []

    def add(self, probability: Tensor, label: Tensor, fov: Tensor | None = None) -> None:
        """Count one image.

        Args:
            probability: shape (K, H, W).
            label: same shape, foreground above 0.5.
            fov: shape (1, H, W); only pixels above 0.5 count.
        """
        if self.exclusive:
            self.counts += class_counts(predicted_masks(probability, None), label, fov)
        for curve, one, truth in zip(self.curves, probability, label, strict=True):
            curve.add(one, truth, fov)

    def add_image_scores(self, scores: Sequence[Mapping[str, float]]) -> None:
        """Count one image's own scores by name, of each class; see :class:`~topolora_monai.reports.ImageScores`."""
        self.of_images.append(scores)

    def merge(self, other: ClassScores) -> None:
        """Add another one's images to this one."""
        self.counts += other.counts
        for curve, more in zip(self.curves, other.curves, strict=True):
            curve.merge(more)
        self.of_images += other.of_images

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
            ``dice``, ``iou``, ``precision`` and ``recall``; ``auc``, ``threshold``, ``dice_at_half``, ``ece`` (expected
            calibration error of foreground's probability) and ``brier`` where there is a threshold; the means of
            single images' scores that were counted. Of several classes these are means over the classes, those left
            out for which a score is not defined, and ``classes`` has the scores of each by its name.
        """
        each = {name: self._of_class(number, threshold) for number, name in enumerate(self.foreground)}
        total = {score: mean_of_defined([of[score] for of in each.values()]) for score in next(iter(each.values()))}
        return total if len(each) == 1 else total | {"classes": each}

    def row(self, threshold: float) -> dict[str, float]:
        """The same in one line of a table; Dice and IoU of each class after the means."""
        scores = self.summary(threshold)
        each: Mapping[str, Mapping[str, float]] = scores.pop("classes", {})
        return scores | {f"{score}_{name}": of[score] for name, of in each.items() for score in ("dice", "iou")}

    def _of_class(self, number: int, threshold: float) -> dict[str, float]:
        images = [scores[number] for scores in self.of_images]
        means = {name: mean_of_defined([one[name] for one in images]) for name in (images[0] if images else ())}
        if self.exclusive:
            return dataclasses.asdict(OverlapScores.of_counts(*self.counts[number].tolist())) | means
        curve = self.curves[number]
        diagram = reliability_diagram(curve)
        return {
            **dataclasses.asdict(curve.scores(threshold)),
            "auc": curve.auc(),
            "threshold": threshold,
            "dice_at_half": curve.scores(0.5).dice,
            "ece": diagram.expected_error,
            "brier": diagram.brier,
            **means,
        }
