"""Pictures of samples, to look at before anything is trained on them."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage.segmentation import find_boundaries

_CLASS_COLOURS = np.array([[0, 0, 0], [255, 176, 0], [100, 143, 255], [220, 38, 127], [120, 220, 120]], np.uint8)
"""Of classes 1, 2, ...; told apart by the colour-blind, too."""
_NOT_SCORED = 0.35
_MARGIN, _LINE = 8, 18


def overlay(image: NDArray[np.float32], classes: NDArray[np.floating], valid: NDArray[np.bool_]) -> Image.Image:
    """Draw the outlines of a mask on its image; what is not scored is darkened.

    Args:
        image: shape (C, H, W), values in [0, 1]; the first channel, or the first three.
        classes: class numbers, shape (H, W).
        valid: shape (H, W).

    Returns:
        An RGB picture of the image's size.

    Example:
        >>> square = np.zeros((9, 9), np.float32)
        >>> square[3:6, 3:6] = 1
        >>> overlay(np.zeros((1, 9, 9), np.float32), square, np.ones((9, 9), bool)).getpixel((3, 3))
        (255, 176, 0)
    """
    seen = image[:3] if image.shape[0] >= len("RGB") else np.repeat(image[:1], 3, axis=0)
    picture = (seen.transpose(1, 2, 0).clip(0, 1) * np.where(valid, 255, 255 * _NOT_SCORED)[..., None]).astype(np.uint8)
    numbers = classes.astype(int)
    outline = find_boundaries(numbers, mode="inner") & (numbers > 0)
    colours = _CLASS_COLOURS[1 + (numbers - 1) % (len(_CLASS_COLOURS) - 1)]
    picture[outline] = colours[outline]
    return Image.fromarray(picture)


def contact_sheet(pictures: Sequence[tuple[str, Image.Image]], columns: int = 5, side: int = 320) -> Image.Image:
    """Lay pictures out in rows of ``columns``, each under its title and reduced to ``side`` pixels at most."""
    columns = min(columns, len(pictures))
    side = min(side, max(max(picture.size) for _, picture in pictures))
    rows = math.ceil(len(pictures) / columns)
    cell = side + _LINE + _MARGIN
    sheet = Image.new("RGB", (columns * (side + _MARGIN) + _MARGIN, rows * cell + _MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for number, (title, picture) in enumerate(pictures):
        left = _MARGIN + number % columns * (side + _MARGIN)
        top = _MARGIN + number // columns * cell
        shown = (title, *(f"{title[:end]}..." for end in range(len(title) - 1, 0, -1)))
        fitting = next((text for text in shown if draw.textlength(text, font=font) <= side), "...")
        draw.text((left, top), fitting, fill="black", font=font)
        small = picture.copy()
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        sheet.paste(small, (left, top + _LINE))
    return sheet
