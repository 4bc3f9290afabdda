"""Whether probabilities mean what they say, and one number that mends them."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logit
from torch import Tensor

from topolora_monai.metrics.overlap import LEVELS, ThresholdCurve


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
            return math.nan
        gaps = np.nan_to_num(np.abs(self.confidence - self.accuracy))
        return float((self.counts * gaps).sum() / self.counts.sum())


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
    at = (LEVELS * bins).astype(int)
    counts, claimed, true = (
        np.bincount(at, part, bins) for part in (positives + negatives, LEVELS * (positives + negatives), positives)
    )
    confidence, accuracy = (
        np.divide(part, counts, out=np.full(bins, np.nan), where=counts > 0) for part in (claimed, true)
    )
    squares, total = float((positives * (1 - LEVELS) ** 2 + negatives * LEVELS**2).sum()), float(counts.sum())
    return ReliabilityDiagram(counts.astype(np.int64), confidence, accuracy, squares / total if total else math.nan)


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
    several = [curves] if isinstance(curves, ThresholdCurve) else list(curves)
    if not several:
        raise ValueError("no counts were given")
    positives, negatives = (sum(getattr(one, name) for one in several) for name in ("positives", "negatives"))
    if not positives.any() or not negatives.any():
        raise ValueError("a temperature can only be fitted to pixels of both foreground and background")

    def loss(log: float) -> float:
        logits = logit(LEVELS) / math.exp(log)
        losses = positives * np.logaddexp(0, -logits) + negatives * np.logaddexp(0, logits)
        return float(losses.sum() / (positives.sum() + negatives.sum()))

    bounds = math.log(0.01), math.log(100)
    return math.exp(float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7}).x))


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
