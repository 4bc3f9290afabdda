"""Precision-recall and reliability curves of a split, as ``evaluation/curves.json`` holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topolora_monai.metrics import ThresholdCurve, average_precision

__all__ = ["curve_points", "curves_record"]

_RELIABILITY_BINS = 15


def curves_record(curves: Mapping[str, ThresholdCurve], threshold: float) -> dict[str, Any]:
    """Content of ``curves.json``.

    Args:
        curves: counts of each class by its name, the background left out.
        threshold: that of the masks.

    Returns:
        ``format`` (1), ``threshold``, and ``classes``: of each name what :func:`curve_points` gives.
    """
    return {
        "format": 1,
        "threshold": threshold,
        "classes": {name: curve_points(curve) for name, curve in curves.items()},
    }


def curve_points(curve: ThresholdCurve) -> dict[str, Any]:
    """Points of a class's curves, pooled over the pixels scored.

    Returns:
        ``pixels`` and ``positives``, counts; ``precision_recall`` with lists ``threshold``, ``precision`` and
        ``recall``, at every hundredth from 0 to 0.99 and where recall passes a hundredth, None where nothing reaches
        the threshold or there is no positive pixel; ``average_precision``, from all 65,536 levels; ``reliability``
        with lists ``probability``
        (mean of those predicted), ``frequency`` (how many of them are foreground) and ``pixels`` of 15 bins of equal
        width, None in empty ones; ``expected_calibration_error`` and ``brier``, which take each probability for the
        middle of its level.

    Example:
        >>> import torch
        >>> counts = ThresholdCurve()
        >>> counts.add(torch.tensor([0.9, 0.9, 0.1]), torch.tensor([1.0, 1.0, 0.0]))
        >>> points = curve_points(counts)
        >>> points["average_precision"], points["precision_recall"]["precision"][0] == 2 / 3
        (1.0, True)
    """
    positives, negatives = curve.positives.astype(float), curve.negatives.astype(float)
    counts, total = positives + negatives, float(positives.sum() + negatives.sum())
    levels = (np.arange(len(counts)) + 0.5) / len(counts)
    thresholds = _thresholds(positives)
    scores = [curve.scores(threshold) for threshold in thresholds]
    bins = np.minimum((levels * _RELIABILITY_BINS).astype(int), _RELIABILITY_BINS - 1)
    pixels = np.bincount(bins, counts)
    mean, frequency = (
        np.divide(np.bincount(bins, part), pixels, out=np.full(len(pixels), np.nan), where=pixels > 0)
        for part in (levels * counts, positives)
    )
    squares = positives * (1 - levels) ** 2 + negatives * levels**2
    return {
        "pixels": int(total),
        "positives": int(positives.sum()),
        "precision_recall": {
            "threshold": thresholds,
            "precision": [_known(score.precision) for score in scores],
            "recall": [_known(score.recall) for score in scores],
        },
        "average_precision": _known(average_precision(curve)),
        "reliability": {
            "probability": [_known(value) for value in mean],
            "frequency": [_known(value) for value in frequency],
            "pixels": [int(count) for count in pixels],
        },
        "expected_calibration_error": _known(np.nansum(pixels * np.abs(mean - frequency)) / total if total else np.nan),
        "brier": _known(squares.sum() / total if total else np.nan),
    }


def _thresholds(positives: NDArray[np.float64]) -> list[float]:
    """Even ones, and as many where the positive pixels are, which crowd at the ends of the scale."""
    passed = positives.cumsum() / max(1.0, positives.sum())
    levels = np.searchsorted(passed, np.arange(1, 100) / 100) / len(positives)
    even = [round(0.01 * k, 2) for k in range(100)]
    return sorted({*even, *(float(level) for level in levels if level < 1)})


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
