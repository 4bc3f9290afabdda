"""Precision-recall and reliability curves of a split, as ``evaluation/curves.json`` holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topolora_monai.engines import RiskCoverage
from topolora_monai.metrics import ThresholdCurve, average_precision, reliability_diagram

__all__ = ["curve_points", "curves_record"]


def curves_record(
    curves: Mapping[str, ThresholdCurve], threshold: float, risks: Mapping[str, RiskCoverage] | None = None
) -> dict[str, Any]:
    """Content of ``curves.json``.

    Args:
        curves: counts of each class by its name, the background left out.
        threshold: that of the masks.
        risks: of each class that has one.

    Returns:
        ``format`` (1), ``threshold``, and ``classes``: of each name what :func:`curve_points` gives, and
        ``risk_coverage`` with lists ``coverage`` and ``risk``, and ``area``.
    """
    return {
        "format": 1,
        "threshold": threshold,
        "classes": {name: curve_points(curve) | _risk_points(risks, name) for name, curve in curves.items()},
    }


def _risk_points(risks: Mapping[str, RiskCoverage] | None, name: str) -> dict[str, Any]:
    if not risks or name not in risks:
        return {}
    coverage, risk = risks[name].points()
    points = {"coverage": coverage.tolist(), "risk": [_known(value) for value in risk]}
    return {"risk_coverage": {**points, "area": _known(risks[name].area())}}


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
    thresholds = _thresholds(curve.positives)
    scores = [curve.scores(threshold) for threshold in thresholds]
    diagram = reliability_diagram(curve)
    return {
        "pixels": int(diagram.counts.sum()),
        "positives": int(curve.positives.sum()),
        "precision_recall": {
            "threshold": thresholds,
            "precision": [_known(score.precision) for score in scores],
            "recall": [_known(score.recall) for score in scores],
        },
        "average_precision": _known(average_precision(curve)),
        "reliability": {
            "probability": [_known(value) for value in diagram.confidence],
            "frequency": [_known(value) for value in diagram.accuracy],
            "pixels": [int(count) for count in diagram.counts],
        },
        "expected_calibration_error": _known(diagram.expected_error),
        "brier": _known(diagram.brier),
    }


def _thresholds(positives: NDArray[np.int64]) -> list[float]:
    """Even ones, and as many where the positive pixels are, which crowd at the ends of the scale."""
    passed = positives.cumsum() / max(1.0, positives.sum())
    levels = np.searchsorted(passed, np.arange(1, 100) / 100) / len(positives)
    even = [round(0.01 * k, 2) for k in range(100)]
    return sorted({*even, *(float(level) for level in levels if level < 1)})


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
