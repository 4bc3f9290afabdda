"""Results in the geometry of their source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topolora_monai.errors import OutputError
from topolora_monai.io.atomic import atomic_write
from topolora_monai.io.volumes.geometry import volume_shape
from topolora_monai.io.volumes.itk_formats import nifti_like_itk
from topolora_monai.io.volumes.kinds import VolumeKind, volume_kind
from topolora_monai.io.volumes.nifti import nifti_like, write_nifti
from topolora_monai.io.volumes.tiff import write_tiff

__all__ = ["volume_output_name", "write_volume"]


def write_volume(array: NDArray[np.uint8] | NDArray[np.uint16], like: str | Path, path: str | Path) -> None:
    """Write a result in the geometry of its source, whole or not at all.

    A NIfTI source gives its header, with affine, codes and units, to a NIfTI file of the same axes; DICOM, NRRD and
    MetaImage become NIfTI of equal spacing, origin and direction; TIFF pages become TIFF pages.

    Args:
        array: a mask or probabilities, of the shape of ``read_volume(like).values``.
        like: the source, which is read again for its header.
        path: where to, of the ending that :func:`volume_output_name` gives.

    Raises:
        ConfigError, DataError: if the source cannot be read, as :func:`~topolora_monai.io.volume_shape`.
        OutputError: for another shape or ending, or if the file cannot be written.
    """
    like, path = Path(like), Path(path)
    kind, shape = volume_kind(like), volume_shape(like)
    if array.shape != shape:
        raise OutputError("result has another shape than its source", path=path, expected=shape, found=array.shape)
    if not path.name.endswith(_output_suffix(kind)):
        raise OutputError("file name has another ending than its format", path=path, expected=_output_suffix(kind))
    with atomic_write(path, "a volume") as beside:
        if kind == "tiff":
            write_tiff(array, beside)
        else:
            write_nifti((nifti_like if kind == "nifti" else nifti_like_itk)(array, like), beside)


def volume_output_name(like: str | Path, stem: str) -> str:
    """File name for a result: ``stem.nii.gz``, or ``stem.tif`` if the source is TIFF pages.

    Raises:
        DataError: if the source is missing or no volume.
    """
    return stem + _output_suffix(volume_kind(Path(like)))


def _output_suffix(kind: VolumeKind) -> str:
    return ".tif" if kind == "tiff" else ".nii.gz"
