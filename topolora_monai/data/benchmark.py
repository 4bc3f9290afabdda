"""What the public data sets have in common."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from PIL import Image
from torch.utils.data import Dataset

from topolora_monai.data.download import Archive, download_archives, unpack_archives
from topolora_monai.data.fields_of_view import with_computed_fov
from topolora_monai.data.items import SPLITS, Item, Split, image_files
from topolora_monai.data.layout import Key, Part, by_key, content, find_folder, pairs, unwrap
from topolora_monai.data.pictures import overlay
from topolora_monai.errors import DataError, unknown_choice
from topolora_monai.io import LabelValues
from topolora_monai.transforms import IntensityScaling, LoadItem
from topolora_monai.transforms.intensity import PixelValues

Modality = Literal["optical", "sar"]
Splits = dict[Split, list[Item]]

_WHAT = {"image": "image", "label": "mask", "fov": "field of view", "second_label": "second annotation"}


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
    archives: tuple[Archive, ...] = ()


class Parts(NamedTuple):
    """What the files of each split lie in; of training alone, the data set tells each image's split."""

    training: Sequence[str] = ("",)
    validation: Sequence[str] = ()
    test: Sequence[str] = ()


class Where(NamedTuple):
    """Folders that may hold a kind of file, ``{}`` standing for the part, and what of a stem its image shares."""

    folders: tuple[str, ...]
    key: Key = str


class Files(NamedTuple):
    """Where the files of an item are; all but ``second_label`` must be there."""

    image: Where
    label: Where
    fov: Where | None = None
    second_label: Where | None = None


class Benchmark(Dataset[dict[str, Any]]):
    """A public data set in its official layout and split; ``facts`` has its classes, terms and source.

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
    parts = Parts()
    files: Files
    held_out = 10
    """Every so manieth training image is for validation; 0 where the owners say which are."""
    computes_fov = False

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
        facts = self.facts
        self.root = Path(root).absolute()
        self.split = _choice("split", split, SPLITS)
        self._asked_scheme = split_scheme  # None lets a layout that implies a split choose it
        self.split_scheme = _choice("split_scheme", split_scheme or next(iter(facts.counts)), facts.counts)
        self.annotator = _choice("annotator", annotator or facts.annotators[0], facts.annotators)
        if self.annotator != facts.annotators[0] and self.files.second_label:
            self.files = self.files._replace(label=self.files.second_label, second_label=self.files.label)
        self.fold = fold
        self.transforms = transforms
        self.allow_partial = allow_partial
        self.partial: str | None = None
        self.channels, self.modality, self.classes = facts.channels, facts.modality, facts.classes
        self.pixel_values, self.label_values = facts.pixel_values, facts.label_values
        scaling = IntensityScaling(pixel_values=self.pixel_values)
        self._load = LoadItem(self.channels, scaling, label_values=self.label_values)
        self._splits = self._verify(download, checksum)

    def items(self, split: Split | None = None) -> list[Item]:
        """Annotated images of a split, by default the one the object was made for."""
        return list(self._splits[split or self.split])

    def describe(self) -> dict[str, Any]:
        """``dataset``, ``split_scheme``, ``annotator``, and ``fold`` and ``partial`` where they apply."""
        described = {"dataset": self.name, "split_scheme": self.split_scheme, "annotator": self.annotator}
        return described | {key: getattr(self, key) for key in ("fold", "partial") if getattr(self, key)}

    def __len__(self) -> int:
        return len(self._splits[self.split])

    def __getitem__(self, index: int) -> Any:
        sample = self._load(self._splits[self.split][index])
        return self.transforms(sample) if self.transforms else sample

    def plot(self, sample: Mapping[str, Any]) -> Image.Image:
        """Draw a sample: the image, with the outline of its mask and of what is not scored."""
        return overlay(sample["image"].numpy(), sample["label"].numpy()[0], sample["fov"].numpy()[0] > 0)

    def _parts(self) -> Parts:
        """``parts`` of the chosen scheme."""
        return self.parts

    def _split_of(self, item: Item) -> Split | None:
        """Where ``parts`` has training alone, what each item is for; None for nothing."""
        raise NotImplementedError

    def _together(self, item: Item) -> str:
        """What must not be divided between training and validation."""
        return item["name"]

    def _list(self) -> Splits:
        """Find every item of the chosen scheme; raise :meth:`_not_here` for a foreign layout."""
        root, parts = self._unwrapped(), self._parts()
        splits: Splits = {
            split: [item for part in names for item in self._items(root, part)]
            for split, names in zip(SPLITS, parts, strict=True)
        }
        if not parts.test:
            splits = {s: [item for item in splits["training"] if self._split_of(item) == s] for s in SPLITS}
        if self.held_out:
            splits["training"], splits["validation"] = hold_out(splits["training"], self.held_out, self._together)
        return splits

    def _unwrapped(self) -> Path:
        """The folder with training images, since archives unpack into one more."""
        root = unwrap(self.root, self._holds_training_images)
        if root is None:
            raise self._not_here()
        return root

    def _holds_training_images(self, root: Path) -> bool:
        folders = [_folder(root, self.files.image, part) for part in self._parts().training]
        return any(by_key(image_files(folder), self.files.image.key) for folder in folders if folder)

    def _items(self, root: Path, part: str) -> list[Item]:
        """Items of a part: none where it is not there, refused where only something of it is."""
        kinds = {kind: where for kind, where in self.files._asdict().items() if where is not None}
        found = {kind: _folder(root, where, part) for kind, where in kinds.items()}
        absent = [kind for kind, folder in found.items() if folder is None and kind != "second_label"]
        if absent and not (found["image"] or found["label"]):
            return []
        if absent:
            there = " and no ".join(kinds[kind].folders[0].format(part) for kind in absent)
            raise self._not_here(found=f"no {there} in {root}")
        items = pairs(**{kind: Part(at, kinds[kind].key, _WHAT[kind]) for kind, at in found.items() if at is not None})
        return with_computed_fov(items) if self.computes_fov else items

    def _verify(self, download: bool, checksum: bool) -> Splits:
        if download:
            download_archives(self.facts.archives, self.root, self.facts.access)
        if not self.root.is_dir():
            raise DataError("data folder not found", path=self.root, hint=self._advice())
        unpack_archives(self.facts.archives, self.root, checksum)
        splits = self._list()
        published = self.facts.counts[self.split_scheme]
        found = {split: len(splits[split]) for split in SPLITS}
        if published == tuple(found.values()) or (published is None and all(found.values())):
            return splits
        return self._accept_part(splits, found, published or (0, 0, 0))

    def _accept_part(self, splits: Splits, found: Mapping[Split, int], published: tuple[int, int, int]) -> Splits:
        expected = dict(zip(SPLITS, published, strict=True))
        if sum(found.values()) > sum(published) or not any(found.values()):
            raise self._not_here(f"{sum(published)} images", f"{sum(found.values())}")
        if not self.allow_partial:
            raise DataError(
                f"{self.facts.title} is incomplete",
                path=self.root,
                expected=_counted(expected),
                found=_counted(found),
                hint="complete it, or accept a part by --allow_partial, in training --data#allow_partial true",
            )
        self.partial = f"{sum(found.values())} of {sum(published)} images"
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
    items: Sequence[Item], every: int, group: Callable[[Item], str] = lambda item: item["name"]
) -> tuple[list[Item], list[Item]]:
    """Training and validation items: the first of every so many groups, such as the eyes of a patient, is held out."""
    held = set(list(dict.fromkeys(map(group, items)))[::every])
    return [item for item in items if group(item) not in held], [item for item in items if group(item) in held]


@cache
def split_list(name: str) -> frozenset[str]:
    """Stems of a published list of which image belongs to which split; sources in ``splits/README.md``.

    Example:
        >>> len(split_list("kvasir_seg_pranet_test"))
        100
    """
    text = (files("topolora_monai.data") / "splits" / f"{name}.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


def _folder(root: Path, where: Where, part: str) -> Path | None:
    return find_folder(root, *(name.format(part) for name in where.folders))


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
