"""Cross entropies: plain, balanced between the kinds of pixels, and over classes that exclude each other."""

from typing import Any

import torch
import torch.nn.functional as F

from topolora_monai.errors import ConfigError
from topolora_monai.losses.base import ClassScores, Pixels, SegmentationLoss


class BinaryCrossEntropyLoss(SegmentationLoss):
    """Cross entropy of each class against the rest, averaged over the pixels that count.

    An empty target is like any other; an image in which no pixel counts adds nothing.

    Example:
        >>> logits = torch.zeros(1, 1, 4, 4)
        >>> round(BinaryCrossEntropyLoss()(logits, torch.ones_like(logits)).item(), 4)
        0.6931
    """

    def score(self, pixels: Pixels) -> ClassScores:
        """Mean over each image's pixels; the mean over images weighs by pixels."""
        return ClassScores(pixels.total(pixels.entropy) / pixels.count.clamp(min=1.0), pixels.count)


class BalancedCrossEntropyLoss(SegmentationLoss):
    """Cross entropy in which foreground and background weigh alike, as Conv-LoRA trains on shadows.

    With a share p of the pixels that count in the foreground, foreground pixels weigh 1 - p and the others p:
    the mean of w BCE, the reference's ``p * BCEWithLogits(pos_weight=(1 - p) / p)``. The reference takes p over
    the whole batch, here it is each image's and class's own, so that a batch is the mean of its images. Where
    all pixels are of one kind, these weights are 0 and a false positive would be free: there the plain mean
    counts.

    Example:
        >>> target = torch.zeros(1, 1, 10, 10)
        >>> target[..., 0, :] = 1  # p = 0.1
        >>> round(BalancedCrossEntropyLoss()(torch.zeros_like(target), target).item(), 4)  # 2 p (1 - p) ln 2
        0.1248
    """

    def score(self, pixels: Pixels) -> ClassScores:
        """Weighted mean over each image's pixels."""
        count = pixels.count.clamp(min=1.0)
        share = pixels.total(pixels.target) / count
        one_kind = (share == 0) | (share == 1)
        of_foreground = torch.where(one_kind, 1.0, 1 - share)
        of_background = torch.where(one_kind, 1.0, share)
        foreground = pixels.total(pixels.entropy * pixels.target)
        background = pixels.total(pixels.entropy) - foreground
        return ClassScores((of_foreground * foreground + of_background * background) / count)


class CrossEntropyLoss(SegmentationLoss):
    """Cross entropy over classes of which each pixel has one: minus the log of its softmax probability.

    Each entry (b, k) is the mean over the pixels of class k; the mean over entries weighs by pixels, which makes
    it torch's ``CrossEntropyLoss``. A pixel without a class is of the implicit background, where that is asked for, and
    else adds nothing. All channels count, whatever ``include_background``: without the background's, predicting
    foreground there would be free.

    Args:
        softmax: must be True.
        **options: see :class:`SegmentationLoss`.

    Raises:
        ConfigError: with ``softmax=False``.

    Example:
        >>> logits, classes = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
        >>> target = F.one_hot(classes, 3).movedim(-1, 1)
        >>> torch.allclose(CrossEntropyLoss()(logits, target), F.cross_entropy(logits, classes))
        True
    """

    scores_background = True

    def __init__(self, *, softmax: bool = True, **options: Any) -> None:
        if not softmax:
            raise ConfigError(
                "cross entropy over classes needs a softmax",
                hint="set softmax to true, or use the binary cross entropy, which takes each class by itself",
            )
        super().__init__(softmax=True, **options | {"include_background": True})

    def score(self, pixels: Pixels) -> ClassScores:
        """Mean over each class's pixels; the mean over images and classes weighs by pixels."""
        count = pixels.total(pixels.target)
        surprise = pixels.total(pixels.target * F.softplus(-pixels.odds))
        return ClassScores(surprise / count.clamp(min=1e-6), count)  # shares of pixels can be below 1
