"""How far annotators agree on an image, and the mask that their masks together make likely."""

from collections.abc import Sequence

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from topolora_monai.errors import DataError
from topolora_monai.metrics import OverlapScores, cldice


def agreement(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> dict[str, float]:
    """Dice, clDice and Cohen's kappa of the foregrounds of two masks (H, W) of class numbers.

    Returns:
        ``dice``, ``cldice`` and ``kappa``; NaN where a score is not defined, as of two empty masks.

    Raises:
        DataError: if the masks differ in size.

    Example:
        >>> bar = np.zeros((9, 9), np.uint8)
        >>> bar[4, 1:8] = 1
        >>> agreement(bar, bar), agreement(bar, 1 - bar)["dice"]
        ({'dice': 1.0, 'cldice': 1.0, 'kappa': 1.0}, 0.0)
    """
    if one.shape != other.shape:
        raise DataError("masks differ in size", expected=one.shape, found=other.shape)
    first, second = one > 0, other > 0
    both, only_first, only_second = (int(part.sum()) for part in (first & second, first & ~second, ~first & second))
    observed = 1 - (only_first + only_second) / first.size
    shares = first.mean(), second.mean()
    expected = float(shares[0] * shares[1] + (1 - shares[0]) * (1 - shares[1]))
    return {
        "dice": OverlapScores.of_counts(both, only_first, only_second).dice,
        "cldice": cldice(first, second),
        "kappa": (observed - expected) / (1 - expected) if expected < 1 else float("nan"),
    }


def consensus(masks: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The mask (H, W) that masks of several annotators make likely, by STAPLE (Warfield et al., IEEE TMI 2004).

    STAPLE weighs annotators by how well each agrees with all. Of several classes each is estimated against the rest;
    a pixel gets the most probable class of those at 0.5 or more.

    Raises:
        DataError: for fewer than two masks, or masks of different sizes.

    Example:
        >>> bars = np.zeros((3, 9, 9), np.uint8)
        >>> bars[:2, 4, 1:8] = bars[2, 2, 1:8] = 2
        >>> np.argwhere(consensus(bars))[:, 0].tolist(), int(consensus(bars).max())
        ([4, 4, 4, 4, 4, 4, 4], 2)
    """
    if len(masks) < 2 or len({mask.shape for mask in masks}) > 1:
        raise DataError(
            "a consensus needs masks of one size", expected="two or more", found=[mask.shape for mask in masks]
        )
    best, chosen = np.full(masks[0].shape, 0.5), np.zeros(masks[0].shape, np.uint8)
    for number in np.setdiff1d(np.stack(masks), [0]):
        planes = [mask == number for mask in masks]
        images = [SimpleITK.GetImageFromArray(plane.astype(np.uint8)) for plane in planes]
        probability = SimpleITK.GetArrayFromImage(SimpleITK.STAPLE(images, 1.0))
        chosen = np.where((probability >= best) & np.any(planes, axis=0), number, chosen)
        best = np.maximum(best, probability)
    return chosen.astype(np.uint8)
