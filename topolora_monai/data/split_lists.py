"""Published lists of which image belongs to which split; sources in ``splits/README.md``."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

__all__ = ["split_list"]


@cache
def split_list(name: str) -> frozenset[str]:
    """Stems of a list that is part of the package.

    Example:
        >>> len(split_list("kvasir_seg_pranet_test"))
        100
    """
    text = (files("topolora_monai.data") / "splits" / f"{name}.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))
