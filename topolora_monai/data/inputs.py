"""Images to segment: a file, a folder or a glob."""

import glob
from collections import Counter
from pathlib import Path

from topolora_monai.data.items import Item, expand_slices, plain_stem, scans_in
from topolora_monai.errors import DataError
from topolora_monai.io import IMAGE_SUFFIXES, is_volume
from topolora_monai.io.regular import FILE, FOLDER, path_kind, require_file, shortened


def find_images(source: str | Path, axis: int | None = None) -> list[Item]:
    """List the images behind a path by stem, or by file name where stems collide; volumes slice by slice.

    Args:
        source: one file, a folder (not its subfolders, but those that hold a DICOM series), or a glob pattern such as
            ``"scans/*.png"``; brackets that are part of names need not be escaped.
        axis: that volumes are sliced along, see :func:`~topolora_monai.data.items.expand_slices`.

    Raises:
        DataError: if nothing is found, what is there is no file, such as a named pipe, two files would write the same
            prediction, or a pattern fits other files with its brackets taken as they are.
    """
    path, kind = Path(source), path_kind(source)
    if kind == FOLDER and not is_volume(path):
        files = scans_in(path)
    elif kind is not None:
        require_file(path, folders=True)
        files = [path]
    else:
        files = _matching(str(source))
    if not files:
        raise DataError(
            "no image to segment",
            path=shortened(str(source)),
            expected=f"a file, a folder or a glob of {', '.join(IMAGE_SUFFIXES)}",
            hint="check --input",
        )
    stems = Counter(plain_stem(file) for file in files)
    names = [plain_stem(file) if stems[plain_stem(file)] == 1 else file.name for file in files]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(
            "several images have the same file name",
            path=source,
            found=", ".join(repeated[:3]),
            hint="segment one folder at a time",
        )
    items = [Item(name=name, image=str(file.absolute())) for name, file in zip(names, files, strict=True)]
    return [each for item in items for each in expand_slices(item, axis)]


def _matching(pattern: str) -> list[Path]:
    """Files that a pattern fits, with brackets as patterns have them, or as part of the names that are there."""
    literal = (_with_literal_folders(pattern), pattern.replace("[", "[[]")) if "[" in pattern else ()
    readings: list[list[Path]] = []
    for reading in (pattern, *literal):
        matches = glob.glob(reading, recursive=True)  # noqa: PTH207 - patterns may be absolute
        found = sorted(Path(match) for match in matches if path_kind(match) == FILE)
        if found and found not in readings:
            readings.append(found)
    if len(readings) > 1:
        raise DataError(
            "pattern can mean two things",
            path=pattern,
            expected="files by one reading of the brackets",
            found=f"{readings[0][0]} and {readings[1][0]}",
            hint="rename one of the folders, or write [[] for a bracket that is part of a name",
        )
    return readings[0] if readings else []


def _with_literal_folders(pattern: str) -> str:
    """The pattern with the names of its first folders, as far as there are such, taken as they are."""
    parts = Path(pattern).parts
    there = next(count for count in range(len(parts), -1, -1) if path_kind(Path(*parts[:count])) == FOLDER)
    return str(Path(glob.escape(str(Path(*parts[:there]))), *parts[there:]))
