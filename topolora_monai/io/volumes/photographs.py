"""Colour photographs in DICOM, which are pictures and no volumes."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topolora_monai.errors import ConfigError
from topolora_monai.io.volumes.dicom import has_dicom_magic
from topolora_monai.io.volumes.shared import require_itk, volume_state

__all__ = ["is_photograph", "photograph"]


def is_photograph(path: Path) -> bool:
    """Whether a file is a DICOM image of one frame in colour of 8 bits; False without ITK, whose reader says so."""
    return has_dicom_magic(path) and _is_photograph(path.absolute(), volume_state(path))


def photograph(path: Path) -> NDArray[np.uint8]:
    """Red, green and blue of a photograph, shape (H, W, 3), whether the file stores RGB or YBR.

    Raises:
        ConfigError: if ITK is not installed.
        RuntimeError: if it is damaged.
    """
    itk = require_itk(path)
    reader = itk.ImageFileReader[itk.Image[itk.RGBPixel[itk.UC], 2]].New(FileName=str(path))
    reader.Update()
    return np.array(itk.array_from_image(reader.GetOutput()))


@functools.lru_cache(maxsize=4096)
def _is_photograph(path: Path, state: object) -> bool:
    try:
        itk = require_itk(path)
    except ConfigError:
        return False
    header = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if header is None:
        return False
    header.SetFileName(str(path))
    try:
        header.ReadImageInformation()
    except RuntimeError:
        return False
    frames = [header.GetDimensions(axis) for axis in range(2, header.GetNumberOfDimensions())]
    return bool(header.GetNumberOfComponents() == 3 and header.GetComponentSize() == 1 and set(frames) <= {1})
