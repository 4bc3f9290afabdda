"""What the formats of volumes share: their header, one kind of error for damage, and what tells a changed file."""

import contextlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from topolora_monai.errors import DataError


class Header(NamedTuple):
    """Shape and voxel size along (slice, row, column); the size is in mm, or 1 where a file has none.

    ``affine``, (4, 4), leads from (slice, row, column, 1) to mm to the right, the front and the top; None where a file
    does not say where it lies.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    affine: NDArray[np.float64] | None


def three_axes(path: Path, size: tuple[int, ...]) -> tuple[int, int, int]:
    """(slices, rows, columns) from the sizes of stored axes, the fastest first; others are refused.

    Example:
        >>> three_axes(Path("scan.nii"), (512, 256, 30)), three_axes(Path("plane.mha"), (512, 256))
        ((30, 256, 512), (1, 256, 512))
    """
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


def not_grey(path: Path, found: object, hint: str | None = None) -> DataError:
    """The error for colour, complex numbers and vectors, with other advice where it fits better."""
    return DataError(
        "volume is not grey",
        path=path,
        expected="one real value per voxel",
        found=found,
        hint=hint or "save one channel to a file of its own",
    )


DAMAGE = (ArithmeticError, EOFError, HeaderDataError, ImageFileError, MemoryError, OSError, RuntimeError, SyntaxError,
          TypeError, UserWarning, ValueError, zlib.error)  # fmt: skip
"""What nibabel, ITK and Pillow raise on damaged files."""


@contextlib.contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn the libraries' many errors on a damaged file, :data:`DAMAGE`, into a ``DataError``."""
    try:
        yield
    except DAMAGE as error:
        raise DataError(
            "volume is damaged or incomplete",
            path=path,
            found=f"content that cannot be decoded ({str(error) or type(error).__name__})",
            hint="copy or download it again",
        ) from error


def volume_state(path: str | Path) -> tuple[tuple[str, int, int], ...]:
    """What changes when a file does, or a file of a folder: name, time of change in ns, bytes.

    Raises:
        OSError: if it is missing.
    """
    path = Path(path)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
