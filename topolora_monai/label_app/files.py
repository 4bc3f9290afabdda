"""Files that are whole or not there, also after a power cut."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from topolora_monai.errors import DataError
from topolora_monai.io.atomic import atomic_write
from topolora_monai.io.json_files import json_text

__all__ = ["copy_durably", "read_json", "write_json_durably"]


def copy_durably(source: Path, target: Path) -> None:
    """Copy a file beside its place, bring it to the disk and rename it.

    Raises:
        OSError: if it cannot be written; an older file is left as it was.
    """
    _durably(target, lambda beside: shutil.copyfile(source, beside))


def write_json_durably(content: Any, target: Path) -> None:
    """Write JSON in the same way.

    Raises:
        OSError: if it cannot be written; an older file is left as it was.
    """
    _durably(target, lambda beside: beside.write_text(json_text(content, indent=1, default=str) + "\n"))


def read_json(path: Path) -> Any:
    """Content of a file of ours.

    Raises:
        DataError: if it is missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError("a record cannot be read", path=path, found=error) from error


def _durably(target: Path, write: Callable[[Path], Any]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as beside:
        write(beside)
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name, too, is on the disk
    finally:
        os.close(folder)
