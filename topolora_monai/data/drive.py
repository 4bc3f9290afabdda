"""DRIVE: Digital Retinal Images for Vessel Extraction."""

from __future__ import annotations

from pathlib import Path

from topolora_monai.data.benchmark import Benchmark, Facts, Splits, hold_out
from topolora_monai.data.download import Archive
from topolora_monai.data.items import Item
from topolora_monai.data.layout import Part, find_folder, pairs, unwrap

__all__ = ["Drive"]


class Drive(Benchmark):
    """40 fundus photographs, 565x584, with vessel masks and fields of view; 20 for training, 20 for test.

    Official layout: ``training/{images,1st_manual,mask}`` and ``test/{images,1st_manual,2nd_manual,mask}``. Every
    fifth training image is held out for validation; the owners publish no validation split. Where there is a
    second annotation of the test images, items carry it as ``second_label``.

    Classes: background, vessel. Terms: research use, no redistribution. Cite: Staal et al., "Ridge-based vessel
    segmentation in color images of the retina", IEEE TMI 23(4), 2004. Arguments: see
    :class:`~topolora_monai.data.Benchmark`.
    """

    name = "drive"
    facts = Facts(
        title="DRIVE",
        size="565x584",
        classes=("background", "vessel"),
        counts={"official": (16, 4, 20)},
        layout="training/ and test/, each with images/, 1st_manual/ and mask/",
        licence="research use, no redistribution",
        citation="Staal et al., IEEE TMI 23(4):501-509, 2004",
        homepage="https://drive.grand-challenge.org",
        access="with an account, get training.zip and test.zip from drive.grand-challenge.org into one folder",
        archives=(Archive("training.zip", creates="training"), Archive("test.zip", creates="test")),
    )

    def _list(self) -> Splits:
        root = unwrap(self.root, lambda folder: find_folder(folder, "training/images") is not None)
        if root is None or find_folder(root, "test/images") is None:
            raise self._not_here()
        training, validation = hold_out(self._items(root, "training"), every=5)
        return {"training": training, "validation": validation, "test": self._items(root, "test")}

    def _items(self, root: Path, part: str) -> list[Item]:
        images = find_folder(root, f"{part}/images")
        labels = find_folder(root, f"{part}/1st_manual", f"{part}/manual1")
        fovs = find_folder(root, f"{part}/mask")
        second = find_folder(root, f"{part}/2nd_manual", f"{part}/manual2")
        if images is None or labels is None or fovs is None:
            raise self._not_here(found=f"{part}/ without images/, 1st_manual/ or mask/")
        return pairs(
            images,
            _number,
            label=Part(labels, _number),
            fov=Part(fovs, _number, "field of view"),
            second_label=Part(second, _number, "second annotation") if second else None,
        )


def _number(stem: str) -> str:
    """21 from 21_training, 21_manual1 and 21_training_mask."""
    return stem.split("_", maxsplit=1)[0]
