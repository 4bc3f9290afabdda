"""Charts of runs: how training went, how good the probabilities are, how two runs differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topolora_monai.reports.html.charts import Chart, Series
from topolora_monai.reports.html.facts import known_number
from topolora_monai.reports.html.runs import Run, Scalars
from topolora_monai.reports.html.scores import score_title, worst_score
from topolora_monai.reports.html.statistics import Comparison

__all__ = ["difference_charts", "quality_charts", "training_charts"]

_MOST_POINTS = 300
_FEW_POINTS = 40  # each is marked


def training_charts(runs: Sequence[Run]) -> tuple[Chart, ...]:
    """A chart of each training curve, with a line for each run that has it."""
    charts = []
    for tag in sorted({curve.tag for run in runs for curve in run.scalars}):
        found = [(run.label, curve) for run in runs for curve in run.scalars if curve.tag == tag]
        stride = max(math.ceil(len(curve.steps) / _MOST_POINTS) for _, curve in found)
        words = [
            f"{label}: {c.values[0]:.4g} at step {c.steps[0]}, {c.values[-1]:.4g} at {c.steps[-1]}"
            for label, c in found
        ]
        charts.append(
            Chart(
                title=tag if stride == 1 else f"{tag} (means of {stride} values)",
                x_label="step",
                y_label=tag,
                series=tuple(_thinned(label, curve, stride) for label, curve in found),
                summary="; ".join(words),
            )
        )
    return tuple(charts)


def quality_charts(runs: Sequence[Run]) -> tuple[Chart, ...]:
    """Precision and recall, reliability and risk by coverage of each class, as far as there are any."""
    charts = []
    names = dict.fromkeys(name for run in runs for name in run.of_classes)
    for name in names:
        found = [(run.label, run.of_classes[name]) for run in runs if name in run.of_classes]
        of = f" of {name}" if len(names) > 1 else ""
        charts += [_precision_recall(found, of), _reliability(found, of), _risk_coverage(found, of)]
    return tuple(chart for chart in charts if any(len(one.x) for one in chart.series))


def difference_charts(comparisons: Sequence[Comparison]) -> tuple[Chart, ...]:
    """A chart for each comparison that has a score of some image in both runs."""
    return tuple(_difference_chart(one) for one in comparisons if _changed(one))


def _thinned(label: str, curve: Scalars, stride: int) -> Series:
    starts = range(0, len(curve.steps), stride)
    steps = [float(np.mean(curve.steps[start : start + stride])) for start in starts]
    values = [float(np.mean(curve.values[start : start + stride])) for start in starts]
    return Series(label, steps, values, dots=len(steps) <= _FEW_POINTS)


_Found = Sequence[tuple[str, Mapping[str, Any]]]


def _precision_recall(found: _Found, of: str) -> Chart:
    return Chart(
        title=f"Precision and recall{of}",
        x_label="recall",
        y_label="precision",
        series=tuple(
            Series(label, *_pairs(points["precision_recall"], "recall", "precision")) for label, points in found
        ),
        limits=(0, 1, 0, 1),
        summary=_words(found, "average precision", "average_precision"),
    )


def _reliability(found: _Found, of: str) -> Chart:
    return Chart(
        title=f"Reliability{of}",
        x_label="predicted probability",
        y_label="observed frequency",
        series=tuple(
            Series(label, *_pairs(points["reliability"], "probability", "frequency"), dots=True)
            for label, points in found
        ),
        limits=(0, 1, 0, 1),
        diagonal=True,
        summary=_words(found, "expected calibration error", "expected_calibration_error"),
    )


def _risk_coverage(found: _Found, of: str) -> Chart:
    """Runs evaluated without uncertainty have no such curve."""
    curves = [(label, points["risk_coverage"]) for label, points in found if "risk_coverage" in points]
    series = tuple(Series(label, *_pairs(curve, "coverage", "risk")) for label, curve in curves)
    highest = max((value for one in series for value in one.y), default=0.0)
    return Chart(
        title=f"Risk and coverage{of}",
        x_label="share of pixels kept, the surest first",
        y_label="share of errors among them",
        series=series,
        limits=(0, 1, 0, 1.05 * highest if highest > 0 else 1.0),
        summary=_words(curves, "area", "area"),
    )


def _words(found: _Found, words: str, key: str) -> str:
    numbers = [(label, known_number(points.get(key))) for label, points in found]
    return "; ".join(f"{label}: {words} {'' if value is None else f'{value:.4f}'}" for label, value in numbers)


def _pairs(points: Mapping[str, Sequence[float | None]], x: str, y: str) -> tuple[list[float], list[float]]:
    known = [(a, b) for a, b in zip(points[x], points[y], strict=True) if a is not None and b is not None]
    return [a for a, _ in known], [b for _, b in known]


def _difference_chart(comparison: Comparison) -> Chart:
    score = worst_score(_changed(comparison))
    changes: NDArray[np.float64] = np.sort(comparison.each[score][np.isfinite(comparison.each[score])])
    interval = next(one.difference for one in comparison.differences if one.score == score)
    title = score_title(score)
    return Chart(
        title=f"{title}: {comparison.second} minus {comparison.first}, image by image",
        x_label="images, sorted",
        y_label=f"difference of {title}",
        series=(Series("difference", [float(n) for n in range(1, len(changes) + 1)], changes.tolist(), bars=True),),
        limits=(0.0, len(changes) + 1.0, min(0.0, changes[0]) - 1e-3, max(0.0, changes[-1]) + 1e-3),
        summary=f"mean {interval.mean:+.4f}, 95 % interval {interval.low:+.4f} to {interval.high:+.4f}",
    )


def _changed(comparison: Comparison) -> list[str]:
    return [score for score, changes in comparison.each.items() if np.isfinite(changes).any()]
