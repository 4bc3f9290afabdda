"""Kvasir-SEG: polyps in colonoscopy."""

from __future__ import annotations

from pathlib import Path

from topolora_monai.data.benchmark import Benchmark, Facts, Splits, hold_out
from topolora_monai.data.download import Archive
from topolora_monai.data.items import Item, Split
from topolora_monai.data.layout import Part, find_folder, pairs, unwrap
from topolora_monai.data.split_lists import split_list
from topolora_monai.errors import ConfigError

__all__ = ["KvasirSeg"]

_DIVIDED: dict[Split, tuple[str, ...]] = {
    "training": ("train", "training"),
    "validation": ("validation", "val"),
    "test": ("test",),
}
_TEST_LISTS = {
    "900/100": "kvasir_seg_pranet_test",
    "880/120": "kvasir_seg_official_validation",
    "800/100/100": "kvasir_seg_effisegnet_test",
}


class KvasirSeg(Benchmark):
    """1000 colonoscopy images with polyp masks, 332x487 to 1920x1072.

    Official layout: ``images`` and ``masks`` with equal names; masks are JPEG, cut at 127. Also taken: the copy
    that is resized to 352x352 and divided into ``train``, ``validation`` and ``test``, each with ``images`` and
    ``masks``; it has the split 800/100/100 alone.

    Split schemes: ``900/100`` (PraNet), ``880/120`` (the owners'), ``800/100/100`` (EffiSegNet). The first two have
    no validation images: every tenth one of training is held out. The first two tests share nine images: never mix
    them.

    Classes: background, polyp. Terms: research and education; commercial use needs the owners' permission. Cite: Jha
    et al., "Kvasir-SEG: A Segmented Polyp Dataset", MMM 2020. Arguments: see
    :class:`~topolora_monai.data.Benchmark`.
    """

    name = "kvasir_seg"
    facts = Facts(
        title="Kvasir-SEG",
        size="332x487 to 1920x1072",
        classes=("background", "polyp"),
        counts={"900/100": (810, 90, 100), "880/120": (792, 88, 120), "800/100/100": (800, 100, 100)},
        layout="images/ and masks/, or train/, validation/ and test/ of the 352x352 copy",
        licence="research and education",
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

    def _list(self) -> Splits:
        divided = unwrap(self.root, lambda folder: find_folder(folder, "train/images", "training/images") is not None)
        if divided is not None:
            self._require_divided_scheme()
            self.split_scheme = "800/100/100"
            parts = {split: self._items(divided, names) for split, names in _DIVIDED.items()}
            for split, items in parts.items():
                for item in items:  # each part is numbered from 0
                    item["name"] = f"{split}_{item['name']}"
            return parts
        root = unwrap(self.root, lambda folder: find_folder(folder, "images") is not None)
        if root is None:
            raise self._not_here()
        items = self._items(root, (".",))
        test = split_list(_TEST_LISTS[self.split_scheme])
        training = [item for item in items if item["name"] not in test]
        if self.split_scheme == "800/100/100":
            held = split_list("kvasir_seg_effisegnet_validation")
            validation = [item for item in training if item["name"] in held]
            training = [item for item in training if item["name"] not in held]
        else:
            training, validation = hold_out(training, every=10)
        return {
            "training": training,
            "validation": validation,
            "test": [item for item in items if item["name"] in test],
        }

    def _require_divided_scheme(self) -> None:
        if self._asked_scheme not in (None, "800/100/100"):
            raise ConfigError(
                "this copy of Kvasir-SEG is divided already",
                path=self.root,
                expected="split_scheme 800/100/100, or none",
                found=self._asked_scheme,
                hint="take the official copy for other splits",
            )

    @staticmethod
    def _items(root: Path, parts: tuple[str, ...]) -> list[Item]:
        """Pairs of the one part that is there; none where a divided copy lacks it."""
        images, masks = (find_folder(root, *(_below(part, kind) for part in parts)) for kind in ("images", "masks"))
        if images is None or masks is None:
            return []
        return pairs(images, label=Part(masks, str))


def _below(part: str, kind: str) -> str:
    return kind if part == "." else f"{part}/{kind}"
