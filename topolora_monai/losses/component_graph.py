"""Penalty on the regions whose error joins, breaks, adds or removes components and holes."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import generate_binary_structure, label

from topolora_monai.losses.base import ClassScores, Pixels, SegmentationLoss

Mask = NDArray[np.bool_]


class ComponentGraphLoss(SegmentationLoss):
    """Mean error probability inside the topologically critical regions (after Topograph, Lux et al., ICLR 2025).

    The prediction is taken at 0.5; :func:`critical_regions` finds, from the components of prediction and target and
    how they touch, the regions of error that change connectivity. Each counts alike: the loss is the mean over
    regions of their mean error probability, at least 0.5 where there is one and else 0. Its gradient is confined to
    those regions, so it wants Dice or cross entropy beside it, and predictions that are no longer noise.

    What is guaranteed: in images the loss is 0 if and only if every component (8-connected) of the prediction and of
    the target holds exactly one component of their intersection, and every component of the intersection's background
    (4-connected) exactly one of the prediction's background and one of the target's. Then components and holes of
    prediction and target correspond one to one. Equal Betti numbers are not enough: a line that is found beside
    the target is both missed and spurious. What connects nothing is free: moved edges, shortened ends, spurs. In
    volumes (26 and 6) the same holds of components and cavities; tunnels are not seen.

    Differences from Topograph: regions are told apart in the connectivity of what they may join, and errors
    of prediction and target are looked at one after the other instead of in one graph. Beyond the border of the image,
    and where pixels do not count, there is background. Labels are found on the CPU, in time linear in the pixels,
    for each class of each image.

    Example:
        >>> target = torch.zeros(1, 1, 9, 12)
        >>> target[..., 3:6, 1:11] = 1
        >>> shifted, broken = target.roll(1, dims=2), target.clone()
        >>> broken[..., 5:7] = 0
        >>> logits = torch.logit(torch.tensor(0.9)) * (2 * torch.cat([shifted, broken]) - 1)
        >>> values = ComponentGraphLoss(reduction="none")(logits, target.repeat(2, 1, 1, 1))
        >>> [round(value, 4) for value in values.flatten().tolist()]
        [0.0, 0.9]
    """

    def score(self, pixels: Pixels) -> ClassScores:
        """Mean over each image's critical regions; 0 without one."""
        found, true = (
            (values.detach() > at).cpu().numpy() for values, at in ((pixels.odds, 0.0), (pixels.target, 0.5))
        )
        masks = zip(found.reshape(-1, *found.shape[2:]), true.reshape(-1, *true.shape[2:]), strict=True)
        weights = torch.from_numpy(np.stack([_weights(one, other) for one, other in masks]))
        error = (pixels.probability - pixels.target).abs()
        return ClassScores(pixels.total(error * weights.view(error.shape).to(error)))


def critical_regions(prediction: Mask, target: Mask) -> tuple[NDArray[np.int32], int]:
    """Regions of error whose correction changes how components or holes of prediction and target correspond.

    False positives join the intersection of both to the prediction, false negatives to the target. A region, connected
    by corners too, is critical if it touches none or several components of the intersection: it is a component
    of its own, or joins some. A region connected by sides is critical if it touches by sides none or several
    components of the background that is left: it fills a hole, or closes one.

    Args:
        prediction: bool, shape (H, W) or (D, H, W).
        target: bool, same shape.

    Returns:
        The number of each pixel's region, 0 for the others, and how many there are.

    Example:
        >>> target = np.array([[1, 1, 1, 1, 1]], dtype=bool)
        >>> critical_regions(np.array([[1, 1, 0, 1, 0]], dtype=bool), target)[0].tolist()
        [[0, 0, 1, 0, 0]]
    """
    prediction, target = np.pad(prediction, 1), np.pad(target, 1)
    common = prediction & target
    regions, count = np.zeros(common.shape, dtype=np.int32), 0
    for mask in (prediction, target):
        critical = _critical(mask & ~common, common, ~mask)
        more, added = label(critical, generate_binary_structure(mask.ndim, mask.ndim))
        regions[critical] = more[critical] + count
        count += added
    return regions[(slice(1, -1),) * regions.ndim], count


def _critical(error: Mask, common: Mask, background: Mask) -> Mask:
    """Pixels of the critical regions of one kind of error."""
    critical = np.zeros_like(error)
    for others, connectivity in ((common, error.ndim), (background, 1)):
        neighbours = generate_binary_structure(error.ndim, connectivity)
        regions, count = label(error, neighbours)
        wrong = _touched(regions, count, label(others, neighbours)[0], neighbours) != 1
        critical |= wrong[regions] & error
    return critical


def _touched(regions: NDArray[np.int32], count: int, others: NDArray[np.int32], neighbours: Mask) -> NDArray[np.int64]:
    """How many of the others each region touches; the first entry is of no region."""
    inside = np.nonzero(regions)
    own = regions[inside].astype(np.int64)
    base = int(others.max()) + 1
    pairs = []
    for step in np.argwhere(neighbours) - 1:
        other = others[tuple(axis + shift for axis, shift in zip(inside, step, strict=True))]
        pairs.append((own * base + other)[other > 0])
    return np.bincount(np.unique(np.concatenate(pairs)) // base, minlength=count + 1)


def _weights(prediction: Mask, target: Mask) -> NDArray[np.float64]:
    """What each pixel counts: every critical region the same, in all 1."""
    regions, count = critical_regions(prediction, target)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    share = np.zeros(count + 1)
    share[1:] = 1 / (sizes[1:] * max(count, 1))
    return share[regions]
