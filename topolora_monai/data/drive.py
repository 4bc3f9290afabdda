"""DRIVE: Digital Retinal Images for Vessel Extraction."""

from __future__ import annotations

from pathlib import Path

from topolora_monai.data.items import Item, Split, image_files, list_folder, plain_stem, require_unique
from topolora_monai.errors import DataError

__all__ = ["Drive"]

VALIDATION_IDS = ("21", "26", "31", "36")
"""Every fifth training image is held out for validation; the owners publish no validation split."""


class Drive:
    """40 fundus photographs, 565x584, with vessel masks and fields of view; 20 for training, 20 for test.

    Official layout, as unpacked from the owners' archive::

        <root>/training/{images,1st_manual,mask}
        <root>/test/{images,1st_manual,2nd_manual,mask}

    Classes: background, vessel. Terms: research use, no redistribution. Cite: Staal et al., "Ridge-based
    vessel segmentation in color images of the retina", IEEE TMI 23(4), 2004. Access:
    https://drive.grand-challenge.org.

    Args:
        root: folder that holds ``training`` and ``test``.

    Raises:
        DataError: if the folder is missing or has another layout.
    """

    name = "drive"
    channels = 3

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()
        if not self.root.is_dir():
            raise DataError("data folder not found", path=self.root, hint=self._advice())
        absent = [part for part in ("training/images", "test/images") if not (self.root / part).is_dir()]
        if absent:
            present = sorted(path.name for path in self.root.iterdir())
            raise DataError(
                "this is not DRIVE's layout",
                path=self.root,
                expected="training/ and test/, each with images/, 1st_manual/ and mask/",
                found=", ".join(present[:5]) + (", ..." if len(present) > 5 else "") if present else "an empty folder",
                hint=self._advice(),
            )

    def items(self, split: Split) -> list[Item]:
        """Annotated images of a split, in order of number; validation is held out of training.

        Raises:
            DataError: if an image lacks a mask, or has two.
        """
        part = self.root / ("test" if split == "test" else "training")
        items = []
        for image in list_folder(part / "images", "images"):
            number = plain_stem(image).split("_")[0]
            if split != "test" and (number in VALIDATION_IDS) != (split == "validation"):
                continue
            items.append(self._item(part, number, image))
        return items

    def _item(self, part: Path, number: str, image: Path) -> Item:
        images = [path for path in image_files(part / "images") if plain_stem(path).split("_")[0] == number]
        require_unique(images, number, part / "images", "image")
        item = Item(name=plain_stem(image), image=str(image))
        item["label"] = str(self._one(part / "1st_manual", number, "mask"))
        item["fov"] = str(self._one(part / "mask", number, "field of view"))
        if (part / "2nd_manual").is_dir():
            item["second_label"] = str(self._one(part / "2nd_manual", number, "second annotation"))
        return item

    @staticmethod
    def _one(folder: Path, number: str, what: str) -> Path:
        files = image_files(folder) if folder.is_dir() else []
        return require_unique([p for p in files if plain_stem(p).split("_")[0] == number], number, folder, what)

    @staticmethod
    def _advice() -> str:
        return "unpack DRIVE from drive.grand-challenge.org and give its folder as --dataset_dir"
