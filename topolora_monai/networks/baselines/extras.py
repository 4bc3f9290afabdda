"""Libraries that only the baselines need."""

from __future__ import annotations

import importlib
from types import ModuleType

from topolora_monai.errors import ConfigError

__all__ = ["import_extra"]


def import_extra(module: str) -> ModuleType:
    """Import a module of the extra ``baselines``.

    Args:
        module: its full name.

    Raises:
        ConfigError: if it is not installed.

    Example:
        >>> import_extra("a_library_nobody_has")
        Traceback (most recent call last):
        ...
        topolora_monai.errors.ConfigError: this network needs a library that is not installed
          expected: a_library_nobody_has
          to do:    pip install "topolora_monai[baselines]"
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            "this network needs a library that is not installed",
            expected=module.partition(".")[0],
            hint='pip install "topolora_monai[baselines]"',
        ) from error
