"""Trans10K: transparent objects."""

from __future__ import annotations

from pathlib import Path

from topolora_monai.data.benchmark import Benchmark, Facts, Splits
from topolora_monai.data.items import Item, Split
from topolora_monai.data.layout import Part, find_folder, pairs, unwrap

__all__ = ["Trans10k"]

_LEVELS = {"all": ("easy", "hard"), "easy": ("easy",), "hard": ("hard",)}
_SPLITS: dict[Split, str] = {"training": "train", "validation": "validation", "test": "test"}


class Trans10k(Benchmark):
    """10428 photographs of transparent things and stuff (version 1), official split 5000/1000/4428.

    Layout: ``train/{images,masks}`` and ``{validation,test}/{easy,hard}/{images,masks}`` with ``X.jpg`` and
    ``X_mask.png``. Masks are coloured by class: black background, red things (such as cups), white stuff (such as
    windows). Split schemes ``all``, ``easy`` and ``hard`` choose the validation and test images; of the last two the
    counts are not published with the data, so they are not checked.

    Classes: background, things, stuff. Terms: non-commercial research. Cite: Xie et al., "Segmenting Transparent
    Objects in the Wild", ECCV 2020. Arguments: see :class:`~topolora_monai.data.Benchmark`.
    """

    name = "trans10k"
    facts = Facts(
        title="Trans10K",
        size="various",
        classes=("background", "things", "stuff"),
        counts={"all": (5000, 1000, 4428), "easy": None, "hard": None},
        layout="train/images, train/masks, and validation/ and test/, each with easy/ and hard/",
        licence="non-commercial research",
        citation="Xie et al., ECCV 2020",
        homepage="https://xieenze.github.io/projects/TransLAB/TransLAB.html",
        access="get Trans10K by the link on xieenze.github.io/projects/TransLAB and unpack it",
        label_values={0x000000: 0, 0xFF0000: 1, 0xFFFFFF: 2},
    )

    def _list(self) -> Splits:
        root = unwrap(self.root, lambda folder: find_folder(folder, "train/images") is not None)
        if root is None:
            raise self._not_here()
        return {split: self._items(root, part) for split, part in _SPLITS.items()}

    def _items(self, root: Path, part: str) -> list[Item]:
        levels = ("",) if part == "train" else _LEVELS[self.split_scheme]
        items: list[Item] = []
        for level in levels:
            below = f"{part}/{level}" if level else part
            images, labels = (find_folder(root, f"{below}/{kind}") for kind in ("images", "masks"))
            if images is not None and labels is not None:
                items += pairs(images, label=Part(labels, _without_mask))
        return items


def _without_mask(stem: str) -> str | None:
    return stem.removesuffix("_mask") if stem.endswith("_mask") else None
