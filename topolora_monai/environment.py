"""What must be right about the installation before anything else can work."""

from __future__ import annotations

import importlib
import importlib.metadata

__all__ = ["check_torchvision"]


def check_torchvision() -> None:
    """Import torchvision, which SAM, PEFT and timm need, and explain the usual reason when that fails.

    Raises:
        ImportError: if torch and torchvision come from different builds.
    """
    try:
        importlib.import_module("torchvision")
    except (RuntimeError, OSError) as error:
        found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "torchvision"))
        raise ImportError(
            f"torch and torchvision do not fit together ({error}). Found {found}. "
            "Install a pair from one build, for example: pip install torch==2.12.0 torchvision==0.27.0"
        ) from error
