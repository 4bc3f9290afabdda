"""Skeletons that have the topology of the mask: differentiable by deleting simple points, exact by scikit-image."""

import numpy as np
import torch
import torch.nn.functional as F
from skimage.morphology import skeletonize
from torch import Tensor

_AROUND = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))  # anticlockwise from the right
_CLOSEST = 1e-6  # of a probability to 0 and 1 where its log-odds are taken


def topology_skeleton(image: Tensor, iterations: int = 10, noise: float = 0.33) -> Tensor:
    """Skeleton of a sampled mask with its components and holes (Menten et al., ICCV 2023).

    A mask is drawn first: logistic noise is added to the log-odds, and a pixel is foreground where the sum is
    positive. Thinning then deletes simple points, whose deletion changes neither the 8-connected foreground nor the
    4-connected background, except for line ends, which are noted at the start of each iteration. An iteration goes
    through four fields of every second row and column; no two pixels of a field touch, so all its simple points can
    go at once. Unlike :func:`soft_skeleton` the result is of 0 and 1, does not fall apart, and keeps wide structures.
    Volumes are thinned by scikit-image instead (26-connected foreground), on the CPU, until nothing is left to delete.

    The gradient is that of the sigmoid of the noisy log-odds for all pixels but the deleted ones, which have none
    (straight through). The authors' code has the same, halved at each tie of its minima. Fields are told apart
    by row and column, so the skeleton of a mirrored image may differ by a pixel from the mirrored skeleton.

    Args:
        image: probabilities, shape (B, C, H, W) or (B, C, D, H, W), float32 or float64.
        iterations: at most so many; each takes about one pixel off every side.
        noise: scale of the logistic noise, from torch's generator; 0 takes the mask at 0.5 and hands gradients on as
            they are.

    Returns:
        0 and 1, of the shape and dtype of ``image``.

    Raises:
        ValueError: if ``iterations`` is less than 1, ``noise`` negative, or ``image`` has not four or five dimensions.

    Example:
        >>> bar = torch.zeros(1, 1, 9, 15)
        >>> bar[..., 2:7, 2:13] = 0.9
        >>> topology_skeleton(bar, noise=0)[0, 0].sum(dim=0).long().tolist()
        [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0]
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    if noise < 0:
        raise ValueError(f"noise must not be negative, got {noise}")
    if image.ndim not in (4, 5):
        raise ValueError(f"image must have shape (B, C, H, W) or (B, C, D, H, W), got {tuple(image.shape)}")
    sample = _sample(image, noise)
    mask = sample.detach() > 0.5
    kept = _thinned(mask, iterations) if image.ndim == 4 else exact_skeleton(mask)
    return sample.masked_fill(mask & ~kept, 0.0)


def exact_skeleton(mask: Tensor) -> Tensor:
    """Topological skeleton of each channel: Zhang-Suen thinning of images, Lee's of volumes.

    Args:
        mask: shape (B, K, H, W) or (B, K, D, H, W), foreground above 0.5.

    Returns:
        0 and 1, of the shape, dtype and device of ``mask``; without a gradient. Mirrored masks may have skeletons
        that differ by a pixel from the mirrored ones.

    Example:
        >>> bar = torch.zeros(1, 1, 7, 9)
        >>> bar[..., 2:5, 1:8] = 1
        >>> skeleton = exact_skeleton(bar)
        >>> bool(5 <= skeleton.sum() <= 7), bool((skeleton <= bar).all())
        (True, True)
    """
    found = mask.detach().cpu().numpy() > 0.5
    channels = found.reshape(-1, *found.shape[2:])
    thinned = np.stack([skeletonize(channel) > 0 if channel.any() else channel for channel in channels])
    return torch.from_numpy(thinned).view(mask.shape).to(mask)


def _sample(image: Tensor, noise: float) -> Tensor:
    """Draw 0 or 1 for each pixel, with the gradient of what was rounded."""
    relaxed = image
    if noise:
        drawn = torch.rand_like(image).logit(eps=_CLOSEST)
        relaxed = torch.sigmoid(image.logit(eps=_CLOSEST) + noise * drawn)
    return (relaxed > 0.5).to(image) + (relaxed - relaxed.detach())


def _thinned(mask: Tensor, iterations: int) -> Tensor:
    """Mask of shape (B, C, H, W) after at most so many iterations; bool."""
    grid = F.pad(mask, (1, 1, 1, 1))
    height, width = mask.shape[2:]
    for _ in range(iterations):
        before = grid.clone()
        line_end = _is_line_end(grid)
        for top in range(min(2, height)):
            for left in range(min(2, width)):
                rows, columns = slice(1 + top, 1 + height, 2), slice(1 + left, 1 + width, 2)
                around = [
                    grid[..., 1 + top + down : 1 + height + down : 2, 1 + left + right : 1 + width + right : 2]
                    for down, right in _AROUND
                ]
                grid[..., rows, columns] &= line_end[..., top::2, left::2] | ~_is_simple(around)
        if torch.equal(grid, before):
            break
    return grid[..., 1:-1, 1:-1]


def _is_line_end(grid: Tensor) -> Tensor:
    """Whether at most one of the eight neighbours is foreground; without the rim of ``grid``."""
    height, width = grid.shape[-2] - 2, grid.shape[-1] - 2
    count = torch.zeros((*grid.shape[:-2], height, width), dtype=torch.uint8, device=grid.device)
    for down, right in _AROUND:
        count += grid[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]
    return count <= 1


def _is_simple(around: list[Tensor]) -> Tensor:
    """Whether Yokoi's connectivity number is 1, from the eight neighbours in their order."""
    number = torch.zeros(around[0].shape, dtype=torch.uint8, device=around[0].device)
    for side in (0, 2, 4, 6):
        number += ~around[side] & (around[side + 1] | around[(side + 2) % 8])
    return number == 1
