"""DICOM, NRRD and MetaImage, by ITK."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data.image_reader import ITKReader
from numpy.typing import NDArray

from topolora_monai.errors import DataError
from topolora_monai.io.volumes.dicom import has_dicom_magic, series_files
from topolora_monai.io.volumes.shared import Header, not_grey, require_itk, three_axes

__all__ = ["itk_header", "itk_values", "nifti_like_itk"]

_COLOUR_HINT = "save each frame that you want segmented to a PNG or TIFF of its own, or take one photograph a file"
_UNEVEN = 0.1
"""Largest deviation of a DICOM slice from even spacing, as a fraction of it; positions are rounded in files."""
_KEYS_OF_PLACE = ("NRRD_space", "0020|0032")
"""Entries that ITK makes of NRRD's ``space`` and DICOM's position."""
_WORDS_OF_PLACE = (b"Offset", b"Position", b"Origin", b"TransformMatrix", b"Rotation", b"Orientation")
_LONGEST_HEADER = 2**16
"""Bytes of a MetaImage's header that are looked at."""


def itk_header(path: Path) -> Header:
    """Shape, voxel size and place of a file or of a DICOM series."""
    image = _open(path)
    column, row, between, *_ = (*(float(size) for size in image.GetSpacing()), 1.0)
    return Header(
        three_axes(path, tuple(image.GetLargestPossibleRegion().GetSize())), (between, row, column), _place(path, image)
    )


def itk_values(path: Path) -> NDArray[Any]:
    """Rescaled values, the slowest axis first, with as many axes as are stored.

    Raises:
        DataError: if the slices of a DICOM series are not evenly spaced.
    """
    # As float, since ITK would otherwise round a series to the type of its first file.
    reader = ITKReader(reverse_indexing=True, pixel_type=require_itk(path).F)
    image = reader.read(str(path))
    deviation = dict(image).get("ITK_non_uniform_sampling_deviation", 0.0)
    spacing = float(image.GetSpacing()[2]) if deviation else 1.0
    if deviation > _UNEVEN * spacing:
        raise DataError(
            "DICOM slices are not evenly spaced",
            path=path,
            expected=f"one every {spacing:.4g} mm",
            found=f"one that is {deviation:.4g} mm off",
            hint="copy the slices that are missing, and keep one time point in a folder",
        )
    values: NDArray[Any] = reader.get_data(image)[0]
    return values


def nifti_like_itk(array: NDArray[Any], like: Path) -> Any:
    """A NIfTI image of the values of an array, (slices, rows, columns), that lies where ITK's image does."""
    source = _open(like)
    axes, affine = min(source.GetImageDimension(), 3), _affine(like, source)
    image: Any = nib.Nifti1Image(array.T[..., 0] if axes == 2 else array.T, affine)
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    return image


def _place(path: Path, image: Any) -> NDArray[np.float64] | None:
    """From (slice, row, column, 1); None where ITK found nothing in the file and made it up."""
    affine = _affine(path, image)
    made_up = np.diag([-1.0, -1.0, 1.0, 1.0]) * [*nib.affines.voxel_sizes(affine), 1.0]
    said = any(image.GetMetaDataDictionary().HasKey(key) for key in _KEYS_OF_PLACE)
    if not said and path.suffix.lower() == ".mha":
        with path.open("rb") as file:
            header = file.read(_LONGEST_HEADER).partition(b"ElementDataFile")[0]
        said = any(word in header for word in _WORDS_OF_PLACE)
    return affine[:, [2, 1, 0, 3]] if said or not np.array_equal(affine, made_up) else None


def _affine(path: Path, image: Any) -> NDArray[np.float64]:
    """NIfTI's, from (column, row, slice, 1).

    ITK's coordinates point to the left and the back, NIfTI's to the right and the front.
    """
    axes = min(image.GetImageDimension(), 3)
    direction = require_itk(path).array_from_matrix(image.GetDirection())
    affine = np.eye(4)
    affine[:axes, :axes] = (direction * np.asarray(image.GetSpacing()))[:axes, :axes]
    affine[:axes, 3] = np.asarray(image.GetOrigin())[:axes]
    affine[:2] *= -1
    return affine


def _open(path: Path) -> Any:
    """ITK image with a geometry and without voxels."""
    itk = require_itk(path)
    files = series_files(path) if path.is_dir() else [str(path)]
    image_type = itk.Image[itk.F, _axes_of_image(path, files)]
    if len(files) == 1:
        reader = itk.ImageFileReader[image_type].New(FileName=files[0])
    else:
        reader = itk.ImageSeriesReader[image_type].New(FileNames=files)
    reader.UpdateOutputInformation()
    return reader.GetOutput()


def _axes_of_image(path: Path, files: list[str]) -> int:
    """Number of axes of the first file, whose header is checked."""
    itk = require_itk(path)
    first = itk.ImageIOFactory.CreateImageIO(files[0], itk.CommonEnums.IOFileMode_ReadMode)
    if first is None:
        raise DataError(
            "not a volume of a format that ITK knows",
            path=path,
            hint="copy it again, put its suffix in lower case, or convert it to NIfTI",
        )
    first.SetFileName(files[0])
    first.ReadImageInformation()
    if first.GetNumberOfComponents() != 1:
        raise not_grey(
            path,
            f"{first.GetNumberOfComponents()} values per voxel",
            _COLOUR_HINT if has_dicom_magic(Path(files[0])) else None,
        )
    size = tuple(first.GetDimensions(axis) for axis in range(first.GetNumberOfDimensions()))
    three_axes(path, (*size, len(files)) if size[-1] != 1 and len(files) > 1 else size)
    return len(size)
