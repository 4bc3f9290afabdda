"""Folders: of what the package can make again, and of results, checked before a run starts."""

import functools
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from topolora_monai.errors import ConfigError, OutputError
from topolora_monai.io.regular import FOLDER, path_kind, shortened, unusable_name

_Made = TypeVar("_Made")


def user_cache() -> Path:
    """``$XDG_CACHE_HOME/topolora_monai``, by default below ``~/.cache``.

    A ``ConfigError`` if the user has no home, as in containers with a user of no name.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(base or Path.home() / ".cache") / "topolora_monai"
    except RuntimeError as error:
        raise ConfigError(
            "no folder for what is kept between runs", found=str(error), hint="set XDG_CACHE_HOME to a folder"
        ) from error


def in_cache(make: Callable[[Path], _Made], name: str) -> _Made:
    """Find or make something in the user's cache; where that cannot be written, in a folder that ends with the process.

    Given a folder of the name, which need not be there, ``make`` gives what is in it already, and makes what is not.
    An ``OutputError`` if neither can be written.
    """
    try:
        return make(user_cache() / name)
    except (ConfigError, OutputError, OSError) as error:
        _warn_once(str(error).partition("\n")[0])
        try:
            return make(_folder_of_process(os.getpid()) / name)
        except OSError as second:
            raise OutputError(
                "neither the cache nor the folder for temporary files can be written",
                path=tempfile.gettempdir(),
                found=second.strerror,
                hint="set XDG_CACHE_HOME to a folder that can be written and has space",
            ) from error


@functools.cache
def _warn_once(reason: str) -> None:
    warnings.warn(
        f"what is made for this run is not kept for the next: {reason}; set XDG_CACHE_HOME to a folder that can be"
        " written",
        stacklevel=4,
    )


@functools.cache
def _folder_of_process(process: int) -> Path:
    _folders.append(tempfile.TemporaryDirectory(prefix="topolora_monai-"))
    return Path(_folders[-1].name)


_folders: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends


def prepare_output(folder: str | Path, needed_bytes: int = 200_000_000) -> Path:
    """Create an output folder, given back as an absolute path, and make sure that results will fit in it.

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
        source: a file, a folder or a glob.
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
