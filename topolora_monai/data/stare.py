"""STARE: Structured Analysis of the Retina."""

from __future__ import annotations

from topolora_monai.data.benchmark import Benchmark, Facts, Splits, hold_out
from topolora_monai.data.download import Archive
from topolora_monai.data.fields_of_view import with_computed_fov
from topolora_monai.data.layout import Part, find_folder, pairs
from topolora_monai.errors import ConfigError

__all__ = ["Stare"]

_ADDRESS = "http://cecas.clemson.edu/~ahoover/stare/probing"
_FOLDERS = {"ah": ("labels-ah", "labels_ah"), "vk": ("labels-vk", "labels_vk")}


class Stare(Benchmark):
    """20 fundus photographs, 700x605, ten of them with pathology, traced by two annotators (AH and VK).

    Layout: ``stare-images`` (or ``images``), ``labels-ah`` and ``labels-vk`` with ``imNNNN.ppm.gz`` and
    ``imNNNN.ah.ppm.gz``, zipped or not. No field of view is published: it is computed from the image.

    Split schemes: ``10/10`` trains on the first ten images, two of them held out for validation, as most of the
    literature does (Maninis et al., 2016); ``leave-one-out`` tests on image number ``fold`` (0 to 19). Where VK's
    masks are there too, items carry the other annotator's as ``second_label``.

    Classes: background, vessel. Terms: no explicit licence. Cite: Hoover et al., "Locating blood vessels in
    retinal images by piecewise threshold probing of a matched filter response", IEEE TMI 19(3), 2000. Arguments:
    see :class:`~topolora_monai.data.Benchmark`.
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
        archives=(
            Archive(
                "stare-images.tar",
                creates="stare-images",
                into="stare-images",
                url=f"{_ADDRESS}/stare-images.tar",
                sha256="5f7b509b6067cad4f1be84933145d783de9ec087b3eaaf4db0103dd0144dd433",
            ),
            Archive(
                "labels-ah.tar",
                creates="labels-ah",
                into="labels-ah",
                url=f"{_ADDRESS}/labels-ah.tar",
                sha256="ebf2f1e17ca955f24579d9edd990e2dae79a5c82def69f0985d8e24f826ddd2f",
            ),
            Archive(
                "labels-vk.tar",
                creates="labels-vk",
                into="labels-vk",
                url=f"{_ADDRESS}/labels-vk.tar",
                sha256="47474a701536b0cfdb369fdce012be36141e9f44d80387f0179446b5cb0f5576",
            ),
        ),
    )
    numbers = (
        *("im0001", "im0002", "im0003", "im0004", "im0005", "im0044", "im0077", "im0081", "im0082", "im0139"),
        *("im0162", "im0163", "im0235", "im0236", "im0239", "im0240", "im0255", "im0291", "im0319", "im0324"),
    )

    def _list(self) -> Splits:
        images = find_folder(self.root, "stare-images", "images")
        labels = find_folder(self.root, *_FOLDERS[self.annotator])
        if images is None or labels is None:
            raise self._not_here()
        other = find_folder(self.root, *_FOLDERS["vk" if self.annotator == "ah" else "ah"])
        second = Part(other, _number, "second annotation") if other else None
        items = with_computed_fov(pairs(images, _number, label=Part(labels, _number), second_label=second))
        training = [item for item in items if not self._in_test(item["name"])]
        test = [item for item in items if self._in_test(item["name"])]
        training, validation = hold_out(training, every=5)
        return {"training": training, "validation": validation, "test": test}

    def _in_test(self, name: str) -> bool:
        if self.split_scheme == "10/10":
            return name in self.numbers[10:]
        if not 0 <= self.fold < len(self.numbers):
            raise ConfigError("fold of leave-one-out is out of range", expected="0 to 19", found=self.fold)
        return name == self.numbers[self.fold]


def _number(stem: str) -> str | None:
    """im0001 from im0001, im0001.ah and im0001.vk; other files are passed over."""
    number = stem.split(".", maxsplit=1)[0]
    return number if number in Stare.numbers else None
