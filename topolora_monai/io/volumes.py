"""Volumes of any format: what one is, its header, its values, single slices, and results in its geometry."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topolora_monai.errors import ConfigError, DataError, OutputError
from topolora_monai.io.atomic import atomic_write
from topolora_monai.io.itk_formats import (
    has_dicom_magic,
    is_photograph,
    itk_header,
    itk_values,
    looks_like_dicom,
    nifti_like_itk,
)
from topolora_monai.io.memory import inflated, require_memory
from topolora_monai.io.nifti import NIFTI_SUFFIXES, nifti_header, nifti_like, nifti_values, write_nifti
from topolora_monai.io.regular import FOLDER, path_kind, require_file
from topolora_monai.io.tiff_pages import TIFF_SUFFIXES, has_several_pages, tiff_header, tiff_values, write_tiff
from topolora_monai.io.volume_header import Header, decoding, volume_state

VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, ".nrrd", ".mha", ".dcm")
"""File name endings, in lower case, of files that are volumes by name alone."""

_PEAK_BYTES = 20
"""Memory for a voxel while a volume is read: as stored and rescaled, eight bytes each, and as float32."""
_COARSER = 1.001
"""Ratio above which two spacings differ by more than the rounding of headers."""
_LONGEST_LINE = 1 << 20


class _Format(NamedTuple):
    """What reads a volume, and writes a result in its geometry to a file of another ending."""

    header: Callable[[Path], Header]
    values: Callable[[Path], NDArray[Any]]
    write: Callable[[NDArray[Any], Path, Path], None]
    ending: str


_NIFTI = _Format(
    nifti_header, nifti_values, lambda array, like, path: write_nifti(nifti_like(array, like), path), ".nii.gz"
)
_ITK = _Format(
    itk_header, itk_values, lambda array, like, path: write_nifti(nifti_like_itk(array, like), path), ".nii.gz"
)
_TIFF = _Format(tiff_header, tiff_values, lambda array, like, path: write_tiff(array, path), ".tif")


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


def _format(path: Path) -> _Format:
    """What reads a volume; any folder is taken for a DICOM series, and a TIFF of one page for a volume."""
    require_file(path, folders=True)
    name = path.name.lower()
    if path.is_dir():
        return _ITK
    if path.stat().st_size == 0:
        raise DataError("file is empty", path=path, found="0 bytes", hint="copy or download it again")
    if name.endswith(NIFTI_SUFFIXES):
        return _NIFTI
    if name.endswith(TIFF_SUFFIXES):
        return _TIFF
    if name.endswith(VOLUME_SUFFIXES) or has_dicom_magic(path):
        return _ITK
    raise DataError(
        "not a volume",
        path=path,
        expected=f"{', '.join((*VOLUME_SUFFIXES, *TIFF_SUFFIXES))}, a DICOM file or the folder of a DICOM series",
    )


def _header(path: Path) -> Header:
    found = _format(path)
    return _header_in_state(path.absolute(), found, volume_state(path))


@functools.lru_cache(maxsize=256)
def _header_in_state(path: Path, found: _Format, state: object) -> Header:
    with decoding(path):
        header = found.header(path)
    # Here, since a damaged header may announce a million slices, each of which would be an item.
    require_memory(path, header.shape, _PEAK_BYTES, "copy it again if this is not its size; else cut or reduce it")
    return header


def volume_shape(path: str | Path) -> tuple[int, int, int]:
    """(slices, rows, columns) of a volume, from its header.

    Raises:
        DataError: as :func:`read_volume`, but for damage behind the header; also from the next three.
    """
    return _header(Path(path)).shape


def volume_affine(path: str | Path) -> NDArray[np.float64] | None:
    """From (slice, row, column, 1) to mm to the right, the front and the top; None if the file does not say."""
    return _header(Path(path)).affine


def slice_count(path: str | Path, axis: int) -> int:
    """Number of slices along an axis, 0, 1 or 2, from the header; a ``ConfigError`` for another."""
    shape = volume_shape(path)
    if axis not in (0, 1, 2):
        raise ConfigError(
            "volumes have no such axis", expected="0 (across slices), 1 (across rows) or 2 (across columns)", found=axis
        )
    return shape[axis]


def default_axis(path: str | Path) -> int:
    """The axis with the coarsest spacing, across which a scanner's slices are thick; 0 where none stands out.

    An axis of length one is taken before any other: the volume is then a single picture.
    """
    shape, spacing, _ = _header(Path(path))
    if 1 in shape:
        return shape.index(1)
    coarsest = int(np.argmax(spacing))
    return coarsest if spacing[coarsest] > spacing[0] * _COARSER else 0


def read_volume(path: str | Path) -> NDArray[np.float32]:
    """Read a whole volume.

    A 2-D file is a volume of one slice. The slices of a DICOM series are in order of position.

    Args:
        path: a NIfTI, NRRD, MetaImage, DICOM or TIFF file, or the folder of one DICOM series.

    Returns:
        Values in the units of the file, by its rescale slope and intercept, shape (slices, rows, columns). NaN is kept.

    Raises:
        DataError: if it is missing, empty, damaged or too large, is no volume, is in colour, has more than three
            axes, or is a folder of several DICOM series or of one that has gaps.

    Example:
        >>> import tempfile
        >>> import nibabel as nib
        >>> file = Path(tempfile.mkdtemp()) / "scan.nii.gz"
        >>> nib.save(nib.Nifti1Image(np.zeros((4, 3, 2), np.int16), np.diag([0.5, 0.5, 3.0, 1.0])), file)
        >>> read_volume(file).shape, default_axis(file), slice_count(file, axis=0)
        ((2, 3, 4), 0, 2)
    """
    path = Path(path)
    shape = volume_shape(path)
    with decoding(path):
        _check_stream(path)
        return np.array(_format(path).values(path).reshape(shape), dtype=np.float32, order="C")


def read_slice(
    path: str | Path,
    axis: int,
    index: int,
    turn: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
) -> NDArray[np.float32]:
    """Read one slice, from 0, across an axis, 0, 1 or 2: ``turn(read_volume(path)).take(index, axis)``, shape (H, W).

    ``turn`` makes a view of all values with other axes, which the slice is taken from. The two volumes read last are
    kept in memory for as long as their files do not change, so that an image and its labels are decoded once when
    their slices are read in order.

    Raises:
        ConfigError, DataError: as :func:`read_volume`, or for another axis, or if there is no such slice.
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
    return read_volume(path)


def _check_stream(path: Path) -> None:
    """Read the compressed part of a file to its end: nibabel and ITK stop at the last voxel, before the checksum."""
    if not path.name.lower().endswith((".nii.gz", ".nrrd", ".mha")):
        return
    with path.open("rb") as file:
        if path.suffix.lower() == ".gz" or _compressed_follows(file, path.suffix.lower() == ".nrrd"):
            for _ in inflated(file):
                pass


def _compressed_follows(file: IO[bytes], nrrd: bool) -> bool:
    """Move behind a header: NRRD's ends with an empty line, MetaImage's with the one that says where the voxels are."""
    said: dict[bytes, bytes] = {}
    for line in iter(lambda: file.readline(_LONGEST_LINE), b""):
        key, *value = re.split(rb"\s*[:=]\s*", line.strip().lower(), maxsplit=1)
        said[key] = b"".join(value)
        if key == b"elementdatafile" or (nrrd and not line.rstrip(b"\r\n")):
            break
    if nrrd:
        return said.get(b"encoding") in (b"gzip", b"gz") and not said.keys() & {b"data file", b"datafile"}
    return said.get(b"compresseddata") == b"true" and said.get(b"elementdatafile") == b"local"


def write_volume(array: NDArray[np.uint8] | NDArray[np.uint16], like: str | Path, path: str | Path) -> None:
    """Write a result in the geometry of its source, whole or not at all.

    A NIfTI source gives its header, with affine, codes and units, to a NIfTI file of the same axes; DICOM, NRRD and
    MetaImage become NIfTI of equal spacing, origin and direction; TIFF pages become TIFF pages.

    Args:
        array: a mask or probabilities, of the shape of ``read_volume(like)``.
        like: the source, which is read again for its header.
        path: where to, of the ending that :func:`volume_output_name` gives.

    Raises:
        DataError: if the source cannot be read, as :func:`volume_shape`.
        OutputError: for another shape or ending, or if the file cannot be written.
    """
    like, path = Path(like), Path(path)
    found, shape = _format(like), volume_shape(like)
    if array.shape != shape:
        raise OutputError("result has another shape than its source", path=path, expected=shape, found=array.shape)
    if not path.name.endswith(found.ending):
        raise OutputError("file name has another ending than its format", path=path, expected=found.ending)
    with atomic_write(path, "a volume") as beside:
        found.write(array, like, beside)


def volume_output_name(like: str | Path, stem: str) -> str:
    """File name for a result: ``stem.nii.gz``, or ``stem.tif`` if the source is TIFF pages."""
    return stem + _format(Path(like)).ending
