"""What metrics of single images share: validity masks, a value for each image and class, and their reduction."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import do_metric_reduction
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = ["ImageMetric", "valid_masks"]


def valid_masks(
    prediction: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None, dimensions: Sequence[int] = (2, 3)
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Both masks as booleans, background where pixels do not count.

    Args:
        prediction: binary mask of shape (H, W), or (D, H, W).
        target: same shape.
        mask: same shape; pixels outside it are background in both.
        dimensions: how many axes there may be.

    Raises:
        ValueError: if the shapes differ, or have another number of axes.

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


class MaskedMetric(CumulativeIterationMetric):
    """What metrics with a validity mask share: how they are called, and their buffer.

    A subclass computes ``(B, K, ...)`` of a batch in ``_compute_tensor``, which begins with :meth:`checked`.
    """

    def checked(self, y_pred: Tensor, y: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Target and mask of a batch; the mask may have come as one more channel of the target.

        Raises:
            ValueError: if there is no target, or shapes do not fit.
        """
        if y is None:
            raise ValueError(f"{type(self).__name__} needs a target")
        classes = y_pred.shape[1]
        if mask is None and y.shape[1] == classes + 1:
            y, mask = y[:, :classes], y[:, classes:]
        if y.shape != y_pred.shape:
            raise ValueError(f"prediction {tuple(y_pred.shape)} and target {tuple(y.shape)} differ in shape")
        if mask is not None and mask.shape not in (y.shape, (len(y), 1, *y.shape[2:])):
            raise ValueError(f"validity mask {tuple(mask.shape)} does not fit a target {tuple(y.shape)}")
        return y, mask

    def scored(self) -> Tensor:
        """The buffer.

        Raises:
            ValueError: if nothing was scored.
        """
        buffer = self.get_buffer()
        if not isinstance(buffer, Tensor):
            raise ValueError("no image has been scored yet")
        return buffer

    def _compute_list(self, y_pred: Any, y: Any = None, mask: Any = None, **kwargs: Any) -> Tensor:
        if y is None:
            raise ValueError(f"{type(self).__name__} needs a target")
        masks = [None] * len(y_pred) if mask is None else [one[None] for one in mask]
        images = zip(y_pred, y, masks, strict=True)
        return torch.cat([self._compute_tensor(p[None], t[None], mask=m, **kwargs) for p, t, m in images])


class ImageMetric(MaskedMetric):
    """A score of each image and class by itself, then reduced; only the scores are kept.

    Call it with ``y_pred`` and ``y`` of shape (B, K, H, W) or (B, K, D, H, W), foreground above 0.5, or with lists of
    such without B. Every channel is scored. Where pixels count is said by ``mask=``, of shape (B, 1, ...) or
    (B, K, ...) and above 0.5, or by one more channel of ``y``, which is the way through MONAI's
    ``IgniteMetricHandler``. Without either all pixels count. The buffer has shape (B, K), float64 where the device
    has it.

    Args:
        reduction: one of MONAI's: ``"none"``, ``"mean"``, ``"mean_batch"``, ``"mean_channel"`` and their sums.
            Scores that are not defined, NaN, are left out.

    Raises:
        ValueError: from the call, if shapes do not fit.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    @abc.abstractmethod
    def score(
        self,
        prediction: NDArray[np.bool_],
        target: NDArray[np.bool_],
        mask: NDArray[np.bool_] | None,
        **options: Any,
    ) -> float:
        """Score of one mask; NaN if it is not defined.

        Args:
            prediction: shape (H, W) or (D, H, W).
            target: same shape.
            mask: same shape, where pixels count; None if all do.
            **options: what the call was given beside ``mask``.
        """

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

    def _compute_tensor(
        self, y_pred: Tensor, y: Tensor | None = None, mask: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        y, mask = self.checked(y_pred, y, mask)
        classes = y_pred.shape[1]
        predicted, true = _foreground(y_pred), _foreground(y)
        inside = None if mask is None else np.broadcast_to(_foreground(mask), true.shape)
        scores = [
            [
                self.score(predicted[at], true[at], None if inside is None else inside[at], **kwargs)
                for at in ((image, number) for number in range(classes))
            ]
            for image in range(len(y))
        ]
        # Apple's GPUs have no float64.
        dtype = torch.float32 if y_pred.device.type == "mps" else torch.float64
        return torch.tensor(scores, dtype=dtype, device=y_pred.device).reshape(len(y), classes)


def _foreground(values: Tensor) -> NDArray[np.bool_]:
    foreground: NDArray[np.bool_] = (values.detach() > 0.5).cpu().numpy()
    return foreground
