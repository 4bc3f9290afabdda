"""Pictures of a segmentation: what was seen, what is true, what was answered, and where they differ."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["comparison_figure"]

_COLOURS = {
    "true positive": (235, 235, 235),
    "false positive": (230, 97, 0),
    "false negative": (55, 140, 255),
    "true negative": (18, 18, 18),
    "not scored": (70, 70, 70),
}
_MARGIN, _LINE = 10, 26


def comparison_figure(
    image: NDArray[np.float32],
    truth: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    fov: NDArray[np.bool_],
    caption: str,
) -> Image.Image:
    """Four panels side by side: input, truth, prediction, and errors in colours safe for colour blindness.

    Args:
        image: shape (C, H, W) with C 1 or 3, values in [0, 1].
        truth: shape (H, W).
        prediction: shape (H, W).
        fov: shape (H, W); pixels outside are not scored.
        caption: a line above the panels.

    Returns:
        An RGB picture.

    Example:
        >>> square = np.ones((40, 40), bool)
        >>> comparison_figure(np.zeros((3, 40, 40), np.float32), square, square, square, "one").mode
        'RGB'
    """
    height, width = truth.shape
    seen = np.repeat(image, 3, axis=0) if image.shape[0] == 1 else image[:3]
    panels = {
        "input": (seen.transpose(1, 2, 0).clip(0, 1) * 255).astype(np.uint8),
        "truth": _as_grey(truth),
        "prediction": _as_grey(prediction & fov),
        "errors": _errors(truth, prediction, fov),
    }
    top = _MARGIN + 2 * _LINE
    canvas = Image.new("RGB", (_MARGIN + 4 * (width + _MARGIN), top + height + _MARGIN + _LINE), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=17)
    draw.text((_MARGIN, _MARGIN), caption, fill="black", font=font)
    for index, (title, panel) in enumerate(panels.items()):
        left = _MARGIN + index * (width + _MARGIN)
        draw.text((left, _MARGIN + _LINE - 2), title, fill="black", font=font)
        canvas.paste(Image.fromarray(panel), (left, top))
    _legend(draw, font, (_MARGIN, top + height + _MARGIN - 2))
    return canvas


def _as_grey(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)


def _errors(truth: NDArray[np.bool_], prediction: NDArray[np.bool_], fov: NDArray[np.bool_]) -> NDArray[np.uint8]:
    panel = np.empty((*truth.shape, 3), np.uint8)
    panel[truth & prediction] = _COLOURS["true positive"]
    panel[~truth & prediction] = _COLOURS["false positive"]
    panel[truth & ~prediction] = _COLOURS["false negative"]
    panel[~truth & ~prediction] = _COLOURS["true negative"]
    panel[~fov] = _COLOURS["not scored"]
    return panel


def _legend(draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, at: tuple[int, int]) -> None:
    left, top = at
    for name, colour in _COLOURS.items():
        draw.rectangle((left, top + 4, left + 13, top + 17), fill=colour, outline="black")
        draw.text((left + 20, top), name, fill="black", font=font)
        left += 36 + int(draw.textlength(name, font=font))
