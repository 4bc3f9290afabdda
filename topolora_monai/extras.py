"""Libraries that only some users need."""

from __future__ import annotations

import importlib
from typing import Any

from topolora_monai.errors import ConfigError, first_line

__all__ = ["import_extra"]


def import_extra(module: str, extra: str, user: str, since: str = "") -> Any:
    """Import a module of one of the package's extras.

    Args:
        module: its full name.
        extra: the extra that installs it.
        user: what needs it, for the error.
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
            expected=module.partition(".")[0] + (f" {since} or later" if since else ""),
            found=first_line(error),
            hint=f'pip install "topolora_monai[{extra}]"',
        ) from error
