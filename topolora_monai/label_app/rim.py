"""How far a place of a fundus photograph is from the rim of its lit disc."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from topolora_monai.data.fields_of_view import field_of_view
from topolora_monai.io.images import image_kind, read_image

_SIDE = 512
"""Pixels of the shorter side on which the disc is looked for."""
_NEAR = 0.02
"""Share of the shorter side that is near the rim."""


class Rim:
    """The rim of the lit disc of an image (3, H, W) in [0, 1]; an image without dark surround has none.

    Example:
        >>> image = np.zeros((3, 100, 100), np.float32)
        >>> image[:, 10:90, 10:90] = 0.6
        >>> Rim(image).is_near(11, 50), Rim(image).is_near(50, 50), Rim(np.ones_like(image)).is_near(0, 0)
        (True, False, False)
    """

    def __init__(self, image: NDArray[np.float32]) -> None:
        shorter = min(image.shape[1:])
        self._step = max(1, shorter // _SIDE)
        inside = field_of_view(image[:, :: self._step, :: self._step])
        distance = np.full(inside.shape, np.inf) if inside.all() else distance_transform_edt(inside)
        self._near = np.asarray(distance * self._step <= _NEAR * shorter)

    def is_near(self, row: float, col: float) -> bool:
        """Whether a pixel is at the rim, or beyond it."""
        return bool(self._near[int(row) // self._step, int(col) // self._step])


def rim_of(path: str | Path) -> Rim | None:
    """Of an image file; None for rasters and volumes, which are no photographs. The latest ones are kept."""
    return _rim(str(path), Path(path).stat().st_mtime_ns) if image_kind(path) == "picture" else None


@lru_cache(maxsize=64)
def _rim(path: str, changed: int) -> Rim:
    return Rim(read_image(path, 3).values)
