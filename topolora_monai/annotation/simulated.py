"""An annotator that knows the truth: clicks at the centre of the largest error, traces the longest missed line."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from skimage.graph import MCP_Geometric
from skimage.morphology import skeletonize

from topolora_monai.annotation.prompts import Click, Point, Prompts

_EIGHT = np.ones((3, 3), bool)

Answer = Callable[[Prompts, "NDArray[np.bool_] | None"], "NDArray[np.bool_]"]
"""From prompts and the previous mask to a mask, all of shape (H, W)."""


class SimulatedAnnotation(NamedTuple):
    """Dice after 0, 1, 2, ... clicks of a simulated annotator, 1 from where nothing was wrong, and the clicks."""

    dice: tuple[float, ...]
    clicks: tuple[Click, ...]


def next_click(prediction: ArrayLike, truth: ArrayLike, valid: ArrayLike | None = None) -> Click | None:
    """Where an annotator would click next: at the deepest pixel of the largest error, nearest to its centre.

    Errors are connected by edge or corner, of missed and of spurious pixels together, so that the click is positive
    where its pixel was missed.

    All masks are of shape (H, W); errors outside of the valid pixels do not count.

    Returns:
        The click; None if nothing is wrong.

    Example:
        >>> truth = np.zeros((7, 9), bool)
        >>> truth[2:5, 2:7] = True
        >>> next_click(np.zeros((7, 9)), truth)
        Click(x=4.0, y=3.0, positive=True)
    """
    true = np.asarray(truth, bool)
    wrong = np.asarray(prediction, bool) != true
    wrong &= np.ones_like(wrong) if valid is None else np.asarray(valid, bool)
    parts, number = ndimage.label(wrong, _EIGHT)
    if not number:
        return None
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest = int(sizes.argmax())
    box = ndimage.find_objects(parts)[largest - 1]
    part = np.pad(parts[box] == largest, 1)
    depth = ndimage.distance_transform_edt(part)
    deepest = np.argwhere(depth == depth.max())
    centre = np.argwhere(part).mean(axis=0)
    row, column = deepest[((deepest - centre) ** 2).sum(axis=1).argmin()] + [side.start - 1 for side in box]
    return Click(float(column), float(row), bool(true[row, column]))


def next_wire(prediction: ArrayLike, truth: ArrayLike, valid: ArrayLike | None = None) -> tuple[Point, Point] | None:
    """The two ends (x, y) of the longest way along the largest missed stretch of the true centreline.

    Masks are as of :func:`next_click`; None if nothing of it is missed.

    Example:
        >>> truth = np.zeros((7, 30), bool)
        >>> truth[2:5, 2:28] = True
        >>> prediction = truth.copy()
        >>> prediction[:, 10:20] = False
        >>> next_wire(prediction, truth)
        ((10.0, 3.0), (19.0, 3.0))
    """
    true = np.asarray(truth, bool)
    missed = skeletonize(true) & ~np.asarray(prediction, bool)
    missed &= np.ones_like(missed) if valid is None else np.asarray(valid, bool)
    parts, number = ndimage.label(missed, _EIGHT)
    if not number:
        return None
    part = parts == np.bincount(parts[missed]).argmax()

    def farthest(start: NDArray[np.intp]) -> NDArray[np.intp]:
        costs, _ = MCP_Geometric(np.where(part, 1.0, -1.0)).find_costs([start])
        return np.array(np.unravel_index(np.where(part, costs, -1).argmax(), part.shape))

    last = farthest(np.argwhere(part)[0])
    (x0, y0), (x1, y1) = sorted((float(column), float(row)) for row, column in (last, farthest(last)))
    return (x0, y0), (x1, y1)


def annotate(
    answer: Answer, truth: ArrayLike, clicks: int, valid: ArrayLike | None = None, label: int = 1
) -> SimulatedAnnotation:
    """Correct an image click by click; returns the course of Dice, and what was clicked.

    Args:
        answer: gives the mask to prompts and the previous mask, which is None at first.
        truth: binary mask of shape (H, W).
        clicks: how many to make at most.
        valid: same shape; nothing else is scored.
        label: of the class, for the prompts.
    """
    true = np.asarray(truth, bool)
    inside = np.ones_like(true) if valid is None else np.asarray(valid, bool)
    mask = np.asarray(answer(Prompts(label=label), None), bool)
    scores, made = [_dice(mask, true, inside)], list[Click]()
    for _ in range(clicks):
        click = next_click(mask, true, inside)
        if click is not None:
            made.append(click)
            mask = np.asarray(answer(Prompts(tuple(made), label=label), mask), bool)
        scores.append(_dice(mask, true, inside))
    return SimulatedAnnotation(tuple(scores), tuple(made))


def mean_course(courses: Sequence[SimulatedAnnotation], counts: Sequence[int]) -> dict[int, float]:
    """Mean Dice of several images after so many clicks.

    Example:
        >>> one = SimulatedAnnotation((0.5, 0.7), ())
        >>> mean_course([one, one], [0, 1])
        {0: 0.5, 1: 0.7}
    """
    return {count: float(np.mean([course.dice[count] for course in courses])) for count in counts}


def _dice(mask: NDArray[np.bool_], truth: NDArray[np.bool_], valid: NDArray[np.bool_]) -> float:
    total = int((mask & valid).sum() + (truth & valid).sum())
    return 2 * int((mask & truth & valid).sum()) / total if total else 1.0
