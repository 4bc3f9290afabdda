"""Polyps in colonoscopy and lesions of the skin."""

import re
from functools import partial

from topolora_monai.data.benchmark import Benchmark, Facts, Files, Parts, Splits, Where, split_list
from topolora_monai.data.download import Archive
from topolora_monai.data.items import Item, Split
from topolora_monai.data.layout import unwrap
from topolora_monai.errors import ConfigError


class KvasirSeg(Benchmark):
    """1000 colonoscopy images with polyp masks.

    Masks are JPEG, cut at 127. Also taken: the copy that is resized to 352x352 and divided already; it has the split
    800/100/100 alone.

    Split schemes: ``900/100`` (PraNet), ``880/120`` (the owners'), ``800/100/100`` (EffiSegNet). The first two have
    no validation images: every tenth one of training is held out. The first two tests share nine images: never mix
    them.
    """

    name = "kvasir_seg"
    facts = Facts(
        title="Kvasir-SEG",
        size="332x487 to 1920x1072",
        classes=("background", "polyp"),
        counts={"900/100": (810, 90, 100), "880/120": (792, 88, 120), "800/100/100": (800, 100, 100)},
        layout="images/ and masks/, or train/, validation/ and test/ of the 352x352 copy",
        licence="research and education; commercial use needs the owners' permission",
        citation="Jha et al., MMM 2020, pp. 451-462",
        homepage="https://datasets.simula.no/kvasir-seg",
        access="run `topolora data download kvasir_seg`, or unpack kvasir-seg.zip from datasets.simula.no/kvasir-seg",
        archives=(
            Archive(
                "kvasir-seg.zip",
                creates="Kvasir-SEG",
                url="https://datasets.simula.no/downloads/kvasir-seg.zip",
                sha256="03b30e21d584e04facf49397a2576738fd626815771afbbf788f74a7153478f7",
            ),
        ),
    )
    files = Files(Where(("{}/images",)), Where(("{}/masks",)))
    _divided = Parts(("train", "training"), ("validation", "val"), ("test",))

    def _list(self) -> Splits:
        self.parts = self._divided
        if unwrap(self.root, self._holds_training_images) is None:
            self.parts = Parts()
            self.held_out = 0 if self.split_scheme == "800/100/100" else self.held_out
            return super()._list()
        if self._asked_scheme not in (None, "800/100/100"):
            raise ConfigError(
                "this copy of Kvasir-SEG is divided already",
                path=self.root,
                expected="split_scheme 800/100/100, or none",
                found=self._asked_scheme,
                hint="take the official copy for other splits",
            )
        self.split_scheme, self.held_out = "800/100/100", 0
        splits = super()._list()
        for split, items in splits.items():
            for item in items:  # each part is numbered from 0
                item["name"] = f"{split}_{item['name']}"
        return splits

    def _split_of(self, item: Item) -> Split:
        lists: dict[str, dict[Split, str]] = {
            "900/100": {"test": "pranet_test"},
            "880/120": {"test": "official_validation"},
            "800/100/100": {"test": "effisegnet_test", "validation": "effisegnet_validation"},
        }
        listed = lists[self.split_scheme].items()
        return next((s for s, name in listed if item["name"] in split_list(f"kvasir_seg_{name}")), "training")


class CvcClinicDb(Benchmark):
    """612 frames of colonoscopy videos with polyp masks, also known as CVC-612.

    Files are ``Original/N.tif`` and ``Ground Truth/N.tif`` with N from 1 to 612; PNG copies are taken, too. The owners
    publish no split; ``550/62`` is PraNet's, with every tenth training image held out for validation. Frames of one
    video fall on both sides of it.
    """

    name = "cvc_clinicdb"
    facts = Facts(
        title="CVC-ClinicDB",
        size="384x288",
        classes=("background", "polyp"),
        counts={"550/62": (495, 55, 62)},
        layout="Original/ and Ground Truth/",
        licence="research use, citation required",
        citation="Bernal et al., Comput. Med. Imaging Graph. 43:99-111, 2015",
        homepage="https://polyp.grand-challenge.org/CVCClinicDB",
        access="get CVC-ClinicDB.rar by the link on polyp.grand-challenge.org/CVCClinicDB and unpack it",
        archives=(Archive("CVC-ClinicDB.rar", creates="Original"), Archive("CVC-ClinicDB.zip", creates="Original")),
    )
    files = Files(Where(("Original",)), Where(("Ground Truth", "GroundTruth", "Ground_Truth")))

    def _split_of(self, item: Item) -> Split:
        return "test" if item["name"] in split_list("cvc_clinicdb_pranet_test") else "training"


def _isic_key(stem: str, suffix: str = "") -> str | None:
    match = re.fullmatch(rf"(isic_\d{{7}}){suffix}", stem.lower())
    return match[1] if match else None


class Isic2017(Benchmark):
    """2750 dermoscopic images with lesion masks, official split 2000/150/600.

    Files are ``ISIC_NNNNNNN.jpg`` and ``ISIC_NNNNNNN_segmentation.png``, zipped or not; superpixels are passed over.
    """

    name = "isic2017"
    parts = Parts(("Training",), ("Validation",), ("Test_v2",))
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
            Archive(f"ISIC-2017_{part}.zip", creates=f"ISIC-2017_{part}")
            for part in (
                *("Training_Data", "Training_Part1_GroundTruth", "Validation_Data", "Validation_Part1_GroundTruth"),
                *("Test_v2_Data", "Test_v2_Part1_GroundTruth"),
            )
        ),
    )
    files = Files(
        image=Where(("ISIC-2017_{}_Data",), _isic_key),
        label=Where(("ISIC-2017_{}_Part1_GroundTruth",), partial(_isic_key, suffix="_segmentation")),
    )
    held_out = 0
