"""Charts of runs: how training went, how good the probabilities are, how two runs differ."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from topolora_monai.reports.html.charts import Chart, Series
from topolora_monai.reports.html.facts import known_number
from topolora_monai.reports.html.runs import Run, Scalars
from topolora_monai.reports.html.scores import score_title, worst_score
from topolora_monai.reports.html.statistics import Comparison

_MOST_POINTS = 300
_FEW_POINTS = 40  # each is marked
_QUALITY = {
    "precision_recall": ("recall", "precision", "recall", "precision"),
    "reliability": ("probability", "frequency", "predicted probability", "observed frequency"),
    "risk_coverage": ("coverage", "risk", "share of pixels kept, the surest first", "share of errors among them"),
}
"""What is drawn across and up of each curve, and how the axes are labelled."""


def training_charts(runs: Sequence[Run]) -> list[Chart]:
    """A chart of each training curve, with a line for each run that has it."""
    charts = []
    for tag in sorted({curve.tag for run in runs for curve in run.scalars}):
        found = [(run.label, curve) for run in runs for curve in run.scalars if curve.tag == tag]
        stride = max(math.ceil(len(curve.steps) / _MOST_POINTS) for _, curve in found)
        words = (
            f"{label}: {c.values[0]:.4g} at step {c.steps[0]}, {c.values[-1]:.4g} at {c.steps[-1]}"
            for label, c in found
        )
        title = tag if stride == 1 else f"{tag} (means of {stride} values)"
        series = tuple(_thinned(label, curve, stride) for label, curve in found)
        charts.append(Chart(title, "step", tag, series, summary="; ".join(words)))
    return charts


def _thinned(label: str, curve: Scalars, stride: int) -> Series:
    starts = range(0, len(curve.steps), stride)
    steps, values = (
        [float(np.mean(of[start : start + stride])) for start in starts] for of in (curve.steps, curve.values)
    )
    return Series(label, steps, values, dots=len(steps) <= _FEW_POINTS)


def quality_charts(runs: Sequence[Run]) -> list[Chart]:
    """Precision and recall, reliability and risk by coverage of each class, as far as there are any."""
    charts = []
    names = dict.fromkeys(name for run in runs for name in run.curves)
    for name in names:
        found = [(run.label, run.curves[name]) for run in runs if name in run.curves]
        of = f" of {name}" if len(names) > 1 else ""
        charts += [
            _quality_chart(f"Precision and recall{of}", found, "precision_recall", "average_precision"),
            _quality_chart(f"Reliability{of}", found, "reliability", "expected_calibration_error"),
            _quality_chart(f"Risk and coverage{of}", found, "risk_coverage", "area"),
        ]
    return [chart for chart in charts if any(one.x for one in chart.series)]


def _quality_chart(title: str, found: Sequence[tuple[str, Mapping[str, Any]]], curve: str, told: str) -> Chart:
    """One kind of curve of the runs that have it, and the number that sums it up."""
    x, y, x_label, y_label = _QUALITY[curve]
    series, words = [], []
    for label, points in found:
        if curve in points:
            pairs = zip(points[curve][x], points[curve][y], strict=True)
            known = [(a, b) for a, b in pairs if a is not None and b is not None]
            series.append(Series(label, [a for a, _ in known], [b for _, b in known], dots=curve == "reliability"))
            number = known_number(points[curve].get(told, points.get(told)))
            words.append(f"{label}: {told.replace('_', ' ')} {'' if number is None else f'{number:.4f}'}")
    top = 1.0
    if curve == "risk_coverage":
        top = 1.05 * max((value for one in series for value in one.y), default=0.0) or 1.0
    limits = (0.0, 1.0, 0.0, top)
    return Chart(title, x_label, y_label, tuple(series), limits, curve == "reliability", "; ".join(words))


def difference_charts(comparisons: Sequence[Comparison]) -> list[Chart]:
    """A chart for each comparison that has a score of some image in both runs."""
    charts = []
    for one in comparisons:
        changes = {score: np.sort(of[np.isfinite(of)]).tolist() for score, of in one.each.items()}
        changed = [score for score, of in changes.items() if of]
        if not changed:
            continue
        score = worst_score(changed)
        bars, title = changes[score], score_title(score)
        interval = next(found.difference for found in one.differences if found.score == score)
        charts.append(
            Chart(
                title=f"{title}: {one.second} minus {one.first}, image by image",
                x_label="images, sorted",
                y_label=f"difference of {title}",
                series=(Series("difference", range(1, len(bars) + 1), bars, bars=True),),
                limits=(0.0, len(bars) + 1.0, min(0.0, bars[0]) - 1e-3, max(0.0, bars[-1]) + 1e-3),
                summary=f"mean {interval.mean:+.4f}, 95 % interval {interval.low:+.4f} to {interval.high:+.4f}",
            )
        )
    return charts
