"""Volumes, read and written slice by slice, with results in the geometry of their source.

Whatever the format, the axes of an array are (slice, row, column): the order in which a file stores its voxels,
and in which DICOM images and TIFF pages are pictures. It is the order of ITK's arrays, and the reverse of
nibabel's, so a NIfTI label fits a DICOM image it was drawn on.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import importlib
import os
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import nibabel as nib
import numpy as np
from monai.data.image_reader import ITKReader, NibabelReader
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray
from PIL import Image

from topolora_monai.errors import ConfigError, DataError, OutputError
from topolora_monai.io.pictures import open_picture

__all__ = [
    "VOLUME_SUFFIXES",
    "Volume",
    "VolumeKind",
    "default_axis",
    "is_volume",
    "read_slice",
    "read_volume",
    "slice_count",
    "volume_output_name",
    "volume_shape",
    "volume_state",
    "write_volume",
]

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".dcm")
"""File name endings, in lower case, of files that are volumes by name alone."""

VolumeKind = Literal["nifti", "itk", "tiff"]
"""What reads a volume: nibabel, ITK (DICOM, NRRD, MetaImage) or Pillow (TIFF pages)."""

_NIFTI_SUFFIXES = (".nii", ".nii.gz")
_TIFF_SUFFIXES = (".tif", ".tiff")
_TIFF_MODES = ("1", "L", "P", "I;16", "I;16B", "I;16L", "I", "F")
_NEW_SUBFILE_TYPE, _OVERVIEW, _TRANSPARENCY = 254, 1, 4
_COARSER = 1.001
"""Ratio above which two spacings differ by more than the rounding of headers."""
_UNEVEN = 0.1
"""Largest deviation of a DICOM slice from even spacing, as a fraction of it; positions are rounded in files."""
_DAMAGE = (
    ArithmeticError,
    EOFError,
    HeaderDataError,
    ImageFileError,
    MemoryError,  # sizes in a broken header can be anything
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    UserWarning,
    ValueError,
    zlib.error,
)
"""What nibabel, ITK and Pillow raise on damaged files."""


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


class _Header(NamedTuple):
    """Shape and voxel size along (slice, row, column); the size is in mm, or 1 where a file has none."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]


def is_volume(path: str | Path) -> bool:
    """Whether a path is a volume: a NIfTI, NRRD, MetaImage or DICOM file, a DICOM folder, or a TIFF of several pages.

    Only names and headers are looked at. A TIFF's overviews and transparency masks are no pages. Animated GIFs
    are no volumes.

    Args:
        path: a file or folder, which need not be readable.

    Example:
        >>> is_volume("scan.nii.gz"), is_volume("photograph.png")
        (True, False)
    """
    path = Path(path)
    if path.is_dir():
        return any(_looks_like_dicom(file) for file in path.iterdir())
    name = path.name.lower()
    if name.endswith(_TIFF_SUFFIXES):
        return _has_several_pages(path)
    return name.endswith(VOLUME_SUFFIXES) or _has_dicom_magic(path)


def read_volume(path: str | Path) -> Volume:
    """Read a whole volume.

    A 2-D file is a volume of one slice. The slices of a DICOM series are in order of position.

    Args:
        path: a NIfTI, NRRD, MetaImage, DICOM or TIFF file, or the folder of one DICOM series.

    Raises:
        ConfigError: if ITK is needed and not installed.
        DataError: if it is missing, empty or damaged, is no volume, is in colour, has more than three axes, or is
            a folder of several DICOM series or of one that has gaps.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "scan.nii.gz"
        >>> nib.save(nib.Nifti1Image(np.zeros((4, 3, 2), np.int16), np.diag([0.5, 0.5, 3.0, 1.0])), file)
        >>> read_volume(file).values.shape, default_axis(file), slice_count(file, axis=0)
        ((2, 3, 4), 0, 2)
    """
    path = Path(path)
    kind = _kind(path)
    shape = volume_shape(path)
    with _decoding(path):
        values = {"nifti": _nifti_values, "itk": _itk_values, "tiff": _tiff_values}[kind](path)
        return Volume(np.array(values.reshape(shape), dtype=np.float32, order="C"), path, kind)


def volume_shape(path: str | Path) -> tuple[int, int, int]:
    """(slices, rows, columns) of a volume, from its header.

    Raises:
        ConfigError, DataError: as :func:`read_volume`, but for damage behind the header.
    """
    return _read_header(Path(path)).shape


def slice_count(path: str | Path, axis: int) -> int:
    """Number of slices along an axis, from the header.

    Args:
        path: a volume.
        axis: 0, 1 or 2.

    Raises:
        ConfigError, DataError: as :func:`volume_shape`, or for another axis.
    """
    return volume_shape(path)[_checked_axis(axis)]


def default_axis(path: str | Path) -> int:
    """The axis with the coarsest spacing, across which a scanner's slices are thick; 0 where none stands out.

    An axis of length one is taken before any other: the volume is then a single picture.

    Raises:
        ConfigError, DataError: as :func:`volume_shape`.
    """
    shape, spacing = _read_header(Path(path))
    if 1 in shape:
        return shape.index(1)
    coarsest = int(np.argmax(spacing))
    return coarsest if spacing[coarsest] > spacing[0] * _COARSER else 0


def read_slice(path: str | Path, axis: int, index: int) -> NDArray[np.float32]:
    """Read one slice.

    The two volumes read last are kept in memory for as long as their files do not change, so that an image and its
    labels are decoded once when their slices are read in order.

    Args:
        path: a volume.
        axis: 0, 1 or 2, the axis the slice lies across.
        index: from 0.

    Returns:
        ``read_volume(path).values.take(index, axis)``, shape (H, W).

    Raises:
        ConfigError: for another axis, or if ITK is needed and not installed.
        DataError: as :func:`read_volume`, or if there is no such slice.
    """
    path = Path(path)
    slices = slice_count(path, axis)
    if not 0 <= index < slices:
        raise DataError(
            "volume has no such slice", path=path, expected=f"0 to {slices - 1} along axis {axis}", found=index
        )
    values = _decode_cached(path.absolute(), volume_state(path))
    plane: NDArray[np.float32] = np.moveaxis(values, axis, 0)[index].copy()
    return plane


def write_volume(array: NDArray[np.uint8] | NDArray[np.uint16], like: str | Path, path: str | Path) -> None:
    """Write a result in the geometry of its source, whole or not at all.

    A NIfTI source gives its header, with affine, codes and units, to a NIfTI file of the same axes; DICOM, NRRD and
    MetaImage become NIfTI of equal spacing, origin and direction; TIFF pages become TIFF pages.

    Args:
        array: a mask or probabilities, of the shape of ``read_volume(like).values``.
        like: the source, which is read again for its header.
        path: where to, of the ending that :func:`volume_output_name` gives.

    Raises:
        ConfigError, DataError: if the source cannot be read, as :func:`volume_shape`.
        OutputError: for another shape or ending, or if the file cannot be written.
    """
    like, path = Path(like), Path(path)
    kind, shape = _kind(like), volume_shape(like)
    if array.shape != shape:
        raise OutputError("result has another shape than its source", path=path, expected=shape, found=array.shape)
    if not path.name.endswith(_output_suffix(kind)):
        raise OutputError("file name has another ending than its format", path=path, expected=_output_suffix(kind))
    beside = path.with_name(f".{path.name}.part")
    try:
        if kind == "tiff":
            _write_tiff(array, beside)
        else:
            _write_nifti((_nifti_like if kind == "nifti" else _itk_like)(array, like), beside)
        os.replace(beside, path)
    except OSError as error:
        raise OutputError(
            "cannot write a volume",
            path=path,
            found=error.strerror or error,
            hint="check that the folder exists, may be written to and has free space",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def volume_output_name(like: str | Path, stem: str) -> str:
    """File name for a result: ``stem.nii.gz``, or ``stem.tif`` if the source is TIFF pages.

    Raises:
        DataError: if the source is missing or no volume.
    """
    return stem + _output_suffix(_kind(Path(like)))


def _output_suffix(kind: VolumeKind) -> str:
    return ".tif" if kind == "tiff" else ".nii.gz"


def _checked_axis(axis: int) -> int:
    if axis not in (0, 1, 2):
        raise ConfigError(
            "volumes have no such axis", expected="0 (across slices), 1 (across rows) or 2 (across columns)", found=axis
        )
    return axis


# Telling formats apart


def _kind(path: Path) -> VolumeKind:
    if not path.exists():
        raise DataError("file not found", path=path, hint="check the path and that the disk is mounted")
    name = path.name.lower()
    if path.is_file() and path.stat().st_size == 0:
        raise DataError("file is empty", path=path, found="0 bytes", hint="copy or download it again")
    if path.is_dir():
        return "itk"
    if name.endswith(_NIFTI_SUFFIXES):
        return "nifti"
    if name.endswith(_TIFF_SUFFIXES):
        return "tiff"
    if name.endswith(VOLUME_SUFFIXES) or _has_dicom_magic(path):
        return "itk"
    raise DataError(
        "not a volume",
        path=path,
        expected=f"{', '.join((*VOLUME_SUFFIXES, *_TIFF_SUFFIXES))}, a DICOM file or the folder of a DICOM series",
    )


def _has_dicom_magic(path: Path) -> bool:
    """Whether a file starts as DICOM's part 10 lays down: 128 free bytes, then four letters."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _looks_like_dicom(path: Path) -> bool:
    """Whether a file of a folder is one of a series; its directory file and hidden files are not."""
    if not path.is_file() or path.name.startswith(".") or path.name.upper() == "DICOMDIR":
        return False
    return path.suffix.lower() == ".dcm" or _has_dicom_magic(path)


def _has_several_pages(path: Path) -> bool:
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")
            if image.format != "TIFF" or not getattr(image, "is_animated", False):
                return False
            try:
                return len(list(islice(_pages(image), 2))) > 1
            except _DAMAGE:
                return True  # the next page is announced and broken, and must not go unnoticed
    except (*_DAMAGE, Image.DecompressionBombError):
        return False  # the readers of pictures and rasters say what is wrong


# Headers and values


def _read_header(path: Path) -> _Header:
    kind = _kind(path)
    return _read_header_cached(path.absolute(), kind, volume_state(path))


@functools.lru_cache(maxsize=256)
def _read_header_cached(path: Path, kind: VolumeKind, state: object) -> _Header:
    with _decoding(path):
        return {"nifti": _nifti_header, "itk": _itk_header, "tiff": _tiff_header}[kind](path)


@functools.lru_cache(maxsize=2)
def _decode_cached(path: Path, state: object) -> NDArray[np.float32]:
    return read_volume(path).values


def volume_state(path: str | Path) -> tuple[tuple[str, int, int], ...]:
    """What changes when a file does, or a file of a folder: name, time of change in ns, bytes."""
    path = Path(path)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)


@contextlib.contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turn the libraries' many errors on damaged files into one kind."""
    try:
        yield
    except ConfigError:
        raise
    except _DAMAGE as error:
        raise DataError(
            "volume is damaged or incomplete",
            path=path,
            found=f"content that cannot be decoded ({str(error) or type(error).__name__})",
            hint="copy or download it again",
        ) from error


def _three_axes(path: Path, size: tuple[int, ...]) -> tuple[int, int, int]:
    """(slices, rows, columns) from the sizes of stored axes, the fastest first."""
    columns, rows, slices, *others = (*size, *[1] * (3 - len(size)))
    if len(size) < 2 or 0 in size or any(other != 1 for other in others):
        raise DataError(
            "volume does not have three axes",
            path=path,
            expected="rows, columns and slices, at one time and with one value per voxel",
            found=f"axes of {' x '.join(str(length) for length in size)}",
            hint="save each time point or component to a file of its own",
        )
    return int(slices), int(rows), int(columns)


def _not_grey(path: Path, found: object) -> DataError:
    return DataError(
        "volume is not grey",
        path=path,
        expected="one real value per voxel",
        found=found,
        hint="save one channel to a file of its own",
    )


# NIfTI, by nibabel


def _open_nifti(path: Path) -> Any:
    image: Any = nib.load(path)
    if image.get_data_dtype().kind in "Vc":
        raise _not_grey(path, f"data type {image.header.get_value_label('datatype')}")
    return image


def _nifti_header(path: Path) -> _Header:
    image = _open_nifti(path)
    column, row, between = (float(size) for size in nib.affines.voxel_sizes(image.affine))
    return _Header(_three_axes(path, image.shape), (between, row, column))


def _nifti_values(path: Path) -> NDArray[Any]:
    reader = NibabelReader()
    values: NDArray[Any] = np.transpose(reader.get_data(reader.read(path))[0])
    return values


def _nifti_like(array: NDArray[Any], like: Path) -> Any:
    source = _open_nifti(like)
    header = source.header.copy()
    header.set_data_dtype(array.dtype)
    header["cal_max"] = header["cal_min"] = 0  # the source's display window would hide the result
    return type(source)(array.T.reshape(source.shape), source.affine, header)


def _write_nifti(image: Any, path: Path) -> None:
    # Neither name nor time in the gzip header: equal results are equal files.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as file:
        image.to_stream(file)


# DICOM, NRRD and MetaImage, by ITK


def _itk(path: Path) -> Any:
    try:
        return importlib.import_module("itk")
    except ImportError as error:
        raise ConfigError(
            "DICOM, NRRD and MetaImage need ITK", path=path, hint='install it: pip install "topolora_monai[dicom]"'
        ) from error


def _series_files(path: Path) -> list[str]:
    """Files, in order of position, of the one series in a folder."""
    names = _itk(path).GDCMSeriesFileNames.New()
    # What counts as one series is what MONAI's ITKReader takes for one.
    names.SetUseSeriesDetails(True)
    names.AddSeriesRestriction("0008|0021")
    names.SetDirectory(str(path))
    series = {uid: list(names.GetFileNames(uid)) for uid in names.GetSeriesUIDs()}
    if len(series) > 1:
        raise DataError(
            "folder holds several DICOM series",
            path=path,
            expected="one",
            found="; ".join(
                f"{uid} ({len(files)} files, {Path(files[0]).name} first)" for uid, files in series.items()
            ),
            hint="move each series into a folder of its own",
        )
    files = next(iter(series.values()), [])
    # GDCM passes over what it cannot read, which would leave slices out.
    here = {file.name for file in path.iterdir() if _looks_like_dicom(file) or _is_empty(file)}
    unread = sorted(here - {Path(file).name for file in files})
    if unread or not files:
        raise DataError(
            "folder is no whole DICOM series" if unread else "no DICOM series in the folder",
            path=path,
            expected="files that are readable and images, each with its pixels",
            found=f"{len(unread)} others: {', '.join(unread[:3])}" if unread else None,
            hint="copy them again if they are damaged, or move them away",
        )
    return files


def _is_empty(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and path.stat().st_size == 0


def _open_itk(path: Path) -> Any:
    """ITK image with a geometry and without voxels."""
    itk = _itk(path)
    files = _series_files(path) if path.is_dir() else [str(path)]
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
        raise _not_grey(path, f"{first.GetNumberOfComponents()} values per voxel")
    size = tuple(first.GetDimensions(axis) for axis in range(first.GetNumberOfDimensions()))
    _three_axes(path, (*size, len(files)) if size[-1] != 1 and len(files) > 1 else size)
    image_type = itk.Image[itk.F, len(size)]
    if len(files) == 1:
        reader = itk.ImageFileReader[image_type].New(FileName=files[0])
    else:
        reader = itk.ImageSeriesReader[image_type].New(FileNames=files)
    reader.UpdateOutputInformation()
    return reader.GetOutput()


def _itk_header(path: Path) -> _Header:
    image = _open_itk(path)
    column, row, between, *_ = (*(float(size) for size in image.GetSpacing()), 1.0)
    return _Header(_three_axes(path, tuple(image.GetLargestPossibleRegion().GetSize())), (between, row, column))


def _itk_values(path: Path) -> NDArray[Any]:
    # As float, since ITK would otherwise round a series to the type of its first file.
    reader = ITKReader(reverse_indexing=True, pixel_type=_itk(path).F)
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


def _itk_like(array: NDArray[Any], like: Path) -> Any:
    """NIfTI image with the affine of an ITK image, from its left-posterior to right-anterior coordinates."""
    itk = _itk(like)
    source = _open_itk(like)
    axes = min(source.GetImageDimension(), 3)
    affine = np.eye(4)
    affine[:axes, :axes] = (itk.array_from_matrix(source.GetDirection()) * np.asarray(source.GetSpacing()))[
        :axes, :axes
    ]
    affine[:axes, 3] = np.asarray(source.GetOrigin())[:axes]
    affine[:2] *= -1
    image: Any = nib.Nifti1Image(array.T[..., 0] if axes == 2 else array.T, affine)
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    return image


# Pages of a TIFF, by Pillow


def _pages(image: Image.Image) -> Iterator[Image.Image]:
    """Pages that are neither a smaller copy nor the transparency of another, as the tags of TIFF say."""
    for number in count():
        try:
            image.seek(number)
        except EOFError:
            return
        except SyntaxError:  # Pillow knows the tags of transparency, but not its pixels
            if not _is_subordinate(image):
                raise
        else:
            if number == 0 or not _is_subordinate(image):
                yield image


def _is_subordinate(page: Image.Image) -> bool:
    tags: Any = getattr(page, "tag_v2", {})
    return bool(tags.get(_NEW_SUBFILE_TYPE, 0) & (_OVERVIEW | _TRANSPARENCY))


@contextlib.contextmanager
def _open_tiff(path: Path) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        # Pillow only warns where the list of pages breaks off.
        warnings.filterwarnings("error", message="Corrupt EXIF data", category=UserWarning)
        with open_picture(path, decode=False) as image:
            yield image


def _tiff_header(path: Path) -> _Header:
    with _open_tiff(path) as image:
        found = [(page.height, page.width, page.mode) for page in _pages(image)]
    rows, columns, _ = found[0]
    for number, (height, width, mode) in enumerate(found, 1):
        if mode not in _TIFF_MODES:
            raise _not_grey(path, f"page {number} of mode {mode}")
        if (height, width) != (rows, columns):
            raise DataError(
                "pages differ in size",
                path=path,
                expected=f"{rows} x {columns} as the first",
                found=f"{height} x {width} in page {number}",
                hint="save the pages to files of their own, or remove the others",
            )
    return _Header((len(found), rows, columns), (1.0, 1.0, 1.0))


def _tiff_values(path: Path) -> NDArray[Any]:
    with _open_tiff(path) as image:
        return np.stack([np.asarray(page, dtype=np.float32) for page in _pages(image)])


def _write_tiff(array: NDArray[Any], path: Path) -> None:
    first, *others = (Image.fromarray(page) for page in array)
    first.save(path, format="TIFF", save_all=True, append_images=others, compression="tiff_adobe_deflate")
