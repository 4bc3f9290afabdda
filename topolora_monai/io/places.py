"""Where the package keeps what it can make again."""

from __future__ import annotations

import functools
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from topolora_monai.errors import ConfigError, OutputError

__all__ = ["in_cache", "user_cache"]

_Made = TypeVar("_Made")


def user_cache() -> Path:
    """``$XDG_CACHE_HOME/topolora_monai``, by default below ``~/.cache``.

    Raises:
        ConfigError: if the user has no home, as in containers with a user of no name.
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

    Args:
        make: given a folder, which need not be there, gives what is in it already, and makes what is not.
        name: of the folder below :func:`user_cache`.

    Raises:
        OutputError: if neither can be written.
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
