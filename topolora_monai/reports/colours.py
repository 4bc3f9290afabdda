"""Colours that people with any colour vision can tell apart (Okabe and Ito; viridis)."""

import numpy as np
from numpy.typing import NDArray

ERROR_COLOURS = {
    "true negative": (18, 18, 18),
    "true positive": (225, 225, 225),
    "false positive": (213, 94, 0),
    "false negative": (86, 180, 233),
    "not scored": (70, 70, 70),
}
"""In the order of the values of an error map."""

MARK_COLOURS = {
    "broken link": (240, 228, 66),
    "false link": (0, 190, 140),
    "false part": (230, 140, 190),
}
"""Of circles, diamonds and outlines; all lighter than the map below them."""

_VIRIDIS = (
    *((68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141)),
    *((39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37)),
)


def viridis() -> NDArray[np.uint8]:
    """Its 256 colours, shape (256, 3), from dark violet to yellow; even in lightness.

    Example:
        >>> viridis()[[0, 255]].tolist()
        [[68, 1, 84], [253, 231, 37]]
    """
    at = np.linspace(0, 255, len(_VIRIDIS))
    columns = [np.interp(np.arange(256), at, channel) for channel in zip(*_VIRIDIS, strict=True)]
    return np.asarray(np.rint(np.stack(columns, axis=1)), np.uint8)


def as_hex(colour: tuple[int, int, int]) -> str:
    """As CSS writes it.

    Example:
        >>> as_hex((213, 94, 0))
        '#d55e00'
    """
    return f"#{bytes(colour).hex()}"
