"""SL-SSDD: sea and land in SAR images of ships."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from topolora_monai.data.benchmark import Benchmark, Facts, Splits, hold_out
from topolora_monai.data.items import Item, Split
from topolora_monai.data.layout import Part, find_folder, found_in, pairs
from topolora_monai.errors import DataError

__all__ = ["SlSsdd"]

_IMAGE_FOLDERS = (
    *("JPEGImages", "images", "SSDD/JPEGImages"),
    *(f"Official-SSDD-OPEN/{kind}/voc_style/JPEGImages" for kind in ("BBox_SSDD", "RBox_SSDD", "PSeg_SSDD")),
    "Official-SSDD-OPEN/BBox_RBox_PSeg_SSDD/voc_style/JPEGImages",
)
_PARTS: dict[str, tuple[str, ...]] = {
    "train": ("train", "SL-SSDD/train", "masks/train"),
    "test": ("test", "SL-SSDD/test", "masks/test"),
}
_SPLITS: dict[Split, str] = {"training": "train", "test": "test"}


class SlSsdd(Benchmark):
    """1160 SAR images of SSDD with masks of sea and land; official split 928/232.

    Masks (``train/NNNNNN.png``, ``test/NNNNNN.png``: 0 land, 255 sea) and images (``JPEGImages/NNNNNN.jpg`` of SSDD)
    come from two places and are joined by name: put both below one root. Every tenth training image is held out for
    validation.

    Classes: land, sea. Terms: none stated. Cite: Ke, 2025, for the masks; Zhang T. et al., "SAR Ship Detection
    Dataset (SSDD): Official Release and Comprehensive Data Analysis", Remote Sensing 13(18), 2021, for the images.
    Arguments: see :class:`~topolora_monai.data.Benchmark`.
    """

    name = "sl_ssdd"
    facts = Facts(
        title="SL-SSDD",
        size="about 190 to 670 pixels a side",
        classes=("land", "sea"),
        counts={"official": (835, 93, 232)},
        layout="train/ and test/ with the masks, and SSDD's JPEGImages/",
        licence="none stated",
        citation="Ke 2025 (masks); Zhang et al., Remote Sensing 13(18):3690, 2021 (images)",
        homepage="https://github.com/Han-Ke/SL-SSDD",
        access="get the masks from github.com/Han-Ke/SL-SSDD and the images from"
        " github.com/TianwenZhang0825/Official-SSDD, and put train/, test/ and JPEGImages/ in one folder",
        modality="sar",
        blank_is_legal=True,
        channels=1,
        label_values={0: 0, 255: 1},
    )

    def _list(self) -> Splits:
        masks = {part: find_folder(self.root, *names) for part, names in _PARTS.items()}
        if not any(masks.values()):
            raise self._not_here()
        images = find_folder(self.root, *_IMAGE_FOLDERS)
        if images is None:
            return self._masks_alone(masks)
        stems = {path.stem for path in found_in(images)}
        splits: Splits = {"training": [], "validation": [], "test": []}
        for split, part in _SPLITS.items():
            folder = masks[part]
            if folder is not None:
                named = {path.stem for path in found_in(folder)}
                self._require_images(named - stems, images)
                splits[split] = pairs(images, partial(_only, named), label=Part(folder, str))
        splits["training"], splits["validation"] = hold_out(splits["training"], every=10)
        return splits

    @staticmethod
    def _require_images(absent: set[str], images: Path) -> None:
        if absent:
            raise DataError(
                f"mask without image: {min(absent)}",
                path=images,
                expected="an image for each mask",
                found=f"none for {len(absent)} masks",
                hint="take the images of the same release",
            )

    def _masks_alone(self, folders: Mapping[str, Path | None]) -> Splits:
        """Items without image: enough to verify the masks, not to train."""
        if not self.allow_partial:
            raise DataError(
                "SL-SSDD's masks are here, SSDD's images are not",
                path=self.root,
                expected="JPEGImages/ with the images that the masks are named after",
                hint="get them from github.com/TianwenZhang0825/Official-SSDD; --allow_partial verifies masks",
            )
        self.partial = "masks alone"
        train, test = ([Item(name=path.stem, label=str(path)) for path in found_in(folders[part])] for part in _PARTS)
        training, validation = hold_out(train, every=10)
        return {"training": training, "validation": validation, "test": test}


def _only(named: set[str], stem: str) -> str | None:
    return stem if stem in named else None
