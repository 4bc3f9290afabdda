"""What all losses share: probabilities, pixels that count, and the reduction to a number."""

import abc
import dataclasses
import functools
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topolora_monai.errors import ConfigError, unknown_choice

Reduction = Literal["none", "mean", "sum"]


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Prediction and target where pixels count; elsewhere all are 0, as is the gradient.

    Args:
        odds: log-odds of each class against all others, shape (B, K, ...), float32 or float64.
        target: 0 or 1, same shape and dtype.
        valid: 1 where pixels count, same shape and dtype; None if all do.
        skeleton: exact skeleton of the target, same shape and dtype; None if it was not given.
    """

    odds: Tensor
    target: Tensor
    valid: Tensor | None = None
    skeleton: Tensor | None = None

    @functools.cached_property
    def probability(self) -> Tensor:
        """Probability of each class, values in [0, 1], shape (B, K, ...)."""
        return self.inside(torch.sigmoid(self.odds))

    @functools.cached_property
    def entropy(self) -> Tensor:
        """Cross entropy of each class against the rest, 0 where pixels do not count, shape (B, K, ...)."""
        return F.binary_cross_entropy_with_logits(self.odds, self.target, weight=self.valid, reduction="none")

    @functools.cached_property
    def count(self) -> Tensor:
        """Number of pixels that count, shape (B, K)."""
        if self.valid is not None:
            return self.total(self.valid)
        return self.odds.new_full(self.odds.shape[:2], self.odds[0, 0].numel())

    def inside(self, values: Tensor) -> Tensor:
        """The values where pixels count, else 0."""
        return values if self.valid is None else values * self.valid

    @staticmethod
    def total(values: Tensor) -> Tensor:
        """Sum over all pixels, shape (B, K)."""
        return values.flatten(2).sum(dim=2)


@dataclasses.dataclass(frozen=True)
class ClassScores:
    """A term's value for each class of each image.

    Args:
        values: shape (B, K).
        weights: what each counts in the mean, shape (B, K); None counts all alike.
    """

    values: Tensor
    weights: Tensor | None = None

    def reduced(self, reduction: Reduction, shared: bool = False) -> Tensor:
        """The values themselves, their (weighted) mean or their sum; ``shared``, see :class:`SegmentationLoss`."""
        if reduction == "none":
            return self.values
        if reduction == "sum":
            return self.values.sum()
        if self.weights is None:
            return self.values.mean()
        total = self.weights.sum()
        if shared:
            torch.distributed.all_reduce(total)
            total = total / torch.distributed.get_world_size()
        return (self.values * self.weights).sum() / total.clamp(min=1.0)


class SegmentationLoss(nn.Module, abc.ABC):
    """Base of the losses: logits and target to one value for each class of each image, then a reduction.

    A subclass says in :meth:`score` how well the pixels that count are predicted.

    Args:
        include_background: of several channels, whether the first counts. Our networks give one channel for
            each foreground class, so all count by default; False is for outputs whose channel 0 is background.
        softmax: classes exclude each other: probabilities come from a softmax over all channels instead of a
            sigmoid of each.
        implicit_background: with a softmax, the channels are foreground classes, and the background is one more with
            logit 0 and all pixels that have no class, as our networks' outputs are to be read; a pixel of several
            classes counts in equal parts for each. It counts in :class:`CrossEntropyLoss` alone, whose entries
            are (B, K + 1) then.
        reduction: ``"none"`` gives shape (B, K), ``"sum"`` its sum and ``"mean"`` its mean, in which entries that
            are means over pixels weigh by their pixels.

    ``shared`` is set to true where several processes train together and average their gradients: such means are then
    over the pixels of all of them, and each has to compute the loss at the same time.

    Raises:
        ConfigError: for an unknown reduction, or an implicit background without a softmax.
    """

    scores_background: ClassVar[bool] = False  # also an implicit one

    def __init__(
        self,
        *,
        include_background: bool = True,
        softmax: bool = False,
        implicit_background: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if reduction not in get_args(Reduction):
            raise unknown_choice("reduction", reduction, get_args(Reduction))
        if implicit_background and not softmax:
            raise ConfigError("an implicit background needs a softmax", hint="set softmax to true as well")
        self.include_background = include_background
        self.softmax = softmax
        self.implicit_background = implicit_background
        self.reduction: Reduction = reduction
        self.shared = False

    @abc.abstractmethod
    def score(self, pixels: Pixels) -> ClassScores:
        """Value of the loss for each class of each image."""

    def forward(
        self, logits: Tensor, target: Tensor, *, mask: Tensor | None = None, skeleton: Tensor | None = None
    ) -> Tensor:
        """Compute the loss.

        Args:
            logits: shape (B, K, H, W) or (B, K, D, H, W), any floating dtype; float64 is computed in float64,
                all others in float32.
            target: same shape, 0 or 1, any dtype; one channel a class.
            mask: 1 where pixels count (field of view, labelled), shape (B, 1, ...). What the others hold,
                not-a-number included, changes neither the loss nor the gradient.
            skeleton: exact skeleton of the target, same shape as ``target``, for the losses that need one.

        Returns:
            A scalar, or shape (B, K) with ``reduction="none"``; float32 or float64.

        Raises:
            ValueError: if the shapes do not fit, or the target has values outside [0, 1] where pixels count. The
                values are read back for that (on a GPU this waits for it), but not inside ``torch.compile`` or while a
                CUDA graph is captured.
            ConfigError: for a softmax over a single channel.
        """
        return self.score(self._pixels(logits, target, mask, skeleton)).reduced(self.reduction, self.shared)

    def _pixels(self, logits: Tensor, target: Tensor, mask: Tensor | None, skeleton: Tensor | None) -> Pixels:
        _check_shapes(logits, target, mask, skeleton)
        dtype = logits.dtype if logits.dtype == torch.float64 else torch.float32
        outside = None if mask is None else mask <= 0.5

        def prepared(values: Tensor) -> Tensor:
            values = values.to(dtype)
            return values if outside is None else values.masked_fill(outside, 0.0)

        first = 0 if self.include_background or logits.shape[1] == 1 else 1
        odds, target = prepared(logits), prepared(target)
        _check_values(target)
        if self.implicit_background:
            odds, target = _with_background(odds, target)
            target, first = prepared(target), 0 if self.scores_background else 1
        if self.softmax:
            odds = _odds_against_others(odds)
        odds, target = odds[:, first:], target[:, first:]
        return Pixels(
            odds=odds,
            target=target,
            valid=None if outside is None else (~outside).to(dtype).expand_as(odds),
            skeleton=None if skeleton is None else prepared(skeleton[:, skeleton.shape[1] - odds.shape[1] :]),
        )


class RatioLoss(SegmentationLoss):
    """Base of those that are made of ratios.

    Args:
        smooth: added to both sides of each ratio, in pixels.
        **options: see :class:`SegmentationLoss`.

    Raises:
        ConfigError: for a ``smooth`` that is not positive.
    """

    def __init__(self, smooth: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        if not smooth > 0:
            raise ConfigError("smooth must be greater than 0", found=smooth)
        self.smooth = smooth

    def ratio(self, part: Tensor, whole: Tensor) -> Tensor:
        """Share that a part has of a whole, each summed over all pixels, shape (B, K)."""
        return (Pixels.total(part) + self.smooth) / (Pixels.total(whole) + self.smooth)


def _check_shapes(logits: Tensor, target: Tensor, mask: Tensor | None, skeleton: Tensor | None) -> None:
    if logits.ndim not in (4, 5):
        raise ValueError(f"logits must have shape (B, K, H, W) or (B, K, D, H, W), got {tuple(logits.shape)}")
    for name, other in (("target", target), ("skeleton", skeleton)):
        if other is not None and other.shape != logits.shape:
            raise ValueError(f"logits {tuple(logits.shape)} and {name} {tuple(other.shape)} differ in shape")
    if mask is not None and mask.shape != (len(logits), 1, *logits.shape[2:]):
        raise ValueError(f"mask {tuple(mask.shape)} does not fit logits {tuple(logits.shape)}")


def _check_values(target: Tensor) -> None:
    """Refuse a mask of 0 and 255 and the like, which would give a loss, and a wrong one."""
    if torch.compiler.is_compiling() or (target.is_cuda and torch.cuda.is_current_stream_capturing()):
        return
    low, high = torch.stack(target.aminmax()).tolist() if target.numel() else (0, 0)
    if not (low >= 0 and high <= 1):
        raise ValueError(f"target must be 0 or 1, got values from {low:g} to {high:g}: scale it, or compare it with 0")


def _with_background(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Put the background before K classes that exclude each other: shapes (B, K + 1, ...)."""
    shares = target / target.sum(dim=1, keepdim=True).clamp(min=1.0)
    rest = 1 - shares.sum(dim=1, keepdim=True)
    return torch.cat((torch.zeros_like(rest), logits), dim=1), torch.cat((rest, shares), dim=1)


def _odds_against_others(logits: Tensor) -> Tensor:
    """Log-odds of the softmax: ``sigmoid`` of the result is ``softmax`` of the logits, without loss of digits."""
    channels = logits.shape[1]
    if channels < 2:
        raise ConfigError("softmax needs two channels or more", found=channels, hint="use softmax=False for one class")
    others = [torch.cat((logits[:, :k], logits[:, k + 1 :]), dim=1).logsumexp(dim=1) for k in range(channels)]
    return logits - torch.stack(others, dim=1)
