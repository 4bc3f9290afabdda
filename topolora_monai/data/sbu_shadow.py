"""SBU: cast shadows."""

from __future__ import annotations

from pathlib import Path

from topolora_monai.data.benchmark import Benchmark, Facts, Splits, hold_out
from topolora_monai.data.download import Archive
from topolora_monai.data.items import Item
from topolora_monai.data.layout import Part, find_folder, pairs, unwrap

__all__ = ["SbuShadow"]


class SbuShadow(Benchmark):
    """4723 photographs with shadow masks, official split 4085/638.

    Layout: ``SBUTrain4KRecoveredSmall`` and ``SBU-Test``, each with ``ShadowImages/NAME.jpg`` and
    ``ShadowMasks/NAME.png``. Every tenth training image is held out for validation.

    Classes: background, shadow. Terms: non-commercial research, no redistribution. Cite: Vicente et al.,
    "Large-scale training of shadow detectors with noisily-annotated shadow examples", ECCV 2016. Arguments: see
    :class:`~topolora_monai.data.Benchmark`.
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

    def _list(self) -> Splits:
        root = unwrap(self.root, lambda folder: find_folder(folder, "SBUTrain4KRecoveredSmall") is not None)
        if root is None:
            raise self._not_here()
        training, validation = hold_out(self._items(root, "SBUTrain4KRecoveredSmall"), every=10)
        return {"training": training, "validation": validation, "test": self._items(root, "SBU-Test")}

    def _items(self, root: Path, part: str) -> list[Item]:
        images, labels = (find_folder(root, f"{part}/{kind}") for kind in ("ShadowImages", "ShadowMasks"))
        if images is None or labels is None:
            raise self._not_here(found=f"{part}/ without ShadowImages/ or ShadowMasks/")
        return pairs(images, label=Part(labels, str))
