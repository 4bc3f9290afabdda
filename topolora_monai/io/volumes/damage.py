"""One kind of error for everything that can be wrong with the bytes of a volume."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from pathlib import Path

from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from topolora_monai.errors import ConfigError, DataError

__all__ = ["DAMAGE", "decoding"]

DAMAGE = (
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


@contextlib.contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn the libraries' many errors on damaged files into one.

    Args:
        path: the file that is decoded within.

    Raises:
        DataError: in place of any of :data:`DAMAGE`.
    """
    try:
        yield
    except ConfigError:
        raise
    except DAMAGE as error:
        raise DataError(
            "volume is damaged or incomplete",
            path=path,
            found=f"content that cannot be decoded ({str(error) or type(error).__name__})",
            hint="copy or download it again",
        ) from error
