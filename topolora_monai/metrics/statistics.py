"""How sure a mean over images is, and whether two runs differ."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

Statistic = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Interval:
    """A value and its confidence interval."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class PairedTest:
    """What two runs on the same images differ by.

    Args:
        images: number of pairs of which both values are defined.
        difference: mean of first minus second.
        low: lower end of its bootstrap interval.
        high: upper end.
        p_value: of Wilcoxon's signed-rank test, two-sided.
        effect_size: matched-pairs rank-biserial correlation, in [-1, 1]; 1 if the first is better on every image.
        better: images on which the first has the higher value.
        worse: images on which it has the lower.
    """

    images: int
    difference: float
    low: float
    high: float
    p_value: float
    effect_size: float
    better: int
    worse: int


def _pooled_dice(hits: Any, false_alarms: Any, missed: Any, axis: int = -1) -> Any:
    twice = 2 * hits.sum(axis)
    return twice / np.asarray(twice + false_alarms.sum(axis) + missed.sum(axis))


def _pooled_iou(hits: Any, false_alarms: Any, missed: Any, axis: int = -1) -> Any:
    dice = _pooled_dice(hits, false_alarms, missed, axis)
    return dice / (2 - dice)


_STATISTICS: Mapping[str, Statistic] = {"mean": np.mean, "median": np.median, "dice": _pooled_dice, "iou": _pooled_iou}


def bootstrap_interval(
    values: ArrayLike,
    statistic: str | Statistic = "mean",
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval over images: bias-corrected and accelerated (Efron, JASA 1987).

    Scores of few images are bounded and skewed, which this corrects for and the percentile interval does not. Where
    the correction is not defined (every resample on one side of the value), the percentile interval is taken.

    Args:
        values: a value of each image, shape (n,); or counts of each image, shape (n, C), for a pooled statistic.
            Images with a NaN are left out.
        statistic: ``"mean"`` or ``"median"``; of counts (true positives, false positives, false negatives) ``"dice"``
            or ``"iou"`` pooled over images; or a function of the C columns and ``axis`` that reduces that axis.
        level: confidence level in (0, 1).
        resamples: number of resamples.
        seed: of the resampling.

    Returns:
        The statistic and its interval; the ends are NaN for fewer than two images.

    Raises:
        ValueError: for an unknown statistic, values of another shape, or a setting out of range.

    Example:
        >>> interval = bootstrap_interval([0.8, 0.82, 0.79, 0.84, 0.81])
        >>> round(interval.value, 3), interval.low < 0.81 < interval.high
        (0.812, True)
    """
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level must be in (0, 1) and resamples at least 1, not {level} and {resamples}")
    table = np.asarray(values, np.float64)
    table = table[:, None] if table.ndim == 1 else table
    if isinstance(statistic, str) and statistic not in _STATISTICS:
        raise ValueError(f"statistic must be one of {', '.join(_STATISTICS)} or a function, not {statistic!r}")
    compute = _STATISTICS[statistic] if isinstance(statistic, str) else statistic
    if table.ndim != 2 or (statistic in ("dice", "iou") and table.shape[1] != 3):
        raise ValueError(f"{statistic!r} cannot be taken of values of shape {np.shape(values)}")
    columns = tuple(table[~np.isnan(table).any(axis=1)].T)
    images = columns[0].size
    with np.errstate(invalid="ignore"):  # 0/0 is NaN, as with single images
        value = float(compute(*columns, axis=-1)) if images else math.nan
    if images < 2:
        return Interval(value, math.nan, math.nan)
    if all((column == column[0]).all() for column in columns):
        return Interval(value, value, value)
    for method in ("BCa", "percentile"):
        with np.errstate(invalid="ignore", divide="ignore"):
            low, high = stats.bootstrap(
                columns,
                compute,
                paired=True,
                vectorized=True,
                confidence_level=level,
                n_resamples=resamples,
                batch=1000,  # held in memory at a time
                method=method,
                random_state=np.random.default_rng(seed),
            ).confidence_interval
        if not math.isnan(low + high):
            break
    return Interval(value, float(low), float(high))


def paired_test(
    first: ArrayLike, second: ArrayLike, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> PairedTest:
    """Compare two runs image by image: Wilcoxon's signed-rank test and a bootstrap interval of the mean difference.

    Equal pairs are left out of the test, as Wilcoxon does; if all are equal the p-value is 1.

    Args:
        first: a value of each image, shape (n,).
        second: the other run's, of the same images in the same order. Pairs with a NaN are left out.
        level: confidence level of the interval.
        resamples: number of resamples.
        seed: of the resampling.

    Raises:
        ValueError: if the shapes differ or are not (n,).

    Example:
        >>> test = paired_test([0.80, 0.75, 0.91, 0.60, 0.72], [0.78, 0.72, 0.87, 0.55, 0.66])
        >>> test.p_value, test.effect_size, test.better
        (0.0625, 1.0, 5)
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.ndim != 1 or one.shape != other.shape:
        raise ValueError(f"values of the same images are needed, found shapes {one.shape} and {other.shape}")
    differences = (one - other)[~np.isnan(one - other)]
    interval = bootstrap_interval(differences, "mean", level, resamples, seed)
    moved = differences[differences != 0]
    ranks = stats.rankdata(np.abs(moved))
    p_value, effect_size = (1.0, 0.0) if differences.size else (math.nan, math.nan)
    if moved.size:
        p_value = float(stats.wilcoxon(moved).pvalue)
        effect_size = float((ranks * np.sign(moved)).sum() / ranks.sum())
    return PairedTest(
        images=differences.size,
        difference=interval.value,
        low=interval.low,
        high=interval.high,
        p_value=p_value,
        effect_size=effect_size,
        better=int((differences > 0).sum()),
        worse=int((differences < 0).sum()),
    )
