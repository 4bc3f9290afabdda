"""Differentiable skeleton by morphological thinning, lean in time and memory."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_FIRST_SPATIAL_AXIS = 2


def soft_skeleton(image: Tensor, iterations: int = 10) -> Tensor:
    """Soft skeleton of a probability map (Shit et al., CVPR 2021, arXiv 2003.07311).

    Level t + 1 is level t eroded by a cross; what a level has above the opening of itself by a cross and a
    square is its ridge; the skeleton is the union of all ridges, s + r - s r. The erosion inside an opening is
    the next level, so each is computed once. The gradient is worked out from the levels instead of kept
    pool by pool; it equals that of the definition by max pooling, ties included.

    Args:
        image: shape (B, C, H, W) or (B, C, D, H, W), values in [0, 1]; floating, or uint8 for a mask of 0 and 1.
        iterations: number of scales; structures wider than ``2 * iterations`` pixels keep no skeleton.
            Equals ``iter_ = iterations - 1`` of MONAI's ``soft_skel``.

    Returns:
        Tensor of the shape and dtype of ``image``, values in [0, 1]. Differentiable once.

    Raises:
        ValueError: if ``iterations`` is less than 1 or ``image`` has not four or five dimensions.

    Example:
        >>> line = torch.zeros(1, 1, 5, 5)
        >>> line[..., 2, 1:4] = 1.0
        >>> torch.equal(soft_skeleton(line, 1), line)
        True
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    if image.ndim not in (4, 5):
        raise ValueError(f"image must have shape (B, C, H, W) or (B, C, D, H, W), got {tuple(image.shape)}")
    skeleton: Tensor = _SoftSkeleton.apply(image, iterations)
    return skeleton


class _SoftSkeleton(torch.autograd.Function):
    """Keeps one level and one partial skeleton an iteration for the way back."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, iterations: int) -> Tensor:
        level, skeleton = image, torch.zeros_like(image)
        levels, skeletons = [level], [skeleton]
        for _ in range(iterations):
            eroded = _erode(level)
            ridge = level - torch.minimum(level, _dilate(eroded))  # bytes cannot go below 0
            skeleton = (ridge - skeleton * ridge).relu_() + skeleton
            level = eroded
            if ctx.needs_input_grad[0]:
                levels.append(level)
                skeletons.append(skeleton)
        ctx.save_for_backward(*levels, *skeletons[:-1])
        return skeleton

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_skeleton: Tensor) -> tuple[Tensor, None]:
        saved = ctx.saved_tensors
        iterations = len(saved) // 2
        levels, skeletons = saved[: iterations + 1], saved[iterations + 1 :]
        grad_eroded = torch.zeros_like(grad_skeleton)
        for step in reversed(range(iterations)):
            level, eroded, skeleton = levels[step], levels[step + 1], skeletons[step]
            ridge = (level - _dilate(eroded)).relu_()
            grad_new = (ridge - skeleton * ridge).relu_().sign_().mul_(grad_skeleton)
            grad_ridge = (grad_new - grad_new * skeleton).mul_(ridge.sign())
            grad_skeleton = grad_skeleton - grad_new * ridge
            grad_eroded = grad_eroded - _dilate_backward(grad_ridge, eroded)
            grad_eroded = _erode_backward(grad_eroded, level) + grad_ridge
        return grad_eroded, None


def _spatial_axes(image: Tensor) -> range:
    return range(_FIRST_SPATIAL_AXIS, image.ndim)


def _extreme_of_three(image: Tensor, axis: int, smallest: bool = False) -> Tensor:
    """Largest or smallest of each pixel and its two neighbours along an axis, fewer at the border."""
    choose = torch.minimum if smallest else torch.maximum
    result, length = image.clone(), image.shape[axis] - 1
    for start, other in ((1, 0), (0, 1)):
        inner = result.narrow(axis, start, length)
        choose(inner, image.narrow(axis, other, length), out=inner)
    return result


def _extreme_of_three_backward(grad: Tensor, image: Tensor, result: Tensor, axis: int) -> Tensor:
    """Hand each result's gradient to the first of the three that has its value, as max pooling does."""
    left, grad_image = grad.clone(), torch.zeros_like(grad)
    length = image.shape[axis] - 1
    for start, other, count in ((1, 0, length), (0, 0, length + 1), (0, 1, length)):
        left_there = left.narrow(axis, start, count)
        same = torch.empty_like(left_there)  # not bool, which multiplies ten times slower
        torch.eq(result.narrow(axis, start, count), image.narrow(axis, other, count), out=same)
        grad_image.narrow(axis, other, count).addcmul_(left_there, same)
        left_there.addcmul_(left_there, same, value=-1)
    return grad_image


def _erode(image: Tensor) -> Tensor:
    """Minimum over the cross-shaped neighbourhood."""
    first, *others = _spatial_axes(image)
    result = _extreme_of_three(image, first, smallest=True)
    for axis in others:
        torch.minimum(result, _extreme_of_three(image, axis, smallest=True), out=result)
    return result


def _erode_backward(grad: Tensor, image: Tensor) -> Tensor:
    """Gradient of :func:`_erode`; axes whose minima tie share it in halves, as ``torch.minimum`` does."""
    minima = [_extreme_of_three(image, axis, smallest=True) for axis in _spatial_axes(image)]
    smallest = [minima[0]]  # of the axes up to each
    for minimum in minima[1:]:
        smallest.append(torch.minimum(smallest[-1], minimum))
    grad_image = torch.zeros_like(grad)
    for index in reversed(range(len(minima))):
        before, minimum = smallest[max(index - 1, 0)], minima[index]
        share = grad if index == 0 else (before - minimum).sign_().add_(1).mul_(0.5).mul_(grad)
        grad = grad - share
        grad_image += _extreme_of_three_backward(share, image, minimum, index + _FIRST_SPATIAL_AXIS)
    return grad_image


def _dilate(image: Tensor) -> Tensor:
    """Maximum over the square or cubic neighbourhood."""
    for axis in _spatial_axes(image):
        image = _extreme_of_three(image, axis)
    return image


def _dilate_backward(grad: Tensor, image: Tensor) -> Tensor:
    """Gradient of :func:`_dilate`."""
    axes = list(reversed(_spatial_axes(image)))  # so that ties fall as in max pooling over the whole window
    stages = [image]
    for axis in axes:
        stages.append(_extreme_of_three(stages[-1], axis))
    for index in reversed(range(len(axes))):
        grad = _extreme_of_three_backward(grad, stages[index], stages[index + 1], axes[index])
    return grad
