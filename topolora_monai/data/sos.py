"""SOS: Deep-SAR Oil Spill."""

from __future__ import annotations

from pathlib import Path

from topolora_monai.data.benchmark import Benchmark, Facts, Splits, hold_out
from topolora_monai.data.items import Item
from topolora_monai.data.layout import Part, find_folder, pairs, unwrap

__all__ = ["Sos"]

_SENSORS = {"all": ("palsar", "sentinel"), "palsar": ("palsar",), "sentinel": ("sentinel",)}


class Sos(Benchmark):
    """8070 SAR patches of oil spills, 256x256: ALOS PALSAR (3101/776) and Sentinel-1A (3354/839).

    Layout: ``{train,test}/{palsar,sentinel}/images/N_sat.jpg`` and ``.../masks/N_mask.png``; also with both in one
    folder, or in ``sat`` and ``gt``. Some masks were resampled by the owners: all are cut at 127. Some are blank.

    Split schemes choose the sensor: ``all``, ``palsar``, ``sentinel``. Every tenth training image is held out for
    validation.

    Classes: background, oil. Terms: scientific purposes. Cite: Zhu et al., "Oil Spill Contextual and
    Boundary-Supervised Detection Network Based on Marine SAR Images", IEEE TGRS 60, 2022. Arguments: see
    :class:`~topolora_monai.data.Benchmark`.
    """

    name = "sos"
    facts = Facts(
        title="SOS",
        size="256x256",
        classes=("background", "oil"),
        counts={"all": (5809, 646, 1615), "palsar": (2790, 311, 776), "sentinel": (3018, 336, 839)},
        layout="train/ and test/, each with palsar/ and sentinel/, each with images/ and masks/",
        licence="scientific purposes",
        citation="Zhu et al., IEEE TGRS 60, 2022",
        homepage="https://github.com/CUG-URS/Deep-SAR-Oil-Spill-Dataset",
        access="fill in the owners' form, linked from github.com/CUG-URS/Deep-SAR-Oil-Spill-Dataset, and unpack",
        modality="sar",
        channels=1,
        label_values="cut",
        blank_is_legal=True,
    )

    def _list(self) -> Splits:
        root = unwrap(self.root, _has_a_sensor)
        if root is None:
            raise self._not_here()
        training, validation = hold_out(self._items(root, "train"), every=10)
        return {"training": training, "validation": validation, "test": self._items(root, "test")}

    def _items(self, root: Path, part: str) -> list[Item]:
        items = []
        for sensor in _SENSORS[self.split_scheme]:
            folder = find_folder(root, f"{part}/{sensor}")
            if folder is not None:
                images = find_folder(folder, "images", "sat") or folder
                labels = find_folder(folder, "masks", "gt") or folder
                items += pairs(images, _image_number, label=Part(labels, _mask_number))
        return items


def _has_a_sensor(folder: Path) -> bool:
    return any(find_folder(folder, f"train/{sensor}") for sensor in _SENSORS["all"])


def _image_number(stem: str) -> str | None:
    return stem.removesuffix("_sat") if stem.endswith("_sat") else None


def _mask_number(stem: str) -> str | None:
    return next((stem.removesuffix(end) for end in ("_mask", "_gt") if stem.endswith(end)), None)
