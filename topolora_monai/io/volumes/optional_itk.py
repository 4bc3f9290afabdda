"""ITK, which is installed only where somebody asked for it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from topolora_monai.errors import ConfigError

__all__ = ["require_itk"]


def require_itk(path: Path) -> Any:
    """The module ``itk``.

    Args:
        path: the volume it is needed for.

    Raises:
        ConfigError: if it is not installed.
    """
    try:
        return importlib.import_module("itk")
    except ImportError as error:
        raise ConfigError(
            "DICOM, NRRD and MetaImage need ITK", path=path, hint='install it: pip install "topolora_monai[dicom]"'
        ) from error
