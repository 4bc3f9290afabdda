"""Which files are DICOM, and which of a folder make one series."""

from __future__ import annotations

from pathlib import Path

from topolora_monai.errors import DataError
from topolora_monai.io.regular import FILE, path_kind, require_file
from topolora_monai.io.volumes.shared import require_itk

__all__ = ["has_dicom_magic", "looks_like_dicom", "series_files"]


def has_dicom_magic(path: Path) -> bool:
    """Whether a file starts as DICOM's part 10 lays down: 128 free bytes, then four letters."""
    if path_kind(path) != FILE:
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def looks_like_dicom(path: Path) -> bool:
    """Whether a file of a folder is one of a series; its directory file and hidden files are not."""
    if not path.is_file() or path.name.startswith(".") or path.name.upper() == "DICOMDIR":
        return False
    return path.suffix.lower() == ".dcm" or has_dicom_magic(path)


def series_files(folder: Path) -> list[str]:
    """Files, in order of position, of the one series in a folder.

    Raises:
        ConfigError: if ITK is not installed.
        DataError: if there are several series or none, or a file of it is empty or unreadable.
    """
    files = _only_series(folder)
    # GDCM passes over what it cannot read, which would leave slices out.
    here = {file.name for file in folder.iterdir() if looks_like_dicom(file) or _is_empty(file)}
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
    names = require_itk(folder).GDCMSeriesFileNames.New()
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
            found="; ".join(
                f"{uid} ({len(files)} files, {Path(files[0]).name} first)" for uid, files in series.items()
            ),
            hint="move each series into a folder of its own",
        )
    return next(iter(series.values()), [])


def _is_empty(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and path.stat().st_size == 0
