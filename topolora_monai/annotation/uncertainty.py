"""Which image to annotate next: how unsure a network is of each, in one number."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from topolora_monai.errors import ConfigError, unknown_choice
from topolora_monai.metrics import SkeletonBreak, betti_numbers, skeleton_breaks

if TYPE_CHECKING:  # segmenters bridge the breaks that are found here
    from topolora_monai.annotation.segmenter import AnnotationSegmenter, ImageSource

UncertaintyKind = Literal["topology", "entropy", "dropout"]
"""Kinds of :func:`uncertainty_score`."""

_FAINT = 0.5
"""Share of the threshold above which a pixel may belong to a structure after all."""


class TopologicalUncertainty(NamedTuple):
    """Uncertainty about how structures hang together.

    ``breaks`` are gaps of the mask in the centreline of what is at least half as probable as the threshold,
    ``betti_change`` the mean over pairs of answers of the difference of their numbers of components and of holes.
    """

    breaks: int
    betti_change: float

    @property
    def score(self) -> float:
        """Both together: what an annotator might have to mend."""
        return self.breaks + self.betti_change


def mean_entropy(entropy: Tensor, valid: ArrayLike | None = None) -> float:
    """Mean of an entropy map (..., H, W), in [0, 1], over the valid pixels (H, W), by default all; 0 without any.

    Example:
        >>> mean_entropy(torch.tensor([[0.0, 1.0]]), [[False, True]])
        1.0
    """
    values = entropy if valid is None else entropy[..., torch.from_numpy(np.asarray(valid, bool))]
    return float(values.mean()) if values.numel() else 0.0


def probable_breaks(mask: ArrayLike, probability: ArrayLike, threshold: float) -> list[SkeletonBreak]:
    """Places where a mask (H, W) of a threshold may break one structure: it joins if pixels of half of it count too.

    Example:
        >>> whole = np.zeros((15, 60))
        >>> whole[6:9, 5:55] = 0.9
        >>> whole[:, 28:33] *= 0.4
        >>> len(probable_breaks(whole >= 0.5, whole, 0.5))
        1
    """
    inside = np.asarray(mask, bool)
    return skeleton_breaks(inside, inside | (np.asarray(probability) >= _FAINT * threshold))


def rated_breaks(mask: ArrayLike, probability: ArrayLike, threshold: float) -> list[tuple[SkeletonBreak, float]]:
    """:func:`probable_breaks`, each with the mean probability of what would fill it, the most probable one first.

    Example:
        >>> whole = np.zeros((30, 60))
        >>> whole[[5, 6, 7, 19, 20, 21], 5:55] = 0.9
        >>> whole[:15, 28:33] *= 0.3
        >>> whole[15:, 28:33] *= 0.5
        >>> [(gap.row, round(rate, 2)) for gap, rate in rated_breaks(whole >= 0.5, whole, 0.5)]
        [(20.0, 0.45), (6.0, 0.27)]
    """
    inside, maps = np.asarray(mask, bool), np.asarray(probability)
    rated = []
    for gap in probable_breaks(inside, maps, threshold):
        reach = int(np.ceil(gap.radius))
        top, left = max(0, int(gap.row) - reach), max(0, int(gap.col) - reach)
        window = np.s_[top : int(gap.row) + reach + 1, left : int(gap.col) + reach + 1]
        filling = ~inside[window] & (maps[window] >= _FAINT * threshold)
        rated.append((gap, float(maps[window][filling].mean()) if filling.any() else 0.0))
    return sorted(rated, key=lambda entry: -entry[1])


def topological_uncertainty(answers: Sequence[ArrayLike], threshold: float = 0.5) -> TopologicalUncertainty:
    """Predicted breaks, and how topology changes between answers to the same image.

    Answers are probabilities of one class (H, W), put back in the image's orientation, first that to the image itself.

    Raises:
        ConfigError: without an answer.

    Example:
        >>> whole = np.zeros((15, 60))
        >>> whole[6:9, 5:55] = 0.9
        >>> broken = whole.copy()
        >>> broken[:, 28:33] *= 0.4
        >>> topological_uncertainty([whole, whole]), topological_uncertainty([broken, whole])
        (TopologicalUncertainty(breaks=0, betti_change=0.0), TopologicalUncertainty(breaks=1, betti_change=1.0))
    """
    if not answers:
        raise ConfigError("topological uncertainty needs an answer", expected="at least one", found="none")
    maps = [np.asarray(answer) for answer in answers]
    masks = [answer >= threshold for answer in maps]
    breaks = len(probable_breaks(masks[0], maps[0], threshold))
    numbers = [betti_numbers(mask) for mask in masks]
    changes = [sum(abs(x - y) for x, y in zip(a, b, strict=True)) for a, b in itertools.combinations(numbers, 2)]
    return TopologicalUncertainty(breaks, float(np.mean(changes)) if changes else 0.0)


def random_score(name: str, seed: int = 0) -> float:
    """A number in [0, 1) for a name, the same in every process.

    Example:
        >>> random_score("a") == random_score("a"), random_score("a") == random_score("a", seed=1)
        (True, False)
    """
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def uncertainty_score(
    segmenter: AnnotationSegmenter,
    image: ImageSource,
    kind: UncertaintyKind = "topology",
    adapter: str | None = None,
    passes: int = 4,
    seed: int = 0,
) -> float:
    """How much an image promises to teach, higher for more; the same for the same image and seed.

    Args:
        segmenter: with the adapter.
        image: what to judge.
        kind: ``"entropy"`` of the mean answer to the image and its mirror images; ``"dropout"``, the same with
            dropout in the adapter; ``"topology"``, :func:`topological_uncertainty` of the image and its mirror images,
            summed over classes.
        adapter: name; by default the first.
        passes: with dropout.
        seed: of dropout.

    Raises:
        ConfigError: for an unknown kind, or ``"dropout"`` of an adapter without dropout.
    """
    if kind not in get_args(UncertaintyKind):
        raise unknown_choice("kind of uncertainty", kind, get_args(UncertaintyKind))
    if kind == "topology":
        threshold = segmenter.spec(adapter).threshold
        per_class = zip(*segmenter.mirrored(image, adapter), strict=True)
        return float(sum(topological_uncertainty(answers, threshold).score for answers in per_class))
    passes, axes = (passes, 0) if kind == "dropout" else (0, 2)
    maps = segmenter.uncertainty(image, adapter, passes, axes, seed)
    return mean_entropy(maps.entropy, segmenter.valid(image, adapter))
