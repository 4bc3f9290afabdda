"""Libraries that only the export needs."""

from __future__ import annotations

import importlib
from typing import Any

from topolora_monai.errors import ConfigError

__all__ = ["import_extra"]


def import_extra(module: str) -> Any:
    """Import a module of the extra ``export``.

    Args:
        module: its full name.

    Raises:
        ConfigError: if it is not installed.

    Example:
        >>> import_extra("a_library_nobody_has.part")
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
            "ONNX needs a library that is not installed",
            expected=module.partition(".")[0],
            hint='pip install "topolora_monai[export]"',
        ) from error
