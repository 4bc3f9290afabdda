"""Centreline Dice with exact skeletons, as a function and as MONAI metrics, at one threshold and at the best."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage.morphology import skeletonize
from torch import Tensor

from topolora_monai.metrics.image_metric import MaskedMetric, harmonic_mean, valid_masks
from topolora_monai.metrics.overlap import threshold_bin, to_16_bit

DEFAULT_THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(1, 20))
"""Those clDice is taken at: 0.05, 0.10, ... 0.95."""


def cldice(prediction: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Harmonic mean of topology precision and sensitivity (Shit et al., CVPR 2021, arXiv 2003.07311).

    Skeletons are exact (scikit-image), unlike those of the differentiable loss.

    Returns:
        Value in [0, 1]; NaN if both masks are empty, 0 if one is.

    Example:
        >>> line = np.zeros((9, 9), bool)
        >>> line[4, 1:8] = True
        >>> cldice(line, line), cldice(line, np.zeros_like(line))
        (1.0, 0.0)
    """
    predicted, true = valid_masks(prediction, target, mask)
    return _cldice(predicted, true, skeletonize(true))


class ClDiceCurveMetric(MaskedMetric):
    """clDice on exact skeletons at several thresholds, a row of each image and class.

    Call it like :class:`~topolora_monai.metrics.ImageMetric`, with probabilities. A target's skeleton is computed
    once, that of the answer at each threshold.

    Args:
        thresholds: in (0, 1); foreground is ``probability >= threshold``, at 16 bits as it is stored.

    Raises:
        ValueError: for none, or one out of range; and from the call, if shapes do not fit.

    Example:
        >>> import torch
        >>> line = torch.zeros(1, 1, 9, 9)
        >>> line[..., 4, 1:8] = 1
        >>> metric = ClDiceCurveMetric([0.25, 0.5, 0.75])
        >>> _ = metric(y_pred=0.1 + 0.6 * line, y=line)
        >>> metric.aggregate(), metric.best_threshold()
        (tensor([[1., 1., 0.]], dtype=torch.float64), 0.5)
    """

    def __init__(self, thresholds: Sequence[float] = DEFAULT_THRESHOLDS) -> None:
        super().__init__()
        if not thresholds or not all(0 < threshold < 1 for threshold in thresholds):
            raise ValueError(f"thresholds must lie in (0, 1), found {list(thresholds)}")
        self.thresholds = tuple(thresholds)

    def answers(self, y_pred: Tensor) -> Tensor:
        """Probabilities as they are stored."""
        return to_16_bit(y_pred.cpu())

    def score(self, prediction: Any, target: Any, mask: Any, **options: Any) -> list[float]:
        """:func:`cldice` at each threshold."""
        inside = True if mask is None else mask
        true = target & inside
        skeleton = skeletonize(true)
        answers = (inside & (prediction >= threshold_bin(threshold)) for threshold in self.thresholds)
        return [_cldice(answer, true, skeleton) for answer in answers]

    def aggregate(self) -> Tensor:
        """Mean clDice over images since the last reset, shape (K, T); NaN where no image has one."""
        return self.scored().nanmean(dim=0)

    def best_threshold(self) -> float:
        """The threshold with the highest mean clDice, over classes and images; the one nearest to 0.5 of equals."""
        means = self._means().nan_to_num(nan=-1.0).tolist()
        # Means of equal scores may differ in their last digit.
        return min(zip(means, self.thresholds, strict=True), key=lambda one: (-round(one[0], 12), abs(one[1] - 0.5)))[1]

    def _means(self) -> Tensor:
        return self.scored().nanmean(dim=0).nanmean(dim=0)


class BestClDice(ClDiceCurveMetric):
    """clDice at the best of several thresholds, one number as engines want it; see :class:`ClDiceCurveMetric`.

    Example:
        >>> import torch
        >>> line = torch.zeros(1, 1, 9, 9)
        >>> line[..., 4, 1:8] = 1
        >>> metric = BestClDice([0.5, 0.75])
        >>> _ = metric(y_pred=0.1 + 0.6 * line, y=line)
        >>> metric.aggregate()
        tensor([1.], dtype=torch.float64)
    """

    def aggregate(self) -> Tensor:
        """Mean over classes and images at :meth:`best_threshold`, shape (1,)."""
        return self._means()[[self.thresholds.index(self.best_threshold())]]


def _cldice(answer: NDArray[np.bool_], true: NDArray[np.bool_], skeleton: NDArray[np.bool_]) -> float:
    """Of valid masks, with the target's skeleton at hand."""
    if not answer.any() or not true.any():
        return 0.0 if answer.any() or true.any() else float("nan")
    return harmonic_mean(float(true[skeletonize(answer)].mean()), float(answer[skeleton].mean()))
