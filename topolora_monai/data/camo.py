"""CAMO: camouflaged objects."""

from __future__ import annotations

from pathlib import Path

from topolora_monai.data.benchmark import Benchmark, Facts, Splits, hold_out
from topolora_monai.data.items import Item
from topolora_monai.data.layout import Part, find_folder, pairs, unwrap

__all__ = ["Camo"]


class Camo(Benchmark):
    """1250 photographs of camouflaged animals and people, official split 1000/250.

    Layout: ``CAMO-V.1.0-CVIU2019/Images/{Train,Test}/camourflage_NNNNN.jpg`` (sic) and ``GT/camourflage_NNNNN.png``,
    masks in one folder or in ``GT/{Train,Test}``. Every tenth training image is held out for validation.

    Classes: background, camouflaged object. Terms: academic use. Cite: Le et al., "Anabranch Network for Camouflaged
    Object Segmentation", CVIU 184, 2019. Arguments: see :class:`~topolora_monai.data.Benchmark`.
    """

    name = "camo"
    facts = Facts(
        title="CAMO",
        size="various",
        classes=("background", "camouflaged object"),
        counts={"official": (900, 100, 250)},
        layout="Images/Train/, Images/Test/ and GT/",
        licence="academic use",
        citation="Le, Nguyen, Nie, Tran, Sugimoto, CVIU 184:45-56, 2019",
        homepage="https://sites.google.com/view/ltnghia/research/camo",
        access="get CAMO-V.1.0-CVIU2019 by the link on sites.google.com/view/ltnghia/research/camo and unpack it",
    )

    def _list(self) -> Splits:
        root = unwrap(self.root, lambda folder: find_folder(folder, "Images/Train") is not None)
        if root is None:
            raise self._not_here()
        training, validation = hold_out(self._items(root, "Train"), every=10)
        return {"training": training, "validation": validation, "test": self._items(root, "Test")}

    def _items(self, root: Path, part: str) -> list[Item]:
        images = find_folder(root, f"Images/{part}")
        labels = find_folder(root, f"GT/{part}") or find_folder(root, "GT")
        if images is None or labels is None:
            raise self._not_here(found=f"no GT/ or no Images/{part}/")
        return pairs(images, label=Part(labels, str))
