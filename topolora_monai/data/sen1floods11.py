"""Sen1Floods11: surface water in Sentinel-1 images of floods."""

from __future__ import annotations

import re

from topolora_monai.data.benchmark import Benchmark, Facts, Splits
from topolora_monai.data.items import Split
from topolora_monai.data.layout import Part, find_folder, pairs
from topolora_monai.data.split_lists import split_list
from topolora_monai.io import UNLABELLED

__all__ = ["Sen1Floods11"]

_HAND = ("", "HandLabeled/", "data/flood_events/HandLabeled/", "v1.1/data/flood_events/HandLabeled/")
_LISTS: dict[Split, str] = {"training": "train", "validation": "valid", "test": "test"}
_NAME = re.compile(r"(.+_\d+)_(?:S1Hand|LabelHand|S1|QC)")


class Sen1Floods11(Benchmark):
    """446 hand-labelled chips of 512x512 at 10 m, VV and VH in dB, from eleven floods.

    Layout: ``S1Hand/REGION_ID_S1Hand.tif`` and ``LabelHand/REGION_ID_LabelHand.tif``, in the root or below
    ``v1.1/data/flood_events/HandLabeled``. Labels are -1 (not labelled, left out of loss and scores), 0 and 1.

    Split schemes: ``official`` (252/89/90); ``bolivia`` tests on the 15 chips of the region that the official split
    holds out.

    Classes: dry, water. Terms: see the owners' page. Cite: Bonafilia et al., "Sen1Floods11: a georeferenced dataset
    to train and test deep learning flood algorithms for Sentinel-1", CVPR Workshops 2020. Arguments: see
    :class:`~topolora_monai.data.Benchmark`.
    """

    name = "sen1floods11"
    facts = Facts(
        title="Sen1Floods11",
        size="512x512",
        classes=("dry", "water"),
        counts={"official": (252, 89, 90), "bolivia": (252, 89, 15)},
        layout="S1Hand/ and LabelHand/",
        licence="see github.com/cloudtostreet/Sen1Floods11",
        citation="Bonafilia et al., CVPR Workshops 2020, pp. 210-211",
        homepage="https://github.com/cloudtostreet/Sen1Floods11",
        access="copy gs://sen1floods11/v1.1/data/flood_events/HandLabeled/{S1Hand,LabelHand} (gsutil, no account)",
        modality="sar",
        blank_is_legal=True,
        channels=2,
        pixel_values="db",
        label_values={-1: UNLABELLED, 0: 0, 1: 1},
    )

    def _list(self) -> Splits:
        images = find_folder(self.root, *(f"{above}S1Hand" for above in _HAND))
        labels = find_folder(self.root, *(f"{above}LabelHand" for above in _HAND))
        if images is None or labels is None:
            raise self._not_here()
        items = pairs(images, _chip, label=Part(labels, _chip, "label"))
        return {split: [item for item in items if _chip(item["name"]) in self._chips(split)] for split in _LISTS}

    def _chips(self, split: Split) -> frozenset[str]:
        name = "bolivia" if split == "test" and self.split_scheme == "bolivia" else _LISTS[split]
        return split_list(f"sen1floods11_{name}")


def _chip(stem: str) -> str | None:
    """Ghana_103272 from Ghana_103272_S1Hand and Ghana_103272_LabelHand."""
    match = _NAME.fullmatch(stem)
    return match[1] if match else None
