"""Data sets by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from topolora_monai.data.drive import Drive
from topolora_monai.data.folder import Folder
from topolora_monai.data.items import Item, Split
from topolora_monai.data.synthetic_vessels import SyntheticVessels
from topolora_monai.errors import ConfigError, unknown_choice

__all__ = ["DATASET_NAMES", "SegmentationData", "open_dataset"]


class SegmentationData(Protocol):
    """What every data set offers."""

    name: str
    channels: int
    root: Path

    def items(self, split: Split) -> list[Item]:
        """Annotated images of a split."""
        ...


_DATASETS: dict[str, Callable[[str | Path], SegmentationData]] = {
    "synthetic_vessels": SyntheticVessels,
    "drive": Drive,
    "folder": Folder,
}

DATASET_NAMES: tuple[str, ...] = tuple(_DATASETS)
"""Names that :func:`open_dataset` knows."""


def open_dataset(dataset_name: str, dataset_dir: str | Path | None = None) -> SegmentationData:
    """Open a data set by name and check its layout.

    Args:
        dataset_name: one of :data:`DATASET_NAMES`.
        dataset_dir: its folder (or list file); only ``synthetic_vessels`` has a default, in the user's cache.

    Raises:
        ConfigError: for an unknown name or a missing folder argument.
        DataError: if the folder does not hold that data set.
    """
    if dataset_name not in _DATASETS:
        raise unknown_choice("dataset_name", dataset_name, _DATASETS)
    if not dataset_dir:
        if dataset_name != SyntheticVessels.name:
            raise ConfigError(f"{dataset_name} needs its folder", hint="give --dataset_dir")
        dataset_dir = _cache() / SyntheticVessels.name
    return _DATASETS[dataset_name](dataset_dir)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "topolora_monai"
