"""What a report says, before it is laid out as a page or on paper."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topolora_monai.reports.html.charts import Chart, Series
from topolora_monai.reports.html.pictures import ImagePictures
from topolora_monai.reports.html.runs import Run, Scalars
from topolora_monai.reports.html.statistics import (
    Comparison,
    Interval,
    compare_runs,
    lower_is_better,
    mean_interval,
)

__all__ = ["NO_SCORE", "Content", "Fact", "ImageRow", "ScoreRow", "build_content", "show_score", "worst_score"]

NO_SCORE = "\u2013"
"""Stands where a score is not defined."""

_KNOWN_FACTS = {
    "dataset": "Data set",
    "evaluated_on": "Evaluated on",
    "protocol": "Protocol",
    "split_scheme": "Split",
    "network_name": "Network",
    "preset": "Method",
    "seed": "Seed",
    "image_size": "Image size of the network",
    "crop_size": "Crop size",
    "batch_size": "Batch size",
    "learning_rate": "Learning rate",
    "epochs": "Epochs",
    "seconds": "Training time",
    "trainable": "Trainable parameters",
    "commit": "Code",
    "hardware": "Hardware",
    "peak_memory_bytes": "Peak memory",
    "command": "Training command",
    "evaluation_command": "Evaluation command",
    "base_sha256": "SHA-256 of the base weights",
}
_SCORES = ("validation", "test")  # they have tables of their own
_COUNTS = {"breaks": "broken", "bridges": "false links", "false_components": "false parts"}
_MOST_POINTS = 300


@dataclasses.dataclass(frozen=True)
class Fact:
    """One line about the runs: a value for each, and whether they differ in it."""

    name: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether not all runs agree."""
        return len(set(self.values)) > 1


@dataclasses.dataclass(frozen=True)
class ScoreRow:
    """One score of one run: pooled over all pixels, and over images."""

    run: int
    score: str
    pooled: float | None
    images: Interval
    lowest: float
    highest: float


@dataclasses.dataclass(frozen=True)
class ImageRow:
    """One image of one run."""

    run: int
    name: str
    scores: dict[str, float | None]
    pictures: ImagePictures


@dataclasses.dataclass(frozen=True)
class Content:
    """All of a report.

    Args:
        labels: of the runs.
        facts: what was trained on what.
        settings: all else that the runs' files say.
        training: charts of the training curves.
        summary: scores with intervals.
        quality: precision-recall and reliability charts.
        calibration: numbers beside them, each a name and a value for each run.
        comparisons: of each further run with the first.
        differences: a chart for each comparison.
        scores: columns of the table of images, those of the report's own counts last.
        images: its rows, run by run in the order of their tables.
        whole: those of the columns that hold whole numbers only.
        worst_by: score that the gallery starts with.
        classes: of each run.
    """

    labels: tuple[str, ...]
    facts: tuple[Fact, ...]
    settings: tuple[Fact, ...]
    training: tuple[Chart, ...]
    summary: tuple[ScoreRow, ...]
    quality: tuple[Chart, ...]
    calibration: tuple[Fact, ...]
    comparisons: tuple[Comparison, ...]
    differences: tuple[Chart, ...]
    scores: tuple[str, ...]
    images: tuple[ImageRow, ...]
    whole: frozenset[str]
    worst_by: str
    classes: tuple[tuple[str, ...], ...]

    def worst_first(self) -> list[int]:
        """Numbers of the images, the worst by :attr:`worst_by` first; those without the score last."""
        sign = -1 if lower_is_better(self.worst_by) or self.worst_by in _COUNTS.values() else 1

        def badness(number: int) -> tuple[bool, float]:
            value = self.images[number].scores.get(self.worst_by)
            return value is None, 0.0 if value is None else sign * value

        return sorted(range(len(self.images)), key=badness)

    def lower_is_better(self, score: str) -> bool:
        """Whether small values of a column are good."""
        return score in _COUNTS.values() or lower_is_better(score)


def worst_score(scores: Sequence[str]) -> str:
    """The score that says most about thin structures, of those there are.

    Example:
        >>> worst_score(["dice", "iou", "cldice"])
        'cldice'
    """
    return next((score for score in ("cldice", "dice") if score in scores), next(iter(scores), ""))


def build_content(runs: Sequence[Run], pictures: Sequence[Mapping[str, ImagePictures]]) -> Content:
    """Put together what runs and the pictures of their images say.

    Args:
        runs: the first is the one that others are compared with.
        pictures: of each run, by the image's name.
    """
    images = tuple(
        _image_row(number, run, row, name, of_run[name])
        for number, (run, of_run) in enumerate(zip(runs, pictures, strict=True))
        for row, name in enumerate(run.names)
    )
    of_files = tuple(dict.fromkeys(score for run in runs for score in run.scores))
    counted = tuple(name for name in _COUNTS.values() if any(image.scores.get(name) is not None for image in images))
    comparisons = tuple(compare_runs(runs))
    known, others = _facts(runs)
    return Content(
        labels=tuple(run.label for run in runs),
        facts=known,
        settings=others,
        training=_training_charts(runs),
        summary=tuple(row for number, run in enumerate(runs) for row in _summary(number, run)),
        quality=_quality_charts(runs),
        calibration=_calibration(runs),
        comparisons=comparisons,
        differences=tuple(_difference_chart(one) for one in comparisons if _has_changes(one)),
        scores=of_files + counted,
        images=images,
        whole=frozenset(counted) | {score for score in of_files if _is_whole(runs, score)},
        worst_by=worst_score(of_files),
        classes=tuple(run.classes for run in runs),
    )


def show_score(value: float | None, whole: bool = False) -> str:
    """Four decimals, none of whole numbers, a dash where there is no value.

    Example:
        >>> show_score(0.5), show_score(3.0, whole=True)
        ('0.5000', '3')
    """
    if value is None or math.isnan(value):
        return NO_SCORE
    return f"{value:.0f}" if whole else f"{value:.4f}"


def _is_whole(runs: Sequence[Run], score: str) -> bool:
    values = np.concatenate([run.scores[score] for run in runs if score in run.scores])
    known = values[np.isfinite(values)]
    return bool((known == np.rint(known)).all() and known.max() > 1)


def _image_row(number: int, run: Run, row: int, name: str, pictures: ImagePictures) -> ImageRow:
    scores: dict[str, float | None] = {score: _known(values[row]) for score, values in run.scores.items()}
    return ImageRow(number, name, scores | {title: pictures.count(what) for what, title in _COUNTS.items()}, pictures)


def _summary(number: int, run: Run) -> list[ScoreRow]:
    pooled = run.record.get("test", {})
    return [
        ScoreRow(
            run=number,
            score=score,
            pooled=_known(pooled.get(score)),
            images=mean_interval(values),
            lowest=float(np.nanmin(values)),
            highest=float(np.nanmax(values)),
        )
        for score, values in run.scores.items()
    ]


def _known(value: Any) -> float | None:
    usable = isinstance(value, (int, float)) and math.isfinite(value)
    return float(value) if usable else None


def _facts(runs: Sequence[Run]) -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
    """Those with a title of their own, in its order, and all others by their dotted names."""
    flat = [_flat({key: value for key, value in run.record.items() if key not in _SCORES}) for run in runs]
    keys = list(dict.fromkeys(key for record in flat for key in record))
    validated = [run.record.get("validation", {}) for run in runs]
    known = [Fact(title, tuple(_told(key, record) for record in flat)) for key, title in _KNOWN_FACTS.items()]
    best = Fact("Validation", tuple(_shown_scores(scores) for scores in validated))
    place = next(index for index, fact in enumerate(known) if fact.name == "Trainable parameters")
    known.insert(place, best)
    prefixes = tuple(f"{key}." for key in _KNOWN_FACTS)
    others = [key for key in keys if key not in _KNOWN_FACTS and not key.startswith(prefixes)]
    return (
        tuple(fact for fact in known if any(value != "" for value in fact.values)),
        tuple(Fact(key, tuple(_plain(record.get(key)) for record in flat)) for key in others),
    )


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _told(key: str, record: Mapping[str, Any]) -> str:
    value = record.get(key)
    if value is None:
        parts = {name[len(key) + 1 :]: part for name, part in record.items() if name.startswith(f"{key}.")}
        return "; ".join(f"{name} {_plain(part)}" for name, part in parts.items() if part is not None)
    if key == "seconds":
        hours, minutes = divmod(round(value / 60), 60)
        return (f"{hours} h " if hours else "") + f"{minutes} min" if value >= 60 else f"{value:.0f} s"
    if key == "peak_memory_bytes":
        return f"{value / 1e9:.2f} GB"
    return f"{value:,}" if key == "trainable" else _plain(value)


def _shown_scores(scores: Any) -> str:
    if not isinstance(scores, dict):
        return ""
    return "; ".join(f"{name} {value:.4g}" for name, value in scores.items() if _known(value) is not None)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_plain(part) for part in value)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _training_charts(runs: Sequence[Run]) -> tuple[Chart, ...]:
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


def _thinned(label: str, curve: Scalars, stride: int) -> Series:
    starts = range(0, len(curve.steps), stride)
    steps = [float(np.mean(curve.steps[start : start + stride])) for start in starts]
    values = [float(np.mean(curve.values[start : start + stride])) for start in starts]
    return Series(label, steps, values, dots=len(steps) <= 40)


def _quality_charts(runs: Sequence[Run]) -> tuple[Chart, ...]:
    names = dict.fromkeys(name for run in runs for name in run.curves.get("classes", {}))
    charts = []
    for name in names:
        found = [(run.label, run.curves["classes"][name]) for run in runs if name in run.curves.get("classes", {})]
        of = f" of {name}" if len(names) > 1 else ""
        charts.append(
            Chart(
                title=f"Precision and recall{of}",
                x_label="recall",
                y_label="precision",
                series=tuple(
                    Series(label, *_pairs(points["precision_recall"], "recall", "precision")) for label, points in found
                ),
                limits=(0, 1, 0, 1),
                summary="; ".join(
                    f"{label}: average precision {_number(p, 'average_precision')}" for label, p in found
                ),
            )
        )
        charts.append(
            Chart(
                title=f"Reliability{of}",
                x_label="predicted probability",
                y_label="observed frequency",
                series=tuple(
                    Series(label, *_pairs(points["reliability"], "probability", "frequency"), dots=True)
                    for label, points in found
                ),
                limits=(0, 1, 0, 1),
                diagonal=True,
                summary="; ".join(
                    f"{label}: expected calibration error {_number(p, 'expected_calibration_error')}"
                    for label, p in found
                ),
            )
        )
    return tuple(chart for chart in charts if any(len(one.x) for one in chart.series))


def _pairs(points: Mapping[str, Sequence[float | None]], x: str, y: str) -> tuple[list[float], list[float]]:
    known = [(a, b) for a, b in zip(points[x], points[y], strict=True) if a is not None and b is not None]
    return [a for a, _ in known], [b for _, b in known]


def _number(points: Mapping[str, Any], name: str) -> str:
    value = _known(points.get(name))
    return "" if value is None else f"{value:.4f}"


def _calibration(runs: Sequence[Run]) -> tuple[Fact, ...]:
    names = dict.fromkeys(name for run in runs for name in run.curves.get("classes", {}))
    facts = []
    for name in names:
        of = f" of {name}" if len(names) > 1 else ""
        each = [run.curves.get("classes", {}).get(name, {}) for run in runs]
        for key in ("average_precision", "expected_calibration_error", "brier"):
            title = key.replace("_", " ").capitalize() + of
            facts.append(Fact(title, tuple(_number(points, key) for points in each)))
    return tuple(facts)


def _difference_chart(comparison: Comparison) -> Chart:
    score = worst_score([name for name, changes in comparison.each.items() if np.isfinite(changes).any()])
    changes: NDArray[np.float64] = np.sort(comparison.each[score][np.isfinite(comparison.each[score])])
    interval = next(one.difference for one in comparison.differences if one.score == score)
    return Chart(
        title=f"{score}: {comparison.second} minus {comparison.first}, image by image",
        x_label="images, sorted",
        y_label=f"difference of {score}",
        series=(Series("difference", [float(n) for n in range(1, len(changes) + 1)], changes.tolist(), bars=True),),
        limits=(0.0, len(changes) + 1.0, min(0.0, changes[0]) - 1e-3, max(0.0, changes[-1]) + 1e-3),
        summary=f"mean {interval.mean:+.4f}, 95 % interval {interval.low:+.4f} to {interval.high:+.4f}",
    )


def _has_changes(comparison: Comparison) -> bool:
    return any(np.isfinite(changes).any() for changes in comparison.each.values())
