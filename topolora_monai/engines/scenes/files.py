"""Outputs that are either whole or not there, and that say what they were made with."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from topolora_monai.errors import OutputError

__all__ = ["DIGEST_TAG", "writing", "written_whole"]

DIGEST_TAG = "SETTINGS_SHA256"
"""Metadata item of an output that tells its source and settings."""


@contextlib.contextmanager
def written_whole(path: Path, suffix: str = "") -> Iterator[Path]:
    """A place beside ``path``, ending in ``suffix``, whose content gets that name once it is whole."""
    beside = path.with_name(f".{path.name}.part{suffix}")
    try:
        with writing(path):
            yield beside
            os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while something is written to ``path`` into an :class:`OutputError`."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            "cannot write a prediction",
            path=path,
            found=error.strerror or str(error),
            hint="free some space, then start again to continue",
        ) from error
