"""Whether probabilities mean what they say, and one number that mends them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logit
from torch import Tensor

from topolora_monai.metrics.image_metric import MaskedMetric
from topolora_monai.metrics.overlap import ThresholdCurve

__all__ = [
    "CalibrationMetric",
    "ReliabilityDiagram",
    "apply_temperature",
    "fit_temperature",
    "negative_log_likelihood",
    "reliability_diagram",
]

Of = Literal["foreground", "decision"]

_SMALLEST, _LARGEST = 0.01, 100.0
"""Temperatures that are looked at."""


@dataclasses.dataclass(frozen=True)
class ReliabilityDiagram:
    """Pixels in bins of equal width of what was claimed.

    Args:
        counts: pixels in each bin, shape (bins,).
        confidence: mean claimed probability in each bin; NaN in empty ones.
        accuracy: how often it came true; NaN in empty ones.
        brier: mean squared difference of foreground's probability and truth; NaN without pixels.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    brier: float

    @property
    def expected_error(self) -> float:
        """Expected calibration error (Naeini et al., AAAI 2015; Guo et al., ICML 2017); NaN without pixels."""
        if not self.counts.sum():
            return float("nan")
        gaps = np.nan_to_num(np.abs(self.confidence - self.accuracy))
        return float((self.counts * gaps).sum() / self.counts.sum())


class CalibrationMetric(MaskedMetric):
    """Calibration error, Brier score and reliability diagram, each class against the rest.

    Call it with probabilities and targets of shape (B, K, H, W), or lists of (K, H, W); where pixels count is said by
    ``mask=`` of shape (B, 1, H, W) or (B, K, H, W), or by one more channel of the target. Of each image and class only
    three sums a bin and two more are kept.

    Args:
        bins: number of bins of equal width; a value on an edge is in the upper one.
        of: ``"foreground"`` bins the probability of foreground and compares it with its frequency, over [0, 1];
            ``"decision"`` bins that of the decision at 0.5, as Guo et al. do, and compares it with how often the
            decision is right. In thin structures nearly all pixels are certain background, which flatters the latter.

    Raises:
        ValueError: for an impossible setting, and from the call, if shapes do not fit.

    Example:
        >>> metric = CalibrationMetric()
        >>> _ = metric(y_pred=torch.full((1, 1, 2, 2), 0.75), y=torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]]]))
        >>> metric.aggregate(), metric.diagram().brier
        (tensor([0.], dtype=torch.float64), 0.1875)
    """

    def __init__(self, bins: int = 15, of: Of = "foreground") -> None:
        super().__init__()
        if bins < 1 or of not in ("foreground", "decision"):
            raise ValueError(f"bins must be at least 1 and of foreground or decision, not {bins} and {of!r}")
        self.bins = bins
        self.of = of

    def aggregate(self) -> Tensor:
        """Calibration error of each class over all pixels since the last reset, shape (K,)."""
        return torch.tensor(
            [self.diagram(k).expected_error for k in range(self.scored().cpu().shape[1])], dtype=torch.float64
        )

    def brier(self) -> Tensor:
        """Brier score of each class over all pixels since the last reset, shape (K,)."""
        return torch.tensor([self.diagram(k).brier for k in range(self.scored().cpu().shape[1])], dtype=torch.float64)

    def per_image(self) -> Tensor:
        """Calibration error and Brier score of each image and class, shape (B, K, 2)."""
        rows = [
            [(d.expected_error, d.brier) for d in (self._of_sums(sums) for sums in image)]
            for image in self.scored().cpu().numpy()
        ]
        return torch.tensor(rows, dtype=torch.float64)

    def diagram(self, number: int | None = None) -> ReliabilityDiagram:
        """Reliability over all images since the last reset.

        Args:
            number: channel of the class; None pools all classes.

        Raises:
            ValueError: if nothing was scored.
        """
        sums = self.scored().cpu().numpy().sum(axis=0)
        return self._of_sums(sums.sum(axis=0) if number is None else sums[number])

    def _of_sums(self, sums: NDArray[np.float64]) -> ReliabilityDiagram:
        return _diagram(sums[:-1].reshape(3, self.bins), float(sums[-1]))

    def _compute_tensor(
        self, y_pred: Tensor, y: Tensor | None = None, mask: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """Sums of each image and class: pixels, claims and truths of each bin, and squared errors."""
        y, mask = self.checked(y_pred, y, mask)
        p, true = y_pred.detach().cpu().double(), (y.detach() > 0.5).cpu()
        inside = torch.ones_like(true) if mask is None else (mask.detach() > 0.5).cpu().expand_as(true)
        sums = torch.empty((*p.shape[:2], 3 * self.bins + 1), dtype=torch.float64)
        for at in np.ndindex(*p.shape[:2]):
            sums[at] = self._image_sums(p[at][inside[at]], true[at][inside[at]])
        return sums

    def _image_sums(self, p: Tensor, true: Tensor) -> Tensor:
        if not bool(((p >= 0) & (p <= 1)).all()):
            raise ValueError("probabilities must lie in [0, 1]")
        squares = ((p - true.double()) ** 2).sum()
        claimed, right = p, true
        if self.of == "decision":
            claimed, right = torch.maximum(p, 1 - p), (p >= 0.5) == true
        at = (claimed * self.bins).long().clamp(max=self.bins - 1)
        parts = [torch.bincount(at, weights, self.bins) for weights in (torch.ones_like(p), claimed, right.double())]
        return torch.cat([*parts, squares[None]])


def reliability_diagram(curve: ThresholdCurve, bins: int = 15) -> ReliabilityDiagram:
    """Reliability of foreground's probability, from counts that are pooled over images.

    Args:
        curve: each probability is taken for the middle of its 16-bit level.
        bins: number of bins of equal width.

    Example:
        >>> counts = ThresholdCurve()
        >>> counts.add(torch.tensor([0.75, 0.75, 0.75, 0.75]), torch.tensor([1.0, 1.0, 1.0, 0.0]))
        >>> diagram = reliability_diagram(counts)
        >>> round(diagram.expected_error, 4), round(diagram.brier, 4)
        (0.0, 0.1875)
    """
    positives, negatives = curve.positives.astype(float), curve.negatives.astype(float)
    levels = (np.arange(len(positives)) + 0.5) / len(positives)
    at = np.minimum((levels * bins).astype(int), bins - 1)
    parts = [
        np.bincount(at, part, bins) for part in (positives + negatives, levels * (positives + negatives), positives)
    ]
    squares = (positives * (1 - levels) ** 2 + negatives * levels**2).sum()
    return _diagram(np.array(parts), float(squares))


def fit_temperature(curves: ThresholdCurve | Sequence[ThresholdCurve]) -> float:
    """Temperature of least negative log-likelihood (Guo et al., ICML 2017), from counts of probabilities.

    A temperature above 1 says that the network is too sure. It moves no pixel past another: AUC and average precision
    stay, and the best threshold moves along. Choose thresholds on probabilities that have been through
    :func:`apply_temperature`. It is one number of all classes, which are each judged by themselves (sigmoid); of
    classes that exclude one another the counts of single classes do not tell it.

    Args:
        curves: counts of validation images, of each class where there are several. A probability is taken for the
            middle of its 16-bit level, so that logits beyond 11.8 count as 11.8.

    Returns:
        Temperature between 0.01 and 100.

    Raises:
        ValueError: if foreground or background is absent, which any certainty would fit.

    Example:
        >>> counts = ThresholdCurve()
        >>> counts.add(torch.tensor([0.9] * 4 + [0.1] * 4), torch.tensor([1.0, 1, 1, 0, 0, 0, 0, 1]))
        >>> round(fit_temperature(counts), 3)  # ln 9 / ln 3
        2.0
    """
    positives, negatives = _counts(curves)
    if not positives.sum() or not negatives.sum():
        raise ValueError("a temperature can only be fitted to pixels of both foreground and background")
    found = minimize_scalar(
        lambda log: _loss(positives, negatives, math.exp(log)),
        bounds=(math.log(_SMALLEST), math.log(_LARGEST)),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return math.exp(float(found.x))


def apply_temperature(probability: Tensor, temperature: float) -> Tensor:
    """Probabilities whose logits are divided by a temperature; logits themselves need only be divided by it.

    Args:
        probability: any shape, values in [0, 1], of classes judged by themselves.
        temperature: above 0; above 1 makes less sure.

    Returns:
        Same shape and dtype; 0, 1/2 and 1 stay.

    Raises:
        ValueError: if the temperature is not above 0.

    Example:
        >>> apply_temperature(torch.tensor([0.9, 0.5, 0.0]), 2.0)
        tensor([0.7500, 0.5000, 0.0000])
    """
    if not temperature > 0:
        raise ValueError(f"a temperature must be above 0, not {temperature}")
    return torch.sigmoid(torch.logit(probability.double()) / temperature).to(probability.dtype)


def negative_log_likelihood(curves: ThresholdCurve | Sequence[ThresholdCurve], temperature: float = 1.0) -> float:
    """Mean negative log-likelihood of a pixel, in nats; NaN without pixels.

    Example:
        >>> counts = ThresholdCurve()
        >>> counts.add(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]))
        >>> round(negative_log_likelihood(counts), 4)
        0.6931
    """
    positives, negatives = _counts(curves)
    total = float(positives.sum() + negatives.sum())
    return _loss(positives, negatives, temperature) if total else float("nan")


def _diagram(parts: NDArray[np.float64], squares: float) -> ReliabilityDiagram:
    """Of pixels, claims and truths of each bin, shape (3, bins), and the sum of squared errors."""
    counts, claimed, true = parts
    confidence, accuracy = (
        np.divide(part, counts, out=np.full(len(counts), np.nan), where=counts > 0) for part in (claimed, true)
    )
    total = counts.sum()
    return ReliabilityDiagram(
        counts.astype(np.int64), confidence, accuracy, float(squares / total) if total else float("nan")
    )


def _counts(curves: ThresholdCurve | Sequence[ThresholdCurve]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    several = [curves] if isinstance(curves, ThresholdCurve) else list(curves)
    if not several:
        raise ValueError("no counts were given")
    positives, negatives = (
        np.sum([getattr(one, name) for one in several], axis=0) for name in ("positives", "negatives")
    )
    return positives, negatives


def _loss(positives: NDArray[np.int64], negatives: NDArray[np.int64], temperature: float) -> float:
    logits = logit((np.arange(len(positives)) + 0.5) / len(positives)) / temperature
    losses = positives * np.logaddexp(0, -logits) + negatives * np.logaddexp(0, logits)
    return float(losses.sum() / (positives.sum() + negatives.sum()))
