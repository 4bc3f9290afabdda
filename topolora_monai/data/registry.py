"""Data sets by name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Protocol

from topolora_monai.data.benchmark import Benchmark, Modality
from topolora_monai.data.folder import Folder
from topolora_monai.data.fundus import ChaseDb1, Drive, Hrf, Stare
from topolora_monai.data.items import Item, Split
from topolora_monai.data.lesions import CvcClinicDb, Isic2017, KvasirSeg
from topolora_monai.data.photographs import Camo, LeafDisease, MassachusettsRoads, SbuShadow, TopoMortar, Trans10k
from topolora_monai.data.radar import Sen1Floods11, SlSsdd, Sos
from topolora_monai.data.synthetic_vessels import SyntheticVessels
from topolora_monai.errors import ConfigError, unknown_choice
from topolora_monai.io import LabelValues
from topolora_monai.io.places import in_cache
from topolora_monai.parsing import parse_bool
from topolora_monai.transforms.intensity import PixelValues


class SegmentationData(Protocol):
    """What every data set offers."""

    name: str
    root: Path

    @property
    def channels(self) -> int:
        """Channels of its images."""

    @property
    def modality(self) -> Modality:
        """What made the images."""

    @property
    def pixel_values(self) -> PixelValues:
        """Unit of the values of rasters and volumes."""

    @property
    def label_values(self) -> LabelValues | None:
        """Class number of each value in a mask, where it is not evident."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in order of their numbers."""

    def items(self, split: Split) -> list[Item]:
        """Annotated images of a split."""

    def describe(self) -> dict[str, Any]:
        """What a result has to say about its data: ``dataset`` and, where they apply, split and what is missing."""


BENCHMARKS: dict[str, type[Benchmark]] = {
    benchmark.name: benchmark
    for benchmark in (
        *(Drive, Stare, ChaseDb1, Hrf),
        *(KvasirSeg, CvcClinicDb, Isic2017),
        *(SlSsdd, Sos, Sen1Floods11),
        *(Camo, SbuShadow, LeafDisease, MassachusettsRoads, TopoMortar, Trans10k),
    )
}
"""Public data sets by name."""

_DATASETS: dict[str, type[Any]] = {SyntheticVessels.name: SyntheticVessels, Folder.name: Folder, **BENCHMARKS}

DATASET_NAMES: tuple[str, ...] = tuple(_DATASETS)
"""Names that :func:`open_dataset` knows."""


def open_dataset(dataset_name: str, dataset_dir: str | Path | None = None, **options: Any) -> SegmentationData:
    """Open a data set by name and check its layout.

    Args:
        dataset_name: one of :data:`DATASET_NAMES`.
        dataset_dir: its folder (or list file); only ``synthetic_vessels`` has a default, in the user's cache.
        **options: further arguments of the data set's class; those that are None are left at their defaults.

    Raises:
        ConfigError: for an unknown name or option, or a missing folder argument.
        DataError: if the folder does not hold that data set.
    """
    if dataset_name not in _DATASETS:
        raise unknown_choice("dataset_name", dataset_name, _DATASETS)
    kind = _DATASETS[dataset_name]
    given = {name: value for name, value in options.items() if value is not None}
    if "allow_partial" in given:
        given["allow_partial"] = parse_bool(given["allow_partial"])
    for name in given.keys() - inspect.signature(kind).parameters.keys():
        hint = f"leave {name} out for this data set"
        raise ConfigError(f"{dataset_name} has no {name}", found=repr(given[name]), hint=hint)
    if dataset_dir:
        opened: SegmentationData = kind(dataset_dir, **given)
        return opened
    if kind is not SyntheticVessels:
        raise ConfigError(f"{dataset_name} needs its folder", hint="give --dataset_dir")
    return in_cache(lambda folder: SyntheticVessels(folder, **given), SyntheticVessels.name)
