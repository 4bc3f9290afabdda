"""Scores that are taken of each image by itself, by name."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from topolora_monai import metrics
from topolora_monai.errors import unknown_choice

PATCH_SIZE = 64
"""Side in pixels of the patches that Betti errors are averaged over, as in Hu et al., NeurIPS 2019."""

IMAGE_SCORES: Mapping[str, Callable[[float, float], metrics.ImageMetric]] = {
    "cldice": lambda spacing, tolerance: metrics.ImageMetric(metrics.cldice),
    "betti_0_error": lambda spacing, tolerance: metrics.ImageMetric(metrics.betti_error, dimension=0),
    "betti_1_error": lambda spacing, tolerance: metrics.ImageMetric(metrics.betti_error, dimension=1),
    "betti_0_patch_error": lambda spacing, tolerance: metrics.ImageMetric(
        metrics.betti_error, dimension=0, patch_size=PATCH_SIZE
    ),
    "betti_1_patch_error": lambda spacing, tolerance: metrics.ImageMetric(
        metrics.betti_error, dimension=1, patch_size=PATCH_SIZE
    ),
    "betti_matching_error": lambda spacing, tolerance: metrics.ImageMetric(metrics.betti_matching_error),
    "boundary_f1": lambda spacing, tolerance: metrics.ImageMetric(
        metrics.boundary_f1, tolerance=tolerance, spacing=spacing
    ),
    "hd95": lambda spacing, tolerance: metrics.ImageMetric(metrics.hd95, spacing=spacing),
    "assd": lambda spacing, tolerance: metrics.ImageMetric(metrics.assd, spacing=spacing),
    "s_measure": lambda spacing, tolerance: metrics.ProbabilityMetric(metrics.s_measure),
    "e_measure": lambda spacing, tolerance: metrics.ProbabilityMetric(metrics.e_measure),
    "weighted_f": lambda spacing, tolerance: metrics.ProbabilityMetric(metrics.weighted_f_measure),
    "mae": lambda spacing, tolerance: metrics.ProbabilityMetric(metrics.mean_absolute_error),
    "ber": lambda spacing, tolerance: metrics.ProbabilityMetric(metrics.balanced_error_rate),
}
"""What makes the metric of a name, given the size of a pixel and the tolerance of boundaries in the same unit.

The last five judge the probabilities, the others the masks.
"""


def check_scores(names: str | Sequence[str]) -> list[str]:
    """Names of scores as a list, of which one may stand alone, as the command line gives a single word.

    Raises:
        ConfigError: for a name that is not one of :data:`IMAGE_SCORES`; suggests the closest.

    Example:
        >>> check_scores("cldice")
        ['cldice']
    """
    listed = [names] if isinstance(names, str) else list(names)
    for name in listed:
        if name not in IMAGE_SCORES:
            raise unknown_choice("score", name, IMAGE_SCORES)
    return listed


class ImageScores:
    """Scores of single images of one or several classes.

    Args:
        names: as of :func:`check_scores`.
        spacing: size of a pixel, for distances.
        tolerance: how far off a boundary may lie, in the same unit.

    Raises:
        ConfigError: for a name that is not one of them.

    Example:
        >>> line = torch.zeros(1, 9, 9)
        >>> line[:, 4] = 1
        >>> broken = line.clone()
        >>> broken[..., 4] = 0
        >>> ImageScores(["betti_0_error", "betti_1_error"]).of(broken, broken.numpy() > 0.5, line, None)
        [{'betti_0_error': 1.0, 'betti_1_error': 0.0}]
    """

    def __init__(self, names: str | Sequence[str], spacing: float = 1.0, tolerance: float = 2.0) -> None:
        self.metrics = {name: IMAGE_SCORES[name](spacing, tolerance) for name in check_scores(names)}

    def of(
        self, probability: Tensor, predicted: NDArray[np.bool_], label: Tensor, fov: Tensor | None
    ) -> list[dict[str, float]]:
        """Scores of one image by name, for each of its K classes; NaN where a score is not defined.

        Args:
            probability: shape (K, H, W).
            predicted: masks, same shape.
            label: same shape, foreground above 0.5.
            fov: shape (1, H, W); only pixels above 0.5 count.
        """
        mask = torch.from_numpy(predicted.astype(np.float32))
        columns = []
        for metric in self.metrics.values():
            answer = probability if isinstance(metric, metrics.ProbabilityMetric) else mask
            values = metric(y_pred=answer[None], y=label[None], mask=None if fov is None else fov[None])
            metric.reset()
            columns.append(values[0].tolist())
        return [dict(zip(self.metrics, [column[k] for column in columns], strict=True)) for k in range(len(label))]
