"""How sure a mean over images is, and whether two runs differ on the same images."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from topolora_monai.metrics import bootstrap_interval, paired_test
from topolora_monai.reports.html.runs import Run
from topolora_monai.reports.html.scores import lower_is_better


@dataclasses.dataclass(frozen=True)
class Interval:
    """Mean over ``count`` images with its bootstrap 95 % interval; ends are NaN for fewer than two images."""

    mean: float
    low: float
    high: float
    count: int


@dataclasses.dataclass(frozen=True)
class Difference:
    """One score of two runs on the images that both scored: the mean of either, and that of second minus first.

    ``p_value`` is of Wilcoxon's signed-rank test, two-sided, NaN without images; ``better`` and ``worse`` say on how
    many images the second is so.
    """

    score: str
    first: float
    second: float
    difference: Interval
    p_value: float
    better: int
    worse: int


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two runs, by their labels, on the images they share.

    ``left_out`` counts those that only one of them scored. There is a difference for each score that both have, and
    second minus first of each image in ``each``, by score.
    """

    first: str
    second: str
    names: tuple[str, ...]
    left_out: int
    differences: tuple[Difference, ...]
    each: dict[str, NDArray[np.float64]]


def mean_interval(values: NDArray[np.float64]) -> Interval:
    """Mean over images, NaN left out, and its interval by :func:`~topolora_monai.metrics.bootstrap_interval`.

    Example:
        >>> mean_interval(np.array([0.5, 0.5, np.nan]))
        Interval(mean=0.5, low=0.5, high=0.5, count=2)
    """
    found = bootstrap_interval(values)
    return Interval(found.value, found.low, found.high, int(np.isfinite(values).sum()))


def compare_runs(runs: Sequence[Run]) -> list[Comparison]:
    """Each further run against the first, image by image."""
    return [_compare(runs[0], other) for other in runs[1:]]


def _compare(first: Run, second: Run) -> Comparison:
    places = [{name: row for row, name in enumerate(run.names)} for run in (first, second)]
    names = tuple(name for name in first.names if name in places[1])
    rows, columns = ([place[name] for name in names] for place in places)
    shared = [score for score in first.scores if score in second.scores]
    pairs = {score: (first.scores[score][rows], second.scores[score][columns]) for score in shared}
    return Comparison(
        first=first.label,
        second=second.label,
        names=names,
        left_out=len(first.names) + len(second.names) - 2 * len(names),
        differences=tuple(_difference(score, *pair) for score, pair in pairs.items()),
        each={score: after - before for score, (before, after) in pairs.items()},
    )


def _difference(score: str, before: NDArray[np.float64], after: NDArray[np.float64]) -> Difference:
    known = np.isfinite(before) & np.isfinite(after)
    test = paired_test(after[known], before[known])
    first, second = (float(of[known].mean()) if known.any() else np.nan for of in (before, after))
    interval = Interval(test.difference, test.low, test.high, test.images)
    counts = (test.worse, test.better) if lower_is_better(score) else (test.better, test.worse)
    return Difference(score, first, second, interval, test.p_value, *counts)
