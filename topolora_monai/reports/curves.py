"""Precision-recall and reliability curves of a split, as ``evaluation/curves.json`` holds them."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from topolora_monai.engines import RiskCoverage
from topolora_monai.metrics import ThresholdCurve, average_precision, reliability_diagram


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
    classes = {name: curve_points(curve) for name, curve in curves.items()}
    for name, one in (risks or {}).items():
        coverage, risk = one.points()
        (area,) = _known([one.area()])
        classes[name]["risk_coverage"] = {"coverage": coverage.tolist(), "risk": _known(risk), "area": area}
    return {"format": 1, "threshold": threshold, "classes": classes}


def curve_points(curve: ThresholdCurve) -> dict[str, Any]:
    """Points of a class's curves, pooled over the pixels scored.

    Returns:
        ``pixels`` and ``positives``, counts; ``precision_recall`` with lists ``threshold``, ``precision`` and
        ``recall``, at every hundredth from 0 to 0.99 and where recall passes a hundredth, None where nothing reaches
        the threshold or there is no positive pixel; ``average_precision``, from all 65,536 levels; ``reliability``
        with lists ``probability`` (mean of those predicted), ``frequency`` (how many of them are foreground) and
        ``pixels`` of 15 bins of equal width, None in empty ones; ``expected_calibration_error`` and ``brier``, which
        take each probability for the middle of its level.

    Example:
        >>> import torch
        >>> counts = ThresholdCurve()
        >>> counts.add(torch.tensor([0.9, 0.9, 0.1]), torch.tensor([1.0, 1.0, 0.0]))
        >>> points = curve_points(counts)
        >>> points["average_precision"], points["precision_recall"]["precision"][0] == 2 / 3
        (1.0, True)
    """
    # Even thresholds, and as many where the positive pixels are, which crowd at the ends of the scale.
    passed = curve.positives.cumsum() / max(1.0, curve.positives.sum())
    levels = np.searchsorted(passed, np.arange(1, 100) / 100) / len(passed)
    thresholds = sorted({*(round(0.01 * k, 2) for k in range(100)), *(float(level) for level in levels if level < 1)})
    scores = [curve.scores(threshold) for threshold in thresholds]
    diagram = reliability_diagram(curve)
    precision, error, brier = _known([average_precision(curve), diagram.expected_error, diagram.brier])
    return {
        "pixels": int(diagram.counts.sum()),
        "positives": int(curve.positives.sum()),
        "precision_recall": {
            "threshold": thresholds,
            "precision": _known(score.precision for score in scores),
            "recall": _known(score.recall for score in scores),
        },
        "average_precision": precision,
        "reliability": {
            "probability": _known(diagram.confidence),
            "frequency": _known(diagram.accuracy),
            "pixels": diagram.counts.tolist(),
        },
        "expected_calibration_error": error,
        "brier": brier,
    }


def _known(values: Iterable[float]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
