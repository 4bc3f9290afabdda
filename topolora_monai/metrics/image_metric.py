"""What metrics of single images share: validity masks, a value for each image and class, and their reduction."""

import abc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import do_metric_reduction
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


def valid_masks(
    prediction: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None, dimensions: Sequence[int] = (2, 3)
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Both masks as booleans, background where pixels do not count.

    Raises:
        ValueError: if the shapes differ, or have another number of axes than one of ``dimensions``.

    Example:
        >>> valid_masks([[1, 1]], [[0, 1]], [[0, 1]])
        (array([[False,  True]]), array([[False,  True]]))
    """
    predicted, true = np.asarray(prediction, bool), np.asarray(target, bool)
    if predicted.shape != true.shape:
        raise ValueError(f"prediction {predicted.shape} and target {true.shape} differ in shape")
    if predicted.ndim not in dimensions:
        allowed = " or ".join(f"{number}-D" for number in dimensions)
        raise ValueError(f"masks must be {allowed}, not of shape {predicted.shape}")
    if mask is None:
        return predicted, true
    inside = np.asarray(mask, bool)
    if inside.shape != true.shape:
        raise ValueError(f"validity mask {inside.shape} and target {true.shape} differ in shape")
    return predicted & inside, true & inside


def harmonic_mean(precision: float, recall: float) -> float:
    """Of two shares; 0 if both are."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


class MaskedMetric(CumulativeIterationMetric):
    """What metrics with a validity mask share: how they are called, and their buffer of shape (B, K, ...)."""

    @abc.abstractmethod
    def score(self, prediction: Any, target: Any, mask: Any, **options: Any) -> Any:
        """Score of one image and class, or several of them; NaN if not defined.

        The prediction is what :meth:`answers` made of it, of shape (H, W) or (D, H, W); the target and the mask, where
        pixels count, are bool, and the mask None if all do. ``options`` are what the call was given beside ``mask``.
        """

    def answers(self, y_pred: Tensor) -> Tensor:
        """What is scored of a batch's predictions, of the same shape."""
        return y_pred > 0.5

    def scored(self) -> Tensor:
        """The buffer. A ``ValueError`` if nothing was scored."""
        buffer = self.get_buffer()
        if not isinstance(buffer, Tensor):
            raise ValueError("no image has been scored yet")
        return buffer

    def _compute_list(self, y_pred: Any, y: Any = None, mask: Any = None, **kwargs: Any) -> Tensor:
        targets, masks = ([None] * len(y_pred) if of is None else [one[None] for one in of] for of in (y, mask))
        images = zip(y_pred, targets, masks, strict=True)
        return torch.cat([self._compute_tensor(p[None], t, mask=m, **kwargs) for p, t, m in images])

    def _compute_tensor(
        self, y_pred: Tensor, y: Tensor | None = None, mask: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        if y is None:
            raise ValueError(f"{type(self).__name__} needs a target")
        classes = y_pred.shape[1]
        if mask is None and y.shape[1] == classes + 1:
            y, mask = y[:, :classes], y[:, classes:]
        if y.shape != y_pred.shape:
            raise ValueError(f"prediction {tuple(y_pred.shape)} and target {tuple(y.shape)} differ in shape")
        if mask is not None and mask.shape not in (y.shape, (len(y), 1, *y.shape[2:])):
            raise ValueError(f"validity mask {tuple(mask.shape)} does not fit a target {tuple(y.shape)}")
        answers, true = self.answers(y_pred.detach()).cpu().numpy(), (y.detach() > 0.5).cpu().numpy()
        inside = None if mask is None else np.broadcast_to((mask.detach() > 0.5).cpu().numpy(), true.shape)
        each = ((answers[at], true[at], None if inside is None else inside[at]) for at in np.ndindex(true.shape[:2]))
        scores = np.array([self.score(*one, **kwargs) for one in each])
        # Apple's GPUs have no float64.
        dtype = torch.float32 if y_pred.device.type == "mps" else torch.float64
        return torch.tensor(scores, dtype=dtype, device=y_pred.device).reshape(*true.shape[:2], *scores.shape[1:])


class ImageMetric(MaskedMetric):
    """A score of each image and class by itself as a MONAI metric, reduced in the end; only the scores are kept.

    Call it with ``y_pred`` and ``y`` of shape (B, K, H, W) or (B, K, D, H, W), foreground above 0.5, or with lists of
    such without B. Every channel is scored. Where pixels count is said by ``mask=``, of shape (B, 1, ...) or
    (B, K, ...) and above 0.5, or by one more channel of ``y``, which is the way through MONAI's
    ``IgniteMetricHandler``. Without either all pixels count. Further arguments of a call are the measure's, in place
    of those given here. The buffer has shape (B, K), float64 where the device has it.

    Args:
        measure: of masks, such as :func:`~topolora_monai.metrics.cldice` or :func:`~topolora_monai.metrics.hd95`.
        reduction: one of MONAI's: ``"none"``, ``"mean"``, ``"mean_batch"``, ``"mean_channel"`` and their sums.
            Scores that are not defined, NaN, are left out.
        **options: further arguments of the measure.

    Raises:
        ValueError: from the call, if shapes do not fit.

    Example:
        >>> from topolora_monai.metrics import hd95
        >>> metric = ImageMetric(hd95, spacing=0.5)
        >>> line = torch.zeros(1, 1, 9, 9)
        >>> line[..., 4, :] = 1
        >>> metric(y_pred=line, y=line.roll(2, 2)), metric(y_pred=line, y=line.roll(2, 2), spacing=1)
        (tensor([[1.]], dtype=torch.float64), tensor([[2.]], dtype=torch.float64))
        >>> metric.aggregate()
        tensor([1.5000])
    """

    def __init__(self, measure: Callable[..., float], reduction: str = "mean", **options: Any) -> None:
        super().__init__()
        self.measure = measure
        self.reduction = reduction
        self.options = options

    def score(self, prediction: Any, target: Any, mask: Any, **options: Any) -> float:
        """What the measure says of one image and class."""
        return self.measure(prediction, target, mask=mask, **self.options | options)

    def aggregate(self, reduction: str | None = None) -> Tensor:
        """Scores of all images since the last reset, reduced.

        Unlike with MONAI's metrics, what was reduced from no defined score at all is NaN rather than 0.

        Args:
            reduction: instead of the metric's own.

        Raises:
            ValueError: if nothing was scored.
        """
        values, defined = do_metric_reduction(self.scored(), reduction or self.reduction)
        return torch.where(defined > 0, values, torch.nan)
