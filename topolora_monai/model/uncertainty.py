"""How unsure a network is of each pixel: dropout in its adapters, mirrored images, and what to expect of either."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.inferers import Inferer
from numpy.typing import NDArray
from peft.tuners.tuners_utils import BaseTunerLayer
from scipy.special import digamma
from torch import Tensor, nn

from topolora_monai.errors import ConfigError
from topolora_monai.metrics import ThresholdCurve
from topolora_monai.model.inferers import views
from topolora_monai.networks.activation import Activation, check_activation, probabilities

__all__ = ["RiskCoverage", "Uncertainty", "UncertaintyInferer"]


class Uncertainty(NamedTuple):
    """What several answers to an image say together.

    Attributes:
        probability: mean over the answers, shape (B, K, H, W).
        entropy: of the mean probability, all that is not sure; in [0, 1]. Shape of ``probability``, or (B, 1, H, W)
            where classes exclude one another.
        mutual_information: the part of it that comes from answers which contradict one another (Gal et al.,
            ICML 2017); same shape, in [0, 1].
    """

    probability: Tensor
    entropy: Tensor
    mutual_information: Tensor


class UncertaintyInferer(Inferer):
    """Average the answers to an image with dropout in the adapters and to its mirror images.

    Only dropout inside adapters is switched on (Gal and Ghahramani, ICML 2016); normalisation and the frozen
    network stay as they are for inference, and afterwards all is as before. The same image always gives the same
    answer. Put it outside of other inferers: it has to see the network itself.

    Args:
        inferer: what runs the network once.
        passes: answers with dropout for each copy of the image; 0 leaves dropout off and one answer each.
        axes: number of spatial axes to mirror: 0 leaves the image alone, 2 makes four copies.
        quarter_turns: also turn each copy by a quarter.
        activation: ``"sigmoid"``, or ``"softmax"`` where classes exclude one another.
        seed: of the dropout.

    Raises:
        ConfigError: for an impossible setting, or one that leaves a single answer; from the call, if there are passes
            and the network has no adapter with dropout above 0.

    Example:
        >>> from monai.inferers import SimpleInferer
        >>> inferer = UncertaintyInferer(SimpleInferer(), passes=0)
        >>> inferer.estimate(torch.rand(1, 1, 4, 4), nn.Identity()).mutual_information.max() < 1e-6
        tensor(True)
    """

    def __init__(
        self,
        inferer: Inferer,
        passes: int = 8,
        axes: int = 2,
        activation: Activation = "sigmoid",
        seed: int = 0,
        quarter_turns: bool = False,
    ) -> None:
        super().__init__()
        self.views = views(axes, quarter_turns)
        if passes < 0 or (passes < 2 and len(self.views) == 1):
            raise ConfigError(
                "one answer does not say how unsure it is",
                expected="at least 2 passes, or an axis to mirror",
                found=f"{passes} passes, {axes} axes",
            )
        check_activation(activation)
        self.inferer = inferer
        self.passes = passes
        self.activation = activation
        self.seed = seed
        self.latest: Uncertainty | None = None

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Logits of the mean probability, whose activation gives it back; :attr:`latest` holds the maps."""
        self.latest = self.estimate(inputs, network, *args, **kwargs)
        p = self.latest.probability
        smallest = torch.finfo(p.dtype).eps
        if self.activation == "sigmoid":
            return torch.logit(p, smallest)
        rest = (1 - p.sum(dim=1, keepdim=True)).clamp(min=smallest)
        return p.clamp(min=smallest).log() - rest.log()

    def estimate(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Uncertainty:
        """Mean probability and both maps of a batch (B, C, H, W); only sums of the answers are held.

        The network gives logits (B, K, H, W); further arguments are the inferer's.
        """
        mean = entropies = torch.zeros(())
        count = len(self.views) * max(self.passes, 1)
        devices = [inputs.device] if inputs.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), _dropout(network, active=self.passes > 0):
            torch.manual_seed(self.seed)
            for view in self.views:
                for _ in range(max(self.passes, 1)):
                    logits = view.back(self.inferer(view.of(inputs), network, *args, **kwargs).float())
                    logits = torch.where(logits.isfinite(), logits, math.nan)  # or a mean would hide what is infinite
                    p = probabilities(logits, self.activation)
                    mean = mean.to(p) + p / count
                    entropies = entropies.to(p) + _entropy(p, self.activation) / count
        total = _entropy(mean, self.activation)
        return Uncertainty(mean, total, (total - entropies).clamp(min=0))


class RiskCoverage(ThresholdCurve):
    """Error among the pixels one is surest of, for every share of them; streaming, by 65,536 levels of uncertainty.

    Uncertainties in [0, 1] are added in place of probabilities, and errors in place of targets. Of pixels of one level
    in random order this is the expectation.

    Example:
        >>> curve = RiskCoverage()
        >>> curve.add(torch.tensor([0.1, 0.2, 0.8, 0.9]), torch.tensor([0, 0, 0, 1]))
        >>> curve.area(), curve.at(0.75), curve.at(1.0)
        (0.0625, 0.0, 0.25)
    """

    def points(self, count: int = 101) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Coverages from 0 to 1, evenly, without 0 itself, and the risk at each; shape (count - 1,)."""
        coverages = np.linspace(0, 1, count)[1:]
        return coverages, np.array([self.at(coverage) for coverage in coverages])

    def at(self, coverage: float) -> float:
        """Share of errors among that share of pixels, the surest first; NaN without pixels.

        Raises:
            ValueError: if the coverage is not in (0, 1].
        """
        if not 0 < coverage <= 1:
            raise ValueError(f"coverage must be in (0, 1], not {coverage}")
        pixels, errors = (np.concatenate([[0], counts.cumsum()]) for counts in self._levels())
        covered = coverage * pixels[-1]
        return float(np.interp(covered, pixels, errors) / covered) if covered else math.nan

    def area(self) -> float:
        """Area under the curve, AURC (Geifman et al., ICLR 2019): mean risk over all numbers of pixels covered."""
        pixels, errors = self._levels()
        if not pixels.size:
            return math.nan
        before, wrong = pixels.cumsum() - pixels, errors.cumsum() - errors
        rate = errors / pixels
        # The j-th pixel of a level makes the risk (wrong + rate j) / (before + j); its sum over j is harmonic.
        harmonic = digamma(before + pixels + 1) - digamma(before + 1)
        return float((rate * pixels + (wrong - rate * before) * harmonic).sum() / pixels.sum())

    def _levels(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pixels and errors at each level that occurs, surest first."""
        pixels = self.positives + self.negatives
        seen = pixels > 0
        return pixels[seen].astype(float), self.positives[seen].astype(float)


@contextlib.contextmanager
def _dropout(network: Any, active: bool) -> Iterator[None]:
    """Switch on the dropout of adapters, and nothing else, for a while."""
    modules = _adapter_dropouts(network) if active else []
    before = [module.training for module in modules]
    try:
        for module in modules:
            module.training = True
        yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.training = training


def _adapter_dropouts(network: Any) -> list[nn.Module]:
    """Adapter layers with dropout above 0, and their dropout; the layer's own flag matters to DoRA's forward."""
    layers = [m for m in network.modules() if isinstance(m, BaseTunerLayer)] if isinstance(network, nn.Module) else []
    found: list[nn.Module] = []
    for layer in layers:
        dropouts = [m for m in getattr(layer, "lora_dropout", {}).values() if isinstance(m, nn.Dropout) and m.p > 0]
        found += [layer, *dropouts] if dropouts else []
    if not found:
        raise ConfigError(
            "Monte Carlo dropout needs an adapter with dropout",
            expected="LoRA or decoder LoRA trained with dropout above 0, not merged",
            found="a network without",
            hint="train with lora_dropout above 0, or set passes to 0 and use mirrored images",
        )
    return found


def _entropy(p: Tensor, activation: Activation) -> Tensor:
    """Entropy as a share of the largest possible, in [0, 1]."""
    if activation == "sigmoid":
        entropy: Tensor = (torch.special.entr(p) + torch.special.entr(1 - p)) / math.log(2)
    else:
        rest = (1 - p.sum(dim=1, keepdim=True)).clamp(min=0)
        every = torch.cat([rest, p], dim=1)
        entropy = torch.special.entr(every).sum(dim=1, keepdim=True) / math.log(every.shape[1])
    return entropy.clamp(0, 1)
