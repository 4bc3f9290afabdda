"""What a report says, before it is laid out as a page or on paper."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from topolora_monai.reports.html.charts import Chart
from topolora_monai.reports.html.facts import Fact, calibration_facts, known_number, run_facts
from topolora_monai.reports.html.pictures import ImagePictures
from topolora_monai.reports.html.run_charts import difference_charts, quality_charts, training_charts
from topolora_monai.reports.html.runs import Run
from topolora_monai.reports.html.scores import COUNTS, first_shown, lower_is_better, worst_score
from topolora_monai.reports.html.statistics import Comparison, Interval, compare_runs, mean_interval

__all__ = ["Content", "ImageRow", "ScoreRow", "build_content"]


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
        quality: precision-recall, reliability and risk-coverage charts.
        calibration: numbers beside them, each a name and a value for each run.
        comparisons: of each further run with the first.
        differences: a chart for each comparison.
        scores: columns of the table of images, those of the report's own counts last.
        shown: those of them to show at first.
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
    shown: tuple[str, ...]
    images: tuple[ImageRow, ...]
    whole: frozenset[str]
    worst_by: str
    classes: tuple[tuple[str, ...], ...]

    def worst_first(self) -> list[int]:
        """Numbers of the images, the worst by :attr:`worst_by` first; those without the score last."""
        sign = -1 if lower_is_better(self.worst_by) else 1

        def badness(number: int) -> tuple[bool, float]:
            value = self.images[number].scores.get(self.worst_by)
            return value is None, 0.0 if value is None else sign * value

        return sorted(range(len(self.images)), key=badness)


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
    counted = tuple(name for name in COUNTS.values() if any(image.scores.get(name) is not None for image in images))
    scores = of_files + tuple(name for name in counted if name not in of_files)
    comparisons = tuple(compare_runs(runs))
    facts, settings = run_facts(runs)
    return Content(
        labels=tuple(run.label for run in runs),
        facts=facts,
        settings=settings,
        training=training_charts(runs),
        summary=tuple(row for number, run in enumerate(runs) for row in _summary(number, run)),
        quality=quality_charts(runs),
        calibration=calibration_facts(runs),
        comparisons=comparisons,
        differences=difference_charts(comparisons),
        scores=scores,
        shown=first_shown(scores),
        images=images,
        whole=frozenset(score for score in scores if _is_whole(images, score)),
        worst_by=worst_score(of_files),
        classes=tuple(run.classes for run in runs),
    )


def _is_whole(images: Sequence[ImageRow], score: str) -> bool:
    values = np.array([value for image in images if (value := image.scores.get(score)) is not None])
    return bool((values == np.rint(values)).all() and (lower_is_better(score) or values.max() > 1))


def _image_row(number: int, run: Run, row: int, name: str, pictures: ImagePictures) -> ImageRow:
    scores: dict[str, float | None] = {title: pictures.count(what) for what, title in COUNTS.items()}
    scores |= {score: known_number(values[row]) for score, values in run.scores.items()}
    return ImageRow(number, name, scores, pictures)


def _summary(number: int, run: Run) -> list[ScoreRow]:
    pooled = run.record.get("test", {})
    return [
        ScoreRow(
            run=number,
            score=score,
            pooled=known_number(pooled.get(score)),
            images=mean_interval(values),
            lowest=float(np.nanmin(values)),
            highest=float(np.nanmax(values)),
        )
        for score, values in run.scores.items()
    ]
