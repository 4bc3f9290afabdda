"""Images to segment: a file, a folder or a glob."""

from __future__ import annotations

import glob
from collections import Counter
from pathlib import Path

from topolora_monai.data.items import Item, image_files, plain_stem
from topolora_monai.data.slices import expand_slices
from topolora_monai.errors import DataError
from topolora_monai.io import IMAGE_SUFFIXES, is_volume

__all__ = ["find_images"]


def find_images(source: str | Path, axis: int | None = None) -> list[Item]:
    """List the images behind a path; volumes slice by slice.

    Args:
        source: one file, a folder (not its subfolders, but those that hold a DICOM series), or a glob pattern such as
            ``"scans/*.png"``.
        axis: that volumes are sliced along, see :func:`~topolora_monai.data.slices.expand_slices`.

    Returns:
        Items in order of path. ``name`` is the file's stem, or its whole file name where stems collide; for slices of
        volumes with their number, and with ``axis`` and ``slice``.

    Raises:
        DataError: if nothing is found, or two files would write the same prediction.
    """
    path = Path(source)
    if path.is_dir() and not is_volume(path):
        files = sorted(
            [*image_files(path), *(folder for folder in path.iterdir() if folder.is_dir() and is_volume(folder))]
        )
    elif path.exists():
        files = [path]
    else:
        files = sorted(Path(match) for match in glob.glob(str(source), recursive=True) if Path(match).is_file())  # noqa: PTH207 - patterns may be absolute
    if not files:
        raise DataError(
            "no image to segment",
            path=source,
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
