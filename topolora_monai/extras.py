"""Whether the installation has what is asked of it: libraries that only some users need, and a fitting torchvision."""

import importlib
import importlib.metadata
from pathlib import Path
from typing import Any

from topolora_monai.errors import ConfigError, first_line


def import_extra(module: str, extra: str, user: str, path: str | Path | None = None, since: str = "") -> Any:
    """Import a module of one of the package's extras.

    Args:
        module: its full name.
        extra: the extra that installs it.
        user: what needs it, for the error.
        path: the file that it is needed for.
        since: version of the library that has it first, where older ones are about.

    Raises:
        ConfigError: if it is not installed, or cannot be imported.

    Example:
        >>> import_extra("a_library_nobody_has.part", extra="export", user="ONNX")
        Traceback (most recent call last):
        ...
        topolora_monai.errors.ConfigError: ONNX needs a library that is not installed
          expected: a_library_nobody_has
          found:    No module named 'a_library_nobody_has'
          to do:    pip install "topolora_monai[export]"
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{user} needs a library that is not installed",
            path=path,
            expected=module.partition(".")[0] + (f" {since} or later" if since else ""),
            found=first_line(error),
            hint=f'pip install "topolora_monai[{extra}]"',
        ) from error


def check_torchvision() -> None:
    """Import torchvision, which SAM, PEFT and timm need, and explain the usual reason when that fails.

    An ``ImportError`` if torch and torchvision come from different builds.
    """
    try:
        importlib.import_module("torchvision")
    except (RuntimeError, OSError) as error:
        found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "torchvision"))
        raise ImportError(
            f"torch and torchvision do not fit together ({error}). Found {found}. "
            "Install a pair from one build, for example: pip install torch==2.12.0 torchvision==0.27.0"
        ) from error
