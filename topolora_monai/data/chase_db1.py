"""CHASE_DB1: Child Heart and Health Study in England."""

from __future__ import annotations

import re
from functools import partial

from topolora_monai.data.benchmark import Benchmark, Facts, Splits, hold_out
from topolora_monai.data.download import Archive
from topolora_monai.data.fields_of_view import with_computed_fov
from topolora_monai.data.items import Item
from topolora_monai.data.layout import Part, found_in, pairs, unwrap

__all__ = ["ChaseDb1"]

_NAME = re.compile(r"(Image_\d{2}[LR])(_1stHO|_2ndHO)?", re.IGNORECASE)


class ChaseDb1(Benchmark):
    """28 fundus photographs, 999x960, of both eyes of 14 children, traced by two observers.

    Layout: ``Image_NNL.jpg``, ``Image_NNL_1stHO.png`` and ``Image_NNL_2ndHO.png`` in one folder. No field of view
    is published: it is computed from the image.

    Split schemes, each keeping a child on one side: ``8/20`` trains on the first eight images (Galdran et al.,
    Little W-Net), ``20/8`` on the first twenty, ``8/20-last`` on the last eight and tests on the first twenty
    (Maninis et al.). The eyes of every fourth or fifth child of training are held out for validation. The other
    observer's masks are ``second_label``.

    Classes: background, vessel. Terms: CC BY 4.0. Cite: Fraz et al., "An ensemble classification-based approach
    applied to retinal blood vessel segmentation", IEEE TBME 59(9), 2012. Arguments: see
    :class:`~topolora_monai.data.Benchmark`.
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

    def _list(self) -> Splits:
        root = unwrap(self.root, lambda folder: any(_key(path.stem) for path in found_in(folder)))
        if root is None:
            raise self._not_here()
        first, second = (Part(root, partial(_key, suffix=suffix)) for suffix in ("_1stHO", "_2ndHO"))
        if self.annotator == "second":
            first, second = second, first
        items = with_computed_fov(pairs(root, _key, label=first, second_label=second))
        for item in items:
            item["group"] = _child(item)
        training = [item for item in items if self._in_training(item)]
        test = [item for item in items if not self._in_training(item)]
        training, validation = hold_out(training, every=5, group=_child)
        return {"training": training, "validation": validation, "test": test}

    def _in_training(self, item: Item) -> bool:
        child = int(_child(item))
        return {"8/20": child <= 4, "20/8": child <= 10, "8/20-last": child >= 11}[self.split_scheme]


def _key(stem: str, suffix: str = "") -> str | None:
    """Image_01L from a stem with just that suffix."""
    match = _NAME.fullmatch(stem)
    if match is None or (match[2] or "").lower() != suffix.lower():
        return None
    return match[1].lower()


def _child(item: Item) -> str:
    return item["name"][len("Image_") :][:2]
