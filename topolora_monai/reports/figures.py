"""Pictures of a segmentation: what was seen, what is true, what was answered, and where they differ."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from topolora_monai.reports.colours import ERROR_COLOURS

_CLASS_COLOURS = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167)),
)
_MARGIN, _LINE = 10, 26


def comparison_figure(
    image: NDArray[np.float32],
    truth: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    fov: NDArray[np.bool_],
    caption: str,
    classes: Sequence[str] = ("foreground",),
) -> Image.Image:
    """Four panels side by side: input, truth, prediction, and errors in colours safe for colour blindness.

    Args:
        image: shape (C, H, W) with C 1 or 3, values in [0, 1].
        truth: shape (H, W), or (K, H, W) of K classes.
        prediction: same shape.
        fov: shape (H, W); pixels outside are not scored.
        caption: a line above the panels.
        classes: names of the K classes; several have a colour each, and the panel of errors shows a true positive
            where all classes are right, and a false positive where a class is taken for another.

    Returns:
        An RGB picture.

    Example:
        >>> square = np.ones((40, 40), bool)
        >>> comparison_figure(np.zeros((3, 40, 40), np.float32), square, square, square, "one").mode
        'RGB'
    """
    true, answered = (masks if masks.ndim == 3 else masks[None] for masks in (truth, prediction))
    height, width = fov.shape
    seen = np.repeat(image, 3, axis=0) if image.shape[0] == 1 else image[:3]
    panels = {
        "input": (seen.transpose(1, 2, 0).clip(0, 1) * 255).astype(np.uint8),
        "truth": _coloured(true),
        "prediction": _coloured(answered & fov),
        "errors": _errors(true, answered, fov),
    }
    top = _MARGIN + 2 * _LINE
    legends = [ERROR_COLOURS]
    if len(classes) > 1:
        legends.append(dict(zip(classes, class_colours(len(classes)), strict=True)))
    size = (_MARGIN + 4 * (width + _MARGIN), top + height + _MARGIN + _LINE * len(legends))
    canvas = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=17)
    draw.text((_MARGIN, _MARGIN), caption, fill="black", font=font)
    for index, (title, panel) in enumerate(panels.items()):
        left = _MARGIN + index * (width + _MARGIN)
        draw.text((left, _MARGIN + _LINE - 2), title, fill="black", font=font)
        canvas.paste(Image.fromarray(panel), (left, top))
    for line, colours in enumerate(legends):
        left, below = _MARGIN, top + height + _MARGIN - 2 + line * _LINE
        for name, colour in colours.items():
            draw.rectangle((left, below + 4, left + 13, below + 17), fill=colour, outline="black")
            draw.text((left + 20, below), name, fill="black", font=font)
            left += 36 + int(draw.textlength(name, font=font))
    return canvas


def class_colours(count: int) -> list[tuple[int, int, int]]:
    """Colours of so many classes: white for one, else of Okabe and Ito's palette for colour blindness, in turn.

    Example:
        >>> class_colours(2)
        [(230, 159, 0), (86, 180, 233)]
    """
    return [(255, 255, 255)] if count == 1 else list(itertools.islice(itertools.cycle(_CLASS_COLOURS), count))


def _coloured(masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Masks (K, H, W) as a picture; of classes that overlap, the last is on top."""
    panel = np.zeros((*masks.shape[1:], 3), np.uint8)
    for mask, colour in zip(masks, class_colours(len(masks)), strict=True):
        panel[mask] = colour
    return panel


def _errors(truth: NDArray[np.bool_], prediction: NDArray[np.bool_], fov: NDArray[np.bool_]) -> NDArray[np.uint8]:
    panel = np.empty((*fov.shape, 3), np.uint8)
    panel[truth.any(axis=0)] = ERROR_COLOURS["true positive"]
    panel[~truth.any(axis=0)] = ERROR_COLOURS["true negative"]
    panel[(truth & ~prediction).any(axis=0)] = ERROR_COLOURS["false negative"]
    panel[(~truth & prediction).any(axis=0)] = ERROR_COLOURS["false positive"]
    panel[~fov] = ERROR_COLOURS["not scored"]
    return panel
