"""Libraries that only some users need."""

from __future__ import annotations

import importlib
from typing import Any

from topolora_monai.errors import ConfigError

__all__ = ["import_extra"]


def import_extra(module: str, extra: str, user: str) -> Any:
    """Import a module of one of the package's extras.

    Args:
        module: its full name.
        extra: the extra that installs it.
        user: what needs it, for the error.

    Raises:
        ConfigError: if it is not installed.

    Example:
        >>> import_extra("a_library_nobody_has.part", extra="export", user="ONNX")
        Traceback (most recent call last):
        ...
        topolora_monai.errors.ConfigError: ONNX needs a library that is not installed
          expected: a_library_nobody_has
          to do:    pip install "topolora_monai[export]"
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{user} needs a library that is not installed",
            expected=module.partition(".")[0],
            hint=f'pip install "topolora_monai[{extra}]"',
        ) from error
