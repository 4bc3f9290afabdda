"""HRF: High-Resolution Fundus images."""

from __future__ import annotations

from topolora_monai.data.benchmark import Benchmark, Facts, Splits, hold_out
from topolora_monai.data.download import Archive
from topolora_monai.data.items import Item
from topolora_monai.data.layout import Part, find_folder, pairs, unwrap

__all__ = ["Hrf"]


class Hrf(Benchmark):
    """45 fundus photographs, 3504x2336: 15 healthy, 15 with diabetic retinopathy, 15 with glaucoma.

    Layout of ``all.zip``: ``images/NN_{h,dr,g}.jpg``, ``manual1/NN_h.tif``, ``mask/NN_h_mask.tif``. The owners
    publish no split; as in the literature (Orlando et al., 2017) numbers 1 to 5 of each group train, the others
    test. Number 1 of each group is held out for validation.

    Classes: background, vessel. Terms: CC BY 4.0. Cite: Budai et al., "Robust vessel segmentation in fundus
    images", Int. J. Biomedical Imaging, 2013. Arguments: see :class:`~topolora_monai.data.Benchmark`.
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

    def _list(self) -> Splits:
        root = unwrap(self.root, lambda folder: find_folder(folder, "manual1") is not None)
        images, labels, fovs = (
            (find_folder(root, name) for name in ("images", "manual1", "mask")) if root else (None, None, None)
        )
        if images is None or labels is None or fovs is None:
            raise self._not_here()
        items = pairs(images, _name, label=Part(labels, _name), fov=Part(fovs, _name, "field of view"))
        training = [item for item in items if _number(item) <= 5]
        test = [item for item in items if _number(item) > 5]
        training, validation = hold_out(training, every=5, group=lambda item: item["name"].split("_")[0])
        return {"training": training, "validation": validation, "test": test}


def _name(stem: str) -> str:
    """07_dr from 07_dr and 07_dr_mask, in images of upper and lower-case suffix."""
    return stem.lower().removesuffix("_mask")


def _number(item: Item) -> int:
    """7 from 07_dr; names of another kind count as test images, which the count then refuses."""
    number = item["name"].split("_")[0]
    return int(number) if number.isdigit() else 99
