"""Telling volumes from other files, and their formats apart."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from topolora_monai.errors import DataError
from topolora_monai.io.regular import FOLDER, path_kind, require_file
from topolora_monai.io.volumes.dicom import has_dicom_magic, looks_like_dicom
from topolora_monai.io.volumes.nifti import NIFTI_SUFFIXES
from topolora_monai.io.volumes.photographs import is_photograph
from topolora_monai.io.volumes.tiff import TIFF_SUFFIXES, has_several_pages

__all__ = ["VOLUME_SUFFIXES", "VolumeKind", "is_volume", "volume_kind"]

VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, ".nrrd", ".mha", ".dcm")
"""File name endings, in lower case, of files that are volumes by name alone."""

VolumeKind = Literal["nifti", "itk", "tiff"]
"""What reads a volume: nibabel, ITK (DICOM, NRRD, MetaImage) or Pillow (TIFF pages)."""


def is_volume(path: str | Path) -> bool:
    """Whether a path is a volume: a NIfTI, NRRD, MetaImage or DICOM file, a DICOM folder, or a TIFF of several pages.

    Only names and headers are looked at. A TIFF's overviews and transparency masks are no pages. Animated GIFs
    are no volumes, nor are DICOM photographs: one frame in colour.

    Args:
        path: a file or folder, which need not be readable.

    Example:
        >>> is_volume("scan.nii.gz"), is_volume("photograph.png")
        (True, False)
    """
    path = Path(path)
    if path_kind(path) == FOLDER:
        return any(looks_like_dicom(file) and not is_photograph(file) for file in path.iterdir())
    name = path.name.lower()
    if name.endswith(TIFF_SUFFIXES):
        return has_several_pages(path)
    return (name.endswith(VOLUME_SUFFIXES) or has_dicom_magic(path)) and not is_photograph(path)


def volume_kind(path: Path) -> VolumeKind:
    """What reads a volume; any folder is taken for a DICOM series, and a TIFF of one page for a volume.

    Raises:
        DataError: if it is missing, empty or of another format.
    """
    require_file(path, folders=True)
    name = path.name.lower()
    if path.is_file() and path.stat().st_size == 0:
        raise DataError("file is empty", path=path, found="0 bytes", hint="copy or download it again")
    if path.is_dir():
        return "itk"
    if name.endswith(NIFTI_SUFFIXES):
        return "nifti"
    if name.endswith(TIFF_SUFFIXES):
        return "tiff"
    if name.endswith(VOLUME_SUFFIXES) or has_dicom_magic(path):
        return "itk"
    raise DataError(
        "not a volume",
        path=path,
        expected=f"{', '.join((*VOLUME_SUFFIXES, *TIFF_SUFFIXES))}, a DICOM file or the folder of a DICOM series",
    )
