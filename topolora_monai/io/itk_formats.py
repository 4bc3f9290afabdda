"""DICOM, NRRD and MetaImage, by ITK; which files of a folder make one DICOM series; and photographs in DICOM."""

import functools
import math
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
from monai.data.image_reader import ITKReader
from numpy.typing import NDArray

from topolora_monai.errors import DataError
from topolora_monai.io.regular import FILE, path_kind, require_file
from topolora_monai.io.volume_header import Header, not_grey, three_axes, volume_state

_COLOUR_HINT = "save each frame that you want segmented to a PNG or TIFF of its own, or take one photograph a file"
_UNEVEN = 0.1
"""Largest deviation of a DICOM slice from even spacing, as a fraction of it; positions are rounded in files."""
_KEYS_OF_PLACE = ("NRRD_space", "0020|0032")
"""Entries that ITK makes of NRRD's ``space`` and DICOM's position."""
_WORDS_OF_PLACE = (b"Offset", b"Position", b"Origin", b"TransformMatrix", b"Rotation", b"Orientation")
_LONGEST_HEADER = 2**16
"""Bytes of the header of a MetaImage or DICOM file that are looked at."""
_TRANSFER_SYNTAX = b"\2\0\x10\0UI"
"""Tag and type of the element that says how pixels are coded; it comes first, and always in this byte order."""
_UNCOMPRESSED = (b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.2")


def itk_header(path: Path) -> Header:
    """Shape, voxel size and place of a file or of a DICOM series."""
    image = _open(path)
    column, row, between, *_ = (*(float(size) for size in image.GetSpacing()), 1.0)
    return Header(
        three_axes(path, tuple(image.GetLargestPossibleRegion().GetSize())), (between, row, column), _place(path, image)
    )


def itk_values(path: Path) -> NDArray[Any]:
    """Rescaled values, the slowest axis first, with as many axes as are stored, of slices that are evenly spaced."""
    # As float, since ITK would otherwise round a series to the type of its first file.
    reader = ITKReader(reverse_indexing=True, pixel_type=itk.F)
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
        header = _first_bytes(path).partition(b"ElementDataFile")[0]
        said = any(word in header for word in _WORDS_OF_PLACE)
    return affine[:, [2, 1, 0, 3]] if said or not np.array_equal(affine, made_up) else None


def _affine(path: Path, image: Any) -> NDArray[np.float64]:
    """NIfTI's, from (column, row, slice, 1), to the right and the front; ITK's point to the left and the back."""
    axes = min(image.GetImageDimension(), 3)
    direction = itk.array_from_matrix(image.GetDirection())
    affine = np.eye(4)
    affine[:axes, :axes] = (direction * np.asarray(image.GetSpacing()))[:axes, :axes]
    affine[:axes, 3] = np.asarray(image.GetOrigin())[:axes]
    affine[:2] *= -1
    return affine


def _open(path: Path) -> Any:
    """ITK image with a geometry and without voxels."""
    files = series_files(path) if path.is_dir() else [str(path)]
    image_type = itk.Image[itk.F, _checked_axes(path, files)]
    if len(files) == 1:
        reader = itk.ImageFileReader[image_type].New(FileName=files[0])
    else:
        reader = itk.ImageSeriesReader[image_type].New(FileNames=files)
    reader.UpdateOutputInformation()
    return reader.GetOutput()


def _checked_axes(path: Path, files: list[str]) -> int:
    """Number of axes of the first file."""
    first, is_dicom = _file_header(files[0]), has_dicom_magic(Path(files[0]))
    if first is None:
        raise DataError(
            "not a volume of a format that ITK knows",
            path=path,
            hint="copy it again, put its suffix in lower case, or convert it to NIfTI",
        )
    if (components := first.GetNumberOfComponents()) != 1:
        raise not_grey(path, f"{components} values per voxel", _COLOUR_HINT if is_dicom else None)
    size = _sides(first)
    if is_dicom:
        bits = int(first.GetMetaDataDictionary()["0028|0100"])
        for file in files:
            _require_pixels(Path(file), math.prod(size) * bits // 8)
    three_axes(path, (*size, len(files)) if size[-1] != 1 and len(files) > 1 else size)
    return len(size)


def _file_header(file: str) -> Any:
    """ITK's reading of a header; None of a format that it does not know."""
    header = itk.ImageIOFactory.CreateImageIO(file, itk.CommonEnums.IOFileMode_ReadMode)
    if header is not None:
        header.SetFileName(file)
        header.ReadImageInformation()
    return header


def _sides(header: Any) -> tuple[int, ...]:
    return tuple(header.GetDimensions(axis) for axis in range(header.GetNumberOfDimensions()))


def _first_bytes(path: Path, count: int = _LONGEST_HEADER) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def has_dicom_magic(path: Path) -> bool:
    """Whether a file starts as DICOM's part 10 lays down: 128 free bytes, then four letters."""
    try:
        return path_kind(path) == FILE and _first_bytes(path, 132)[128:] == b"DICM"
    except OSError:
        return False


def looks_like_dicom(path: Path) -> bool:
    """Whether a file of a folder is one of a series; its directory file and hidden files are not."""
    if not path.is_file() or path.name.startswith(".") or path.name.upper() == "DICOMDIR":
        return False
    return path.suffix.lower() == ".dcm" or has_dicom_magic(path)


def _require_pixels(path: Path, size: int) -> None:
    """Refuse a DICOM file without compression that is shorter than its pixels; GDCM would fill in zeros."""
    head = _first_bytes(path)
    at = head.find(_TRANSFER_SYNTAX, 132)
    length = int.from_bytes(head[at + 6 : at + 8], "little")
    syntax = head[at + 8 : at + 8 + length].rstrip(b"\0 ")
    found = path.stat().st_size
    if at >= 0 and syntax in _UNCOMPRESSED and found < size:
        raise DataError(
            "DICOM file is shorter than its pixels",
            path=path,
            expected=f"at least {size:,} bytes of pixels, as its header announces",
            found=f"a file of {found:,} bytes",
            hint="copy it again",
        )


def series_files(folder: Path) -> list[str]:
    """Files, in order of position, of the one series in a folder.

    A ``DataError`` if there are several series or none, or a file of it is empty or unreadable.
    """
    files = _only_series(folder)
    # GDCM passes over what it cannot read, which would leave slices out.
    shown = (file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    here = {file.name for file in shown if looks_like_dicom(file) or file.stat().st_size == 0}
    unread = sorted(here - {Path(file).name for file in files})
    if unread or not files:
        raise DataError(
            "folder is no whole DICOM series" if unread else "no DICOM series in the folder",
            path=folder,
            expected="files that are readable and images, each with its pixels",
            found=f"{len(unread)} others: {', '.join(unread[:3])}" if unread else None,
            hint="copy them again if they are damaged, or move them away",
        )
    return files


def _only_series(folder: Path) -> list[str]:
    for path in folder.iterdir():
        require_file(path, folders=True)  # GDCM opens whatever is there
    names = itk.GDCMSeriesFileNames.New()
    # What counts as one series is what MONAI's ITKReader takes for one.
    names.SetUseSeriesDetails(True)
    names.AddSeriesRestriction("0008|0021")
    names.SetDirectory(str(folder))
    series = {uid: list(names.GetFileNames(uid)) for uid in names.GetSeriesUIDs()}
    if len(series) > 1:
        raise DataError(
            "folder holds several DICOM series",
            path=folder,
            expected="one",
            found="; ".join(f"{uid} ({len(of)} files, {Path(of[0]).name} first)" for uid, of in series.items()),
            hint="move each series into a folder of its own",
        )
    return next(iter(series.values()), [])


def is_photograph(path: Path) -> bool:
    """Whether a file is a DICOM image of one frame in colour of 8 bits."""
    return has_dicom_magic(path) and _is_photograph(path.absolute(), volume_state(path))


@functools.lru_cache(maxsize=4096)
def _is_photograph(path: Path, state: object) -> bool:
    try:
        header = _file_header(str(path))
    except RuntimeError:
        return False
    if header is None or header.GetNumberOfComponents() != 3 or header.GetComponentSize() != 1:
        return False
    return set(_sides(header)[2:]) <= {1}


def photograph(path: Path) -> NDArray[np.uint8]:
    """Red, green and blue of a photograph, shape (H, W, 3), whether the file stores RGB or YBR."""
    reader = itk.ImageFileReader[itk.Image[itk.RGBPixel[itk.UC], 2]].New(FileName=str(path))
    reader.Update()
    return np.array(itk.array_from_image(reader.GetOutput()))
