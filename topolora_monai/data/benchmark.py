"""What the public data sets have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from PIL import Image
from torch.utils.data import Dataset

from topolora_monai.data.download import Archive, download_archives, unpack_archives
from topolora_monai.data.items import SPLITS, Item, Split
from topolora_monai.data.layout import content
from topolora_monai.data.pictures import overlay
from topolora_monai.errors import DataError, unknown_choice
from topolora_monai.io import LabelValues
from topolora_monai.transforms import IntensityScaling, LoadItem
from topolora_monai.transforms.intensity import PixelValues

__all__ = ["Benchmark", "Facts", "Modality", "Splits", "hold_out"]

Modality = Literal["optical", "sar"]
Splits = dict[Split, list[Item]]


@dataclass(frozen=True)
class Facts:
    """What is known about a data set before it is opened."""

    title: str
    size: str
    """Width x height of the images."""
    classes: tuple[str, ...]
    counts: Mapping[str, tuple[int, int, int] | None]
    """Images for training, validation and test in each split scheme, None where nobody has published them; the first
    scheme is the default."""
    layout: str
    """How the root looks, for a person who has to put it there."""
    licence: str
    citation: str
    homepage: str
    access: str
    """What to do to get it."""
    modality: Modality = "optical"
    channels: int = 3
    pixel_values: PixelValues = "linear"
    label_values: LabelValues | None = None
    annotators: tuple[str, ...] = ("first",)
    blank_is_legal: bool = False
    """Whether images without data and masks of one class belong to it."""
    archives: tuple[Archive, ...] = field(default=())


class Benchmark(Dataset[dict[str, Any]], ABC):
    """A public data set in its official layout and split.

    Args:
        root: folder of the data set.
        split: ``"training"``, ``"validation"`` or ``"test"``: what iteration gives.
        transforms: called with each loaded sample.
        download: fetch what is missing, where the owners let anyone.
        checksum: verify archives that lie in ``root`` before they are unpacked.
        split_scheme: one of ``facts.counts``; None for the first.
        annotator: one of ``facts.annotators``, whose masks are the truth; None for the first.
        fold: of a scheme that has several.
        allow_partial: accept a part of the data set; ``partial`` then says how much there is.

    Raises:
        ConfigError: for an unknown split, scheme or annotator.
        DataError: if the data set is not there, has another layout, is incomplete, or a mask is missing.
    """

    name: ClassVar[str]
    facts: ClassVar[Facts]

    def __init__(
        self,
        root: str | Path,
        split: Split = "training",
        transforms: Callable[[dict[str, Any]], Any] | None = None,
        download: bool = False,
        checksum: bool = False,
        *,
        split_scheme: str | None = None,
        annotator: str | None = None,
        fold: int = 0,
        allow_partial: bool = False,
    ) -> None:
        self.root = Path(root).absolute()
        self.split = _choice("split", split, SPLITS)
        self._asked_scheme = split_scheme  # None lets a layout that implies a split choose it
        self.split_scheme = _choice("split_scheme", split_scheme or next(iter(self.facts.counts)), self.facts.counts)
        self.annotator = _choice("annotator", annotator or self.facts.annotators[0], self.facts.annotators)
        self.fold = fold
        self.transforms = transforms
        self.allow_partial = allow_partial
        self.partial: str | None = None
        self._load = LoadItem(
            self.channels, IntensityScaling(pixel_values=self.pixel_values), label_values=self.label_values
        )
        self._splits = self._verify(download, checksum)

    @property
    def channels(self) -> int:
        """Channels of its images."""
        return self.facts.channels

    @property
    def modality(self) -> Modality:
        """What made the images."""
        return self.facts.modality

    @property
    def pixel_values(self) -> PixelValues:
        """Unit of the values of rasters."""
        return self.facts.pixel_values

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in order of their numbers."""
        return self.facts.classes

    @property
    def label_values(self) -> LabelValues | None:
        """Class number of each value in a mask, where it is not evident."""
        return self.facts.label_values

    def items(self, split: Split | None = None) -> list[Item]:
        """Annotated images of a split, by default the one the object was made for."""
        return list(self._splits[split or self.split])

    def describe(self) -> dict[str, Any]:
        """``dataset``, ``split_scheme``, ``annotator``, and ``fold`` and ``partial`` where they apply."""
        optional = {"fold": self.fold or None, "partial": self.partial}
        described = {"dataset": self.name, "split_scheme": self.split_scheme, "annotator": self.annotator}
        return described | {key: value for key, value in optional.items() if value is not None}

    def __len__(self) -> int:
        return len(self._splits[self.split])

    def __getitem__(self, index: int) -> Any:
        sample = self._load(self._splits[self.split][index])
        return self.transforms(sample) if self.transforms else sample

    def plot(self, sample: Mapping[str, Any]) -> Image.Image:
        """Draw a sample: the image, with the outline of its mask and of what is not scored."""
        return overlay(sample["image"].numpy(), sample["label"].numpy()[0], sample["fov"].numpy()[0] > 0)

    @abstractmethod
    def _list(self) -> Splits:
        """Find every item of the chosen scheme; raise :meth:`_not_here` for a foreign layout."""

    def _verify(self, download: bool, checksum: bool) -> Splits:
        if download:
            download_archives(self.facts.archives, self.root, self.facts.access)
        if not self.root.is_dir():
            raise DataError("data folder not found", path=self.root, hint=self._advice())
        if self.facts.archives:
            unpack_archives(self.facts.archives, self.root, checksum)
        splits = self._list()
        published = self.facts.counts[self.split_scheme]
        found = {split: len(splits[split]) for split in SPLITS}
        if published == tuple(found.values()) or (published is None and all(found.values())):
            return splits
        return self._accept_part(splits, found, published or (0, 0, 0))

    def _accept_part(self, splits: Splits, found: Mapping[Split, int], published: tuple[int, int, int]) -> Splits:
        expected = dict(zip(SPLITS, published, strict=True))
        if sum(found.values()) > sum(expected.values()) or not any(found.values()):
            raise self._not_here(f"{sum(expected.values())} images", f"{sum(found.values())}")
        if not self.allow_partial:
            raise DataError(
                f"{self.facts.title} is incomplete",
                path=self.root,
                expected=_counted(expected),
                found=_counted(found),
                hint="complete it, or accept a part by --allow_partial, in training --data#allow_partial true",
            )
        self.partial = f"{sum(found.values())} of {sum(expected.values())} images"
        if min(found.values()) == 0:
            splits = _divide(splits)
            self.partial += ", divided anew because a split was empty"
        return splits

    def _not_here(self, expected: str | None = None, found: str | None = None) -> DataError:
        """Error for a folder that does not hold this data set."""
        return DataError(
            f"this is not {self.facts.title}'s layout",
            path=self.root,
            expected=expected or self.facts.layout,
            found=found or content(self.root),
            hint=self._advice(),
        )

    def _advice(self) -> str:
        return f"{self.facts.access}; give the folder as --dataset_dir"


def hold_out(
    items: Sequence[Item], every: int, group: Callable[[Item], str] | None = None
) -> tuple[list[Item], list[Item]]:
    """Take the first of every so many out of training, for validation where the owners publish none.

    Args:
        items: in a fixed order.
        every: one in so many.
        group: what must stay together, such as the eyes of a patient; each item for itself by default.

    Returns:
        Training and validation items.
    """
    keys = [group(item) if group else item["name"] for item in items]
    held = set(list(dict.fromkeys(keys))[::every])
    training = [item for item, key in zip(items, keys, strict=True) if key not in held]
    return training, [item for item, key in zip(items, keys, strict=True) if key in held]


def _divide(splits: Splits) -> Splits:
    """Fill empty splits: everything is divided when nothing is for training, else every fourth of that is taken."""
    filled = dict(splits)
    if not filled["training"]:
        filled["training"] = sorted((item for items in splits.values() for item in items), key=lambda i: i["name"])
        filled["validation"] = filled["test"] = []
    for split in ("validation", "test"):
        if not filled[split]:
            filled["training"], filled[split] = hold_out(filled["training"], every=4)
    if not all(filled.values()):
        raise DataError(
            "too few images for training, validation and test",
            path=next(item["image"] for items in splits.values() for item in items),
            expected="at least 3",
            found=sum(len(items) for items in splits.values()),
        )
    return filled


def _counted(counts: Mapping[Split, int]) -> str:
    return ", ".join(f"{count} for {split}" for split, count in counts.items())


def _choice(setting: str, value: Any, known: Any) -> Any:
    if value not in known:
        raise unknown_choice(setting, value, [str(name) for name in known])
    return value
