"""Volumes, read and written slice by slice, with results in the geometry of their source.

Whatever the format, the axes of an array are (slice, row, column): the order in which a file stores its voxels,
and in which DICOM images and TIFF pages are pictures. It is the order of ITK's arrays, and the reverse of
nibabel's, so a NIfTI label fits a DICOM image it was drawn on.
"""

from topolora_monai.io.volumes.geometry import default_axis, slice_count, volume_affine, volume_shape
from topolora_monai.io.volumes.kinds import VOLUME_SUFFIXES, VolumeKind, is_volume
from topolora_monai.io.volumes.shared import volume_state
from topolora_monai.io.volumes.slices import read_slice
from topolora_monai.io.volumes.tiff import page_palette
from topolora_monai.io.volumes.volume import Volume, read_volume
from topolora_monai.io.volumes.writing import volume_output_name, write_volume

__all__ = [
    "VOLUME_SUFFIXES",
    "Volume",
    "VolumeKind",
    "default_axis",
    "is_volume",
    "page_palette",
    "read_slice",
    "read_volume",
    "slice_count",
    "volume_affine",
    "volume_output_name",
    "volume_shape",
    "volume_state",
    "write_volume",
]
