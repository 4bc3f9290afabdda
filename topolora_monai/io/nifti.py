"""NIfTI, by nibabel."""

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from topolora_monai.errors import DataError
from topolora_monai.io.volume_header import Header, not_grey, three_axes

NIFTI_SUFFIXES = (".nii", ".nii.gz")
"""File name endings, in lower case."""


def nifti_header(path: Path) -> Header:
    """Shape, voxel size and, where a code says that one is meant, place."""
    image = _open(path)
    if not np.isfinite(image.affine).all():
        raise DataError(
            "volume has a size or a place that is no number",
            path=path,
            expected="finite numbers in pixdim, sform and qform",
            found=f"affine {np.asarray(image.affine).round(3).tolist()}",
            hint="the header is damaged: export it again, or copy the header of the image it belongs to",
        )
    column, row, between = (float(size) for size in nib.affines.voxel_sizes(image.affine))
    placed = image.header["qform_code"] or image.header["sform_code"]
    affine = np.asarray(image.affine, np.float64)[:, [2, 1, 0, 3]] if placed else None
    return Header(three_axes(path, image.shape), (between, row, column), affine)


def nifti_values(path: Path) -> NDArray[Any]:
    """Rescaled values, the slowest axis first, with as many axes as are stored."""
    values: NDArray[Any] = np.asanyarray(_open(path).dataobj).T
    return values


def nifti_like(array: NDArray[Any], like: Path) -> Any:
    """An image of the values of an array, (slices, rows, columns), and the header and axes of a file."""
    source = _open(like)
    header = source.header.copy()
    header.set_data_dtype(array.dtype)
    header["cal_max"] = header["cal_min"] = 0  # the source's display window would hide the result
    return type(source)(array.T.reshape(source.shape), source.affine, header)


def write_nifti(image: Any, path: Path) -> None:
    """Write an image as gzip with neither name nor time in its header, so that equal images are equal files."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as file:
        image.to_stream(file)


def _open(path: Path) -> Any:
    image: Any = nib.load(path)
    if image.get_data_dtype().kind in "Vc":
        raise not_grey(path, f"data type {image.header.get_value_label('datatype')}")
    return image
