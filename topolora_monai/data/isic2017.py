"""ISIC 2017: skin lesions in dermoscopy."""

from __future__ import annotations

import re

from topolora_monai.data.benchmark import Benchmark, Facts, Splits
from topolora_monai.data.download import Archive
from topolora_monai.data.items import Split
from topolora_monai.data.layout import Part, find_folder, pairs

__all__ = ["Isic2017"]

_PARTS: dict[Split, str] = {"training": "Training", "validation": "Validation", "test": "Test_v2"}
_NAME = re.compile(r"(ISIC_\d{7})(_segmentation)?", re.IGNORECASE)


class Isic2017(Benchmark):
    """2750 dermoscopic images with lesion masks, official split 2000/150/600.

    Layout: ``ISIC-2017_{Training,Validation,Test_v2}_Data`` with ``ISIC_NNNNNNN.jpg`` and
    ``ISIC-2017_{Training,Validation,Test_v2}_Part1_GroundTruth`` with ``ISIC_NNNNNNN_segmentation.png``, zipped or
    not; superpixels are passed over.

    Classes: background, lesion. Terms: see the owners' page. Cite: Codella et al., "Skin lesion analysis toward
    melanoma detection", ISBI 2018, arXiv 1710.05006. Arguments: see :class:`~topolora_monai.data.Benchmark`.
    """

    name = "isic2017"
    facts = Facts(
        title="ISIC 2017",
        size="540x576 to 6748x4499",
        classes=("background", "lesion"),
        counts={"official": (2000, 150, 600)},
        layout="ISIC-2017_{Training,Validation,Test_v2}_Data/ and ..._Part1_GroundTruth/",
        licence="see challenge.isic-archive.com/data",
        citation="Codella et al., ISBI 2018, arXiv 1710.05006",
        homepage="https://challenge.isic-archive.com/data/#2017",
        access="get the six archives of task 1 from challenge.isic-archive.com/data/#2017 and put them in one folder",
        archives=tuple(
            Archive(f"ISIC-2017_{part}_{kind}.zip", creates=f"ISIC-2017_{part}_{kind}")
            for part in _PARTS.values()
            for kind in ("Data", "Part1_GroundTruth")
        ),
    )

    def _list(self) -> Splits:
        splits: Splits = {"training": [], "validation": [], "test": []}
        for split, part in _PARTS.items():
            images = find_folder(self.root, f"ISIC-2017_{part}_Data")
            labels = find_folder(self.root, f"ISIC-2017_{part}_Part1_GroundTruth")
            if images is not None and labels is not None:
                splits[split] = pairs(images, _image, label=Part(labels, _mask))
        if not any(splits.values()):
            raise self._not_here()
        return splits


def _image(stem: str) -> str | None:
    match = _NAME.fullmatch(stem)
    return match[1].upper() if match and not match[2] else None


def _mask(stem: str) -> str | None:
    match = _NAME.fullmatch(stem)
    return match[1].upper() if match and match[2] else None
