"""A volume in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topolora_monai.io.memory import require_memory
from topolora_monai.io.volumes.checksums import check_stream
from topolora_monai.io.volumes.geometry import volume_shape
from topolora_monai.io.volumes.itk_formats import itk_values
from topolora_monai.io.volumes.kinds import VolumeKind, volume_kind
from topolora_monai.io.volumes.nifti import nifti_values
from topolora_monai.io.volumes.shared import decoding
from topolora_monai.io.volumes.tiff import tiff_values

__all__ = ["Volume", "read_volume"]

_PEAK_BYTES = 20
"""Memory for a voxel while a volume is read: as stored and rescaled, eight bytes each, and as float32."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A decoded volume and where it came from.

    Args:
        values: shape (slices, rows, columns), float32, in the units of the file: rescale slope and intercept
            are applied. NaN is kept.
        path: the file, or the folder of a DICOM series.
        kind: what read it.
    """

    values: NDArray[np.float32]
    path: Path
    kind: VolumeKind


def read_volume(path: str | Path) -> Volume:
    """Read a whole volume.

    A 2-D file is a volume of one slice. The slices of a DICOM series are in order of position.

    Args:
        path: a NIfTI, NRRD, MetaImage, DICOM or TIFF file, or the folder of one DICOM series.

    Raises:
        ConfigError: if ITK is needed and not installed.
        DataError: if it is missing, empty, damaged or too large, is no volume, is in colour, has more than three
            axes, or is a folder of several DICOM series or of one that has gaps.

    Example:
        >>> import tempfile
        >>> import nibabel as nib
        >>> from topolora_monai.io import default_axis, slice_count
        >>> file = Path(tempfile.mkdtemp()) / "scan.nii.gz"
        >>> nib.save(nib.Nifti1Image(np.zeros((4, 3, 2), np.int16), np.diag([0.5, 0.5, 3.0, 1.0])), file)
        >>> read_volume(file).values.shape, default_axis(file), slice_count(file, axis=0)
        ((2, 3, 4), 0, 2)
    """
    path = Path(path)
    kind = volume_kind(path)
    shape = volume_shape(path)
    require_memory(path, shape, _PEAK_BYTES, "cut it into several, or reduce it")
    with decoding(path):
        check_stream(path)
        values = {"nifti": nifti_values, "itk": itk_values, "tiff": tiff_values}[kind](path)
        return Volume(np.array(values.reshape(shape), dtype=np.float32, order="C"), path, kind)
