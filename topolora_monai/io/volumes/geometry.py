"""Shape, spacing and place of a volume, from its header."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topolora_monai.errors import ConfigError
from topolora_monai.io.volumes.itk_formats import itk_header
from topolora_monai.io.volumes.kinds import VolumeKind, volume_kind
from topolora_monai.io.volumes.nifti import nifti_header
from topolora_monai.io.volumes.shared import Header, decoding, volume_state
from topolora_monai.io.volumes.tiff import tiff_header

__all__ = ["default_axis", "slice_count", "volume_affine", "volume_shape"]

_COARSER = 1.001
"""Ratio above which two spacings differ by more than the rounding of headers."""


def volume_shape(path: str | Path) -> tuple[int, int, int]:
    """(slices, rows, columns) of a volume, from its header.

    Raises:
        ConfigError, DataError: as :func:`~topolora_monai.io.read_volume`, but for damage behind the header.
    """
    return _header(Path(path)).shape


def volume_affine(path: str | Path) -> NDArray[np.float64] | None:
    """From (slice, row, column, 1) to mm to the right, the front and the top; None if the file does not say.

    Raises:
        ConfigError, DataError: as :func:`volume_shape`.
    """
    return _header(Path(path)).affine


def slice_count(path: str | Path, axis: int) -> int:
    """Number of slices along an axis, from the header.

    Args:
        path: a volume.
        axis: 0, 1 or 2.

    Raises:
        ConfigError, DataError: as :func:`volume_shape`, or for another axis.
    """
    shape = volume_shape(path)
    if axis not in (0, 1, 2):
        raise ConfigError(
            "volumes have no such axis", expected="0 (across slices), 1 (across rows) or 2 (across columns)", found=axis
        )
    return shape[axis]


def default_axis(path: str | Path) -> int:
    """The axis with the coarsest spacing, across which a scanner's slices are thick; 0 where none stands out.

    An axis of length one is taken before any other: the volume is then a single picture.

    Raises:
        ConfigError, DataError: as :func:`volume_shape`.
    """
    shape, spacing, _ = _header(Path(path))
    if 1 in shape:
        return shape.index(1)
    coarsest = int(np.argmax(spacing))
    return coarsest if spacing[coarsest] > spacing[0] * _COARSER else 0


def _header(path: Path) -> Header:
    kind = volume_kind(path)
    return _header_in_state(path.absolute(), kind, volume_state(path))


@functools.lru_cache(maxsize=256)
def _header_in_state(path: Path, kind: VolumeKind, state: object) -> Header:
    with decoding(path):
        return {"nifti": nifti_header, "itk": itk_header, "tiff": tiff_header}[kind](path)
