"""Folders to write to: checked before a run starts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from topolora_monai.errors import OutputError
from topolora_monai.io.regular import FOLDER, path_kind, shortened, unusable_name

__all__ = ["check_apart", "prepare_output"]


def prepare_output(folder: str | Path, needed_bytes: int = 200_000_000) -> Path:
    """Create an output folder and make sure that results will fit in it.

    Args:
        folder: the folder; created with its parents.
        needed_bytes: free space to insist on.

    Returns:
        The folder, absolute.

    Raises:
        OutputError: if it is a file, cannot be written, or its disk is nearly full.
    """
    folder = Path(folder).absolute()
    if path_kind(folder) not in (None, FOLDER):
        raise OutputError("output_dir is a file", path=folder, expected="a folder", hint="choose another --output_dir")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        free = shutil.disk_usage(folder).free
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else unusable_name(str(folder))
        raise OutputError(
            "output_dir cannot be written",
            path=shortened(str(folder)),
            found=reason,
            hint="choose another --output_dir",
        ) from error
    if free < needed_bytes:
        raise OutputError(
            "the disk of output_dir is nearly full",
            path=folder,
            expected=f"at least {needed_bytes / 1e6:.0f} MB free",
            found=f"{free / 1e6:.0f} MB",
            hint="free some space or choose another --output_dir",
        )
    return folder


def check_apart(output_dir: str | Path, source: str | Path, items: Sequence[Mapping[str, Any]]) -> None:
    """Make sure that masks are not written among the images, where the next run would segment them as well.

    One file that is segmented by name may have its mask beside it.

    Args:
        output_dir: where masks go.
        source: where images come from: a file, a folder or a glob.
        items: with ``image``, the paths that were found there.

    Raises:
        OutputError: if an image lies in the folder.
    """
    folder = Path(output_dir).resolve()
    if Path(source).is_file():
        return
    images = (Path(item["image"]).resolve() for item in items)
    found = next((image for image in images if folder == image or folder in image.parents), None)
    if found is not None:
        raise OutputError(
            "output_dir holds images to segment, among which its masks would be segmented by the next run",
            path=folder,
            found=found.name,
            hint="choose an --output_dir apart from the images",
        )
