"""Things in photographs of every day, and in those from the air."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from topolora_monai.data.benchmark import Benchmark, Facts, Files, Parts, Splits, Where, hold_out
from topolora_monai.data.download import Archive
from topolora_monai.data.items import Item, Split
from topolora_monai.data.layout import unwrap
from topolora_monai.errors import DataError


class Camo(Benchmark):
    """1250 photographs of camouflaged animals and people, official split 1000/250.

    Files are ``Images/{Train,Test}/camourflage_NNNNN.jpg`` (sic) and ``GT/camourflage_NNNNN.png``, masks in one folder
    or in ``GT/{Train,Test}``. Every tenth training image is held out for validation.
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
    parts = Parts(("Train",), test=("Test",))
    files = Files(Where(("Images/{}",)), Where(("GT/{}", "GT")))


class SbuShadow(Benchmark):
    """4723 photographs with shadow masks, official split 4085/638.

    Files are ``ShadowImages/NAME.jpg`` and ``ShadowMasks/NAME.png``. Every tenth training image is held out for
    validation.
    """

    name = "sbu_shadow"
    facts = Facts(
        title="SBU shadow",
        size="various",
        classes=("background", "shadow"),
        counts={"official": (3676, 409, 638)},
        layout="SBUTrain4KRecoveredSmall/ and SBU-Test/, each with ShadowImages/ and ShadowMasks/",
        licence="non-commercial research, no redistribution",
        citation="Vicente, Hou, Yu, Hoai, Samaras, ECCV 2016",
        homepage="https://www3.cs.stonybrook.edu/~cvl/projects/shadow_noisy_label/index.html",
        access="get SBU-shadow.zip from www3.cs.stonybrook.edu/~cvl/projects/shadow_noisy_label and put it in a folder",
        archives=(Archive("SBU-shadow.zip", creates="SBU-shadow"),),
    )
    parts = Parts(("SBUTrain4KRecoveredSmall",), test=("SBU-Test",))
    files = Files(Where(("{}/ShadowImages",)), Where(("{}/ShadowMasks",)))


class Trans10k(Benchmark):
    """10428 photographs of transparent things and stuff (version 1), official split 5000/1000/4428.

    Files are ``images/X.jpg`` and ``masks/X_mask.png``. Masks are coloured by class: black background, red things (such
    as cups), white stuff (such as windows). Split schemes ``all``, ``easy`` and ``hard`` choose the validation and test
    images; of the last two the counts are not published with the data, so they are not checked.
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
    files = Files(
        image=Where(("{}/images",)),
        label=Where(("{}/masks",), lambda stem: stem.removesuffix("_mask") if stem.endswith("_mask") else None),
    )
    held_out = 0

    def _parts(self) -> Parts:
        levels = ("easy", "hard") if self.split_scheme == "all" else (self.split_scheme,)
        validation, test = ([f"{part}/{level}" for level in levels] for part in ("validation", "test"))
        return Parts(("train",), validation, test)


class LeafDisease(Benchmark):
    """588 photographs of leaves with masks of the diseased parts.

    Either the archive that Conv-LoRA uses, with lists of columns ``image`` and ``label``, paths relative to them; or
    the Kaggle data set, of which every fifth image is for test and every tenth of the others for validation. Its
    augmented copies (``aug_data``) are passed over.
    """

    name = "leaf_disease"
    facts = Facts(
        title="Leaf disease segmentation",
        size="various",
        classes=("background", "diseased"),
        counts={"every-fifth": (423, 47, 118)},
        layout="train.csv, val.csv and test.csv with the files they name, or images/ and masks/",
        licence="see the data set's page",
        citation="Fakhre Alam, Kaggle, 2021",
        homepage="https://www.kaggle.com/datasets/fakhrealam9537/leaf-disease-segmentation-dataset",
        access="get it with an account from kaggle.com/datasets/fakhrealam9537/leaf-disease-segmentation-dataset",
    )
    files = Files(Where(("images", "data/images")), Where(("masks", "data/masks")))
    _lists: Mapping[Split, str] = {"training": "train.csv", "validation": "val.csv", "test": "test.csv"}

    def _list(self) -> Splits:
        listed = unwrap(self.root, lambda folder: (folder / self._lists["training"]).is_file())
        if listed is not None:
            return {split: self._read(listed / name) for split, name in self._lists.items()}
        rest, test = hold_out(self._items(self._unwrapped(), ""), every=5)
        training, validation = hold_out(rest, every=10)
        return {"training": training, "validation": validation, "test": test}

    def _holds_training_images(self, root: Path) -> bool:
        return root.name != "aug_data" and super()._holds_training_images(root)

    def _read(self, path: Path) -> list[Item]:
        if not path.is_file():
            raise DataError("list of a split is missing", path=path, expected=", ".join(self._lists.values()))
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if rows and not {"image", "label"} <= rows[0].keys():
            raise DataError("list lacks a column", path=path, expected="image, label", found=", ".join(rows[0]))
        there = path.parent
        return [
            Item(name=Path(row["image"]).stem, image=str(there / row["image"]), label=str(there / row["label"]))
            for row in rows
        ]


class MassachusettsRoads(Benchmark):
    """1171 aerial images at 1 m with road masks, official split 1108/14/49.

    Either the owners' ``{train,valid,test}/{sat,map}`` or the Kaggle copy's ``{train,val,test}`` with
    ``{train,val,test}_labels``. Images are ``.tiff``, masks ``.tif``. Some training images are partly white, without
    data.
    """

    name = "massachusetts_roads"
    facts = Facts(
        title="Massachusetts Roads",
        size="1500x1500",
        classes=("background", "road"),
        counts={"official": (1108, 14, 49)},
        layout="train/, valid/ and test/, each with sat/ and map/",
        licence="none stated",
        citation="Mnih, PhD thesis, University of Toronto, 2013",
        homepage="https://www.cs.toronto.edu/~vmnih/data",
        access="get the single files listed on www.cs.toronto.edu/~vmnih/data into train/, valid/ and test/",
    )
    parts = Parts(("train",), ("valid", "val"), ("test",))
    files = Files(Where(("{}/sat", "{}")), Where(("{}/map", "{}_labels")))
    held_out = 0


class TopoMortar(Benchmark):
    """420 photographs of brick walls with masks of the mortar, official split 50/20/350.

    Files are ``images/NNN.png`` and masks of the same names. As ``annotator`` one chooses the kind of label that
    training and validation have, ``accurate``, ``noisy`` or ``pseudo``; those of the test are always accurate. Test
    images carry their ``group``: ``indistr`` looks like the training images, the six others do not, so report it apart.
    """

    name = "topomortar"
    facts = Facts(
        title="TopoMortar",
        size="512x512",
        classes=("background", "mortar"),
        counts={"official": (50, 20, 350)},
        layout="train/, val/ and test/, each with images/ and accurate/, the first two also with noisy/ and pseudo/",
        licence="MIT",
        citation="Valverde et al., 2025, arXiv 2503.03365",
        homepage="https://github.com/jmlipman/TopoMortar",
        access="get it by the link on github.com/jmlipman/TopoMortar and unpack it",
        annotators=("accurate", "noisy", "pseudo"),
    )
    parts = Parts(("train",), ("val",), ("test",))
    files = Files(Where(("{}/images",)), Where(("{}/accurate",)))
    held_out = 0
    groups = ("indistr", "angles", "colors", "graffiti", "objects", "shadows", "occlusion")
    """Of the test images, in order of their numbers, fifty each from 71 on."""

    def _items(self, root: Path, part: str) -> list[Item]:
        kind = self.annotator if part in ("train", "val") else "accurate"
        self.files = self.files._replace(label=Where((f"{{}}/{kind}",)))
        return super()._items(root, part)

    def _list(self) -> Splits:
        splits = super()._list()
        for item in splits["test"]:
            number = int(item["name"]) if item["name"].isdecimal() else 0
            if not 71 <= number <= 420:
                raise DataError(
                    "test image without a group", path=item["image"], expected="a number from 071 to 420 as its name"
                )
            item["group"] = self.groups[(number - 71) // 50]
        return splits
