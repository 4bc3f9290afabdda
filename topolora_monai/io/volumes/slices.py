"""Single slices of a volume, which is kept while they are read."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topolora_monai.errors import DataError
from topolora_monai.io.volumes.geometry import slice_count
from topolora_monai.io.volumes.shared import volume_state
from topolora_monai.io.volumes.volume import read_volume

__all__ = ["read_slice"]


def read_slice(
    path: str | Path,
    axis: int,
    index: int,
    turn: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
) -> NDArray[np.float32]:
    """Read one slice.

    The two volumes read last are kept in memory for as long as their files do not change, so that an image and its
    labels are decoded once when their slices are read in order.

    Args:
        path: a volume.
        axis: 0, 1 or 2, the axis the slice lies across.
        index: from 0.
        turn: makes a view of all values with other axes, which the slice is taken from.

    Returns:
        ``turn(read_volume(path).values).take(index, axis)``, shape (H, W).

    Raises:
        ConfigError: for another axis, or if ITK is needed and not installed.
        DataError: as :func:`~topolora_monai.io.read_volume`, or if there is no such slice.
    """
    path = Path(path)
    slices = slice_count(path, axis)  # of no axis but 0, 1 and 2
    values = _values_in_state(path.absolute(), volume_state(path))
    if turn is not None:
        values = turn(values)
        slices = values.shape[axis]
    if not 0 <= index < slices:
        raise DataError(
            "volume has no such slice", path=path, expected=f"0 to {slices - 1} along axis {axis}", found=index
        )
    plane: NDArray[np.float32] = np.moveaxis(values, axis, 0)[index].copy()
    return plane


@functools.lru_cache(maxsize=2)
def _values_in_state(path: Path, state: object) -> NDArray[np.float32]:
    return read_volume(path).values
