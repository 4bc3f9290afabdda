"""Centreline Dice as a MONAI metric."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topolora_monai.metrics.cldice import cldice
from topolora_monai.metrics.image_metric import ImageMetric

__all__ = ["ClDiceMetric"]


class ClDiceMetric(ImageMetric):
    """:func:`cldice` as a MONAI metric; see :class:`ImageMetric` for how to call it.

    Args:
        reduction: one of MONAI's.

    Example:
        >>> import torch
        >>> metric = ClDiceMetric()
        >>> _ = metric(y_pred=torch.eye(9)[None, None], y=torch.eye(9)[None, None])
        >>> metric.aggregate()
        tensor([1.])
    """

    def score(
        self, prediction: NDArray[np.bool_], target: NDArray[np.bool_], mask: NDArray[np.bool_] | None, **options: Any
    ) -> float:
        """See :func:`cldice`."""
        return cldice(prediction, target, mask, **options)
