"""Vessels in photographs of the retina."""

import re
from functools import partial
from pathlib import Path

from topolora_monai.data.benchmark import Benchmark, Facts, Files, Parts, Where
from topolora_monai.data.download import Archive
from topolora_monai.data.items import Item, Split
from topolora_monai.errors import ConfigError


def _number(stem: str) -> str:
    """21 from 21_training, 21_manual1 and 21_training_mask."""
    return stem.split("_", maxsplit=1)[0]


class Drive(Benchmark):
    """40 fundus photographs with vessel masks and fields of view; 20 for training, 20 for test.

    Every fifth training image is held out for validation; the owners publish no validation split. Where there is a
    second annotation of the test images, items carry it as ``second_label``.
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
    parts = Parts(("training",), test=("test",))
    files = Files(
        image=Where(("{}/images",), _number),
        label=Where(("{}/1st_manual", "{}/manual1"), _number),
        fov=Where(("{}/mask",), _number),
        second_label=Where(("{}/2nd_manual", "{}/manual2"), _number),
    )
    held_out = 5


def _stare_number(stem: str) -> str | None:
    """im0001 from im0001, im0001.ah and im0001.vk; other files are passed over."""
    number = stem.split(".", maxsplit=1)[0]
    return number if number in Stare.numbers else None


class Stare(Benchmark):
    """20 fundus photographs, ten of them with pathology, traced by two annotators (AH and VK).

    Files are ``imNNNN.ppm.gz`` and ``imNNNN.ah.ppm.gz``, zipped or not. No field of view is published: it is computed
    from the image. Where the other annotator's masks are there too, items carry them as ``second_label``.

    Split schemes: ``10/10`` trains on the first ten images, two of them held out for validation, as most of the
    literature does (Maninis et al., 2016); ``leave-one-out`` tests on image number ``fold`` (0 to 19).
    """

    name = "stare"
    facts = Facts(
        title="STARE",
        size="700x605",
        classes=("background", "vessel"),
        counts={"10/10": (8, 2, 10), "leave-one-out": (15, 4, 1)},
        layout="stare-images/ (or images/) and labels-ah/ or labels-vk/",
        licence="none stated; publicly available for research",
        citation="Hoover, Kouznetsova, Goldbaum, IEEE TMI 19(3):203-210, 2000",
        homepage="https://cecas.clemson.edu/~ahoover/stare",
        access="run `topolora data download stare`, or unpack stare-images.tar, labels-ah.tar and labels-vk.tar",
        annotators=("ah", "vk"),
        archives=tuple(
            Archive(f"{name}.tar", name, f"http://cecas.clemson.edu/~ahoover/stare/probing/{name}.tar", sha256, name)
            for name, sha256 in (
                ("stare-images", "5f7b509b6067cad4f1be84933145d783de9ec087b3eaaf4db0103dd0144dd433"),
                ("labels-ah", "ebf2f1e17ca955f24579d9edd990e2dae79a5c82def69f0985d8e24f826ddd2f"),
                ("labels-vk", "47474a701536b0cfdb369fdce012be36141e9f44d80387f0179446b5cb0f5576"),
            )
        ),
    )
    files = Files(
        image=Where(("stare-images", "images"), _stare_number),
        label=Where(("labels-ah", "labels_ah"), _stare_number),
        second_label=Where(("labels-vk", "labels_vk"), _stare_number),
    )
    held_out = 5
    computes_fov = True
    numbers = (
        *("im0001", "im0002", "im0003", "im0004", "im0005", "im0044", "im0077", "im0081", "im0082", "im0139"),
        *("im0162", "im0163", "im0235", "im0236", "im0239", "im0240", "im0255", "im0291", "im0319", "im0324"),
    )

    def _split_of(self, item: Item) -> Split:
        if not 0 <= self.fold < len(self.numbers):
            raise ConfigError("fold of leave-one-out is out of range", expected="0 to 19", found=self.fold)
        tested = self.numbers[10:] if self.split_scheme == "10/10" else (self.numbers[self.fold],)
        return "test" if item["name"] in tested else "training"


def _chase_key(stem: str, suffix: str = "") -> str | None:
    """image_01l from a stem with just that suffix."""
    match = re.fullmatch(r"(image_\d{2}[lr])(_1stho|_2ndho)?", stem.lower())
    return match[1] if match and (match[2] or "") == suffix else None


class ChaseDb1(Benchmark):
    """28 fundus photographs of both eyes of 14 children, traced by two observers.

    No field of view is published: it is computed from the image. The other observer's masks are ``second_label``.

    Split schemes, each keeping a child on one side: ``8/20`` trains on the first eight images (Galdran et al.,
    Little W-Net), ``20/8`` on the first twenty, ``8/20-last`` on the last eight and tests on the first twenty
    (Maninis et al.). The eyes of every fourth or fifth child of training are held out for validation.
    """

    name = "chase_db1"
    facts = Facts(
        title="CHASE_DB1",
        size="999x960",
        classes=("background", "vessel"),
        counts={"8/20": (6, 2, 20), "20/8": (16, 4, 8), "8/20-last": (6, 2, 20)},
        layout="Image_01L.jpg, Image_01L_1stHO.png, Image_01L_2ndHO.png, ... in one folder",
        licence="CC BY 4.0",
        citation="Fraz et al., IEEE TBME 59(9):2538-2548, 2012",
        homepage="https://researchdata.kingston.ac.uk/96",
        access="get CHASEDB1.zip in a browser from researchdata.kingston.ac.uk/96 and put it in a folder",
        annotators=("first", "second"),
        archives=(Archive("CHASEDB1.zip", creates="CHASEDB1", into="CHASEDB1"),),
    )
    files = Files(
        image=Where(("",), _chase_key),
        label=Where(("",), partial(_chase_key, suffix="_1stho")),
        second_label=Where(("",), partial(_chase_key, suffix="_2ndho")),
    )
    held_out = 5
    computes_fov = True

    def _items(self, root: Path, part: str) -> list[Item]:
        return [Item(**item, group=self._together(item)) for item in super()._items(root, part)]

    def _together(self, item: Item) -> str:
        return item["name"][len("Image_") :][:2]  # the child

    def _split_of(self, item: Item) -> Split:
        child = int(self._together(item))
        tested = {"8/20": child > 4, "20/8": child > 10, "8/20-last": child < 11}[self.split_scheme]
        return "test" if tested else "training"


def _hrf_name(stem: str) -> str:
    """07_dr from 07_dr and 07_dr_mask, in images of upper and lower-case suffix."""
    return stem.lower().removesuffix("_mask")


class Hrf(Benchmark):
    """45 fundus photographs: 15 healthy, 15 with diabetic retinopathy, 15 with glaucoma.

    Files are ``images/NN_{h,dr,g}.jpg``, ``manual1/NN_h.tif`` and ``mask/NN_h_mask.tif``. The owners publish no split;
    as in the literature (Orlando et al., 2017) numbers 1 to 5 of each group train, the others test. Number 1 of each
    group is held out for validation.
    """

    name = "hrf"
    facts = Facts(
        title="HRF",
        size="3504x2336",
        classes=("background", "vessel"),
        counts={"15/30": (12, 3, 30)},
        layout="images/, manual1/ and mask/",
        licence="CC BY 4.0",
        citation="Budai et al., Int. J. Biomedical Imaging, 2013, doi 10.1155/2013/154860",
        homepage="https://www5.cs.fau.de/research/data/fundus-images",
        access="run `topolora data download hrf`, or unpack all.zip from www5.cs.fau.de/research/data/fundus-images",
        archives=(
            Archive(
                "all.zip",
                creates="images",
                url="https://www5.cs.fau.de/fileadmin/research/datasets/fundus-images/all.zip",
                sha256="a914d02cda161b7f33f25d0397c276d50e9a6cbc705e9b364a54f0adafed57e4",
            ),
        ),
    )
    files = Files(
        image=Where(("images",), _hrf_name), label=Where(("manual1",), _hrf_name), fov=Where(("mask",), _hrf_name)
    )
    held_out = 5

    def _together(self, item: Item) -> str:
        return _number(item["name"])

    def _split_of(self, item: Item) -> Split:
        number = _number(item["name"])
        return "training" if number.isdigit() and int(number) <= 5 else "test"  # too many of other names are refused
