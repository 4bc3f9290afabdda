"""Measures of whole probability maps, as salient object, camouflage, polyp and shadow detection report them.

py-sod-metrics has most of them, but takes no mask, and its requirements exclude the present numpy and scikit-image.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter
from torch import Tensor

from topolora_monai.metrics.image_metric import ImageMetric

_EPS = float(np.spacing(1))
_LEVELS = 256


def s_measure(probability: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None, alpha: float = 0.5) -> float:
    """Structure measure: likeness of the object's statistics and of four regions (Fan et al., ICCV 2017).

    Pixels outside the mask are left out of every sum, so that a rectangular mask gives what the cropped image gives.
    ``alpha`` is the weight of the object part, in [0, 1].

    Returns:
        Value of at least 0, 1 at best. On an empty target 1 minus the mean probability, on a full one the mean
        probability; NaN if no pixel counts. A region without pixels, where the centroid is in the last row or column,
        is left out (py-sod-metrics says NaN).

    Example:
        >>> square = np.zeros((8, 8))
        >>> square[2:6, 2:6] = 1
        >>> round(s_measure(square, square), 6)
        1.0
    """
    p, true, inside = _checked(probability, target, mask)
    if not inside.any():
        return float("nan")
    share = float(true[inside].mean())
    if share in (0.0, 1.0):
        mean = float(p[inside].mean())
        return mean if share else 1 - mean
    alike = share * _object_likeness(p[true]) + (1 - share) * _object_likeness(1 - p[inside & ~true])
    return max(0.0, float(alpha * alike + (1 - alpha) * _region_likeness(p, true, inside)))


def e_measure(probability: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Mean enhanced-alignment measure over 256 thresholds (Fan et al., IJCAI 2018).

    Foreground at threshold t of 0 to 255 is where the whole part of 255 p is at least t. As in the authors' code the
    sum is divided by one pixel less than there are, so that a perfect answer to a small image is a little above 1.

    Returns:
        Mean over thresholds. On an empty target the share of background answered, on a full one of foreground; NaN
        if no pixel counts.

    Example:
        >>> e_measure(np.zeros((5, 5)), np.ones((5, 5))) < 0.01
        True
    """
    p, true, inside = _checked(probability, target, mask)
    pixels, positives = int(inside.sum()), int(true.sum())
    if not pixels:
        return float("nan")
    levels = (p * (_LEVELS - 1)).astype(np.int64)
    # True positives, and pixels answered foreground, at thresholds 255 down to 0.
    hits, answered = (np.bincount(levels[of], minlength=_LEVELS)[::-1].cumsum() for of in (true, inside))
    if 0 < positives < pixels:
        total = _alignment(hits, answered, positives, pixels)
    else:
        total = answered if positives else pixels - answered
    return float((total / max(pixels - 1, 1)).mean())


def weighted_f_measure(
    probability: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None, beta_squared: float = 1.0
) -> float:
    """F-measure with errors weighted by where they are (Margolin et al., CVPR 2014).

    Pixels outside the mask are treated like those beyond the image. With ``beta_squared`` above 1 recall weighs more,
    below 1 precision.

    Returns:
        Value in [0, 1]; NaN on an empty target, where the paper defines none (py-sod-metrics says 0).

    Example:
        >>> dot = np.zeros((9, 9))
        >>> dot[4, 4] = 1
        >>> round(weighted_f_measure(dot, dot), 6), weighted_f_measure(1 - dot, dot) < 0.01
        (1.0, True)
    """
    p, true, inside = _checked(probability, target, mask)
    if not true.any():
        return float("nan")
    distance, nearest = distance_transform_edt(~true, return_indices=True)
    error = np.abs(p - true)
    # Background takes the error of the nearest foreground pixel, so that smoothing does not mix both at the edge.
    carried = np.where(inside, error[tuple(nearest)], 0.0)
    smooth = gaussian_filter(carried, 5, radius=3, mode="constant")
    lenient = np.where(true & (smooth < error), smooth, error)
    importance = np.where(true, 1.0, 2 - np.exp(np.log(0.5) / 5 * distance))
    weighted = lenient * importance
    found = float(true.sum() - weighted[true].sum())
    recall = float(1 - weighted[true].mean())
    precision = found / (found + float(weighted[inside & ~true].sum()) + _EPS)
    return float((1 + beta_squared) * recall * precision / (recall + beta_squared * precision + _EPS))


def mean_absolute_error(probability: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Mean of ``|probability - target|`` over the pixels that count; NaN if there are none.

    Example:
        >>> mean_absolute_error([[0.75, 0.25]], [[1, 0]])
        0.25
    """
    p, true, inside = _checked(probability, target, mask)
    return float(np.abs(p - true)[inside].mean()) if inside.any() else float("nan")


def balanced_error_rate(
    probability: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None, threshold: float = 0.5
) -> float:
    """Mean of the error rates on foreground and on background, as shadow detection reports it (in per cent there).

    Returns:
        Value in [0, 1], 0 at best; NaN where foreground or background is absent (py-sod-metrics takes the absent
        one's error rate for 1).

    Example:
        >>> balanced_error_rate([[0.9, 0.1, 0.8, 0.2]], [[1, 1, 0, 0]])
        0.5
    """
    p, true, inside = _checked(probability, target, mask)
    background = inside & ~true
    if not true.any() or not background.any():
        return float("nan")
    answer = p >= threshold
    return float((1 - answer[true].mean() + answer[background].mean()) / 2)


class ProbabilityMetric(ImageMetric):
    """An :class:`ImageMetric` that scores probabilities rather than masks; it is called in the same way.

    Args:
        measure: of probabilities, such as :func:`s_measure`.
        reduction: one of MONAI's.
        normalize: stretch each map to [0, 1] inside its mask first, as evaluations of salient objects do; a constant
            map stays as it is.
        **options: further arguments of the measure.

    Example:
        >>> import torch
        >>> metric = ProbabilityMetric(s_measure)
        >>> _ = metric(y_pred=torch.zeros(1, 1, 4, 4), y=torch.zeros(1, 1, 4, 4))
        >>> metric.aggregate().item()
        1.0
    """

    def __init__(
        self, measure: Callable[..., float], reduction: str = "mean", normalize: bool = False, **options: Any
    ) -> None:
        super().__init__(measure, reduction, **options)
        self.normalize = normalize

    def answers(self, y_pred: Tensor) -> Tensor:
        """Probabilities as float64."""
        return y_pred.cpu().double()

    def score(self, prediction: Any, target: Any, mask: Any, **options: Any) -> float:
        """What the measure says of one map."""
        counted = prediction if mask is None else prediction[mask]
        if self.normalize and counted.size and counted.max() > counted.min():
            prediction = np.clip((prediction - counted.min()) / (counted.max() - counted.min()), 0, 1)
        return super().score(prediction, target, mask, **options)


def _checked(
    probability: ArrayLike, target: ArrayLike, mask: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Probabilities, foreground that counts, and what counts."""
    p, true = np.asarray(probability, np.float64), np.asarray(target) > 0.5
    inside = np.ones(true.shape, bool) if mask is None else np.asarray(mask) > 0.5
    if p.ndim != 2 or p.shape != true.shape or p.shape != inside.shape:
        raise ValueError(f"probability {p.shape}, target {true.shape} and mask {inside.shape} must share (H, W)")
    if not ((p[inside] >= 0) & (p[inside] <= 1)).all():
        raise ValueError("probabilities must lie in [0, 1]")
    return np.where(inside, p, 0.0), true & inside, inside


def _object_likeness(values: NDArray[np.float64]) -> float:
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + spread + _EPS)


def _region_likeness(p: NDArray[np.float64], true: NDArray[np.bool_], inside: NDArray[np.bool_]) -> float:
    """Likeness of the four regions around the target's centroid, by their numbers of pixels."""
    row, column = (int(value) + 1 for value in np.argwhere(true).mean(axis=0).round())
    total = 0.0
    for region in itertools.product(*((slice(None, at), slice(at, None)) for at in (row, column))):
        counted = inside[region]
        if counted.any():
            total += _ssim(p[region][counted], true[region][counted]) * counted.sum() / inside.sum()
    return total


def _ssim(p: NDArray[np.float64], true: NDArray[np.bool_]) -> float:
    free = p.size - 1 + _EPS
    x, y = p.mean(), true.mean()
    shared = ((p - x) * (true - y)).sum() / free
    upper = 4 * x * y * shared
    lower = (x**2 + y**2) * (((p - x) ** 2).sum() + ((true - y) ** 2).sum()) / free
    if upper:
        return float(upper / (lower + _EPS))
    return 0.0 if lower else 1.0


def _alignment(hits: NDArray[Any], answered: NDArray[Any], positives: int, pixels: int) -> NDArray[Any]:
    """Sum of the enhanced alignment matrix, which has four values only, at each threshold."""
    mean_answer, mean_target = answered / pixels, positives / pixels
    false_alarms, missed = answered - hits, positives - hits
    parts = (
        (hits, 1 - mean_answer, 1 - mean_target),
        (false_alarms, 1 - mean_answer, -mean_target),
        (missed, -mean_answer, 1 - mean_target),
        (pixels - answered - missed, -mean_answer, -mean_target),
    )
    alike = ((count, 2 * answer * truth / (answer**2 + truth**2 + _EPS)) for count, answer, truth in parts)
    return np.asarray(np.sum([count * (enhanced + 1) ** 2 / 4 for count, enhanced in alike], axis=0))
