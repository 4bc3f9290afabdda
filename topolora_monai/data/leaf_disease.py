"""Leaf disease segmentation."""

from __future__ import annotations

import csv
from pathlib import Path

from topolora_monai.data.benchmark import Benchmark, Facts, Splits, hold_out
from topolora_monai.data.items import Item, Split
from topolora_monai.data.layout import Part, find_folder, pairs, unwrap
from topolora_monai.errors import DataError

__all__ = ["LeafDisease"]

_LISTS: dict[Split, str] = {"training": "train.csv", "validation": "val.csv", "test": "test.csv"}


class LeafDisease(Benchmark):
    """588 photographs of leaves with masks of the diseased parts.

    Layouts: the archive that Conv-LoRA uses, with ``train.csv``, ``val.csv`` and ``test.csv`` (columns ``image`` and
    ``label``, paths relative to them); or ``images`` and ``masks`` of the Kaggle data set, of which every fifth image
    is for test and every tenth of the others for validation. Its augmented copies (``aug_data``) are passed over.

    Classes: background, diseased. Terms: see the data set's page. Cite: Fakhre Alam, "Leaf disease segmentation
    dataset", Kaggle, 2021. Arguments: see :class:`~topolora_monai.data.Benchmark`.
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

    def _list(self) -> Splits:
        listed = unwrap(self.root, lambda folder: (folder / _LISTS["training"]).is_file())
        if listed is not None:
            return {split: _read(listed / name) for split, name in _LISTS.items()}
        root = unwrap(
            self.root,
            lambda folder: folder.name != "aug_data" and find_folder(folder, "masks", "data/masks") is not None,
        )
        images, labels = (find_folder(root, kind, f"data/{kind}") if root else None for kind in ("images", "masks"))
        if images is None or labels is None:
            raise self._not_here()
        items = pairs(images, label=Part(labels, str))
        rest, test = hold_out(items, every=5)
        training, validation = hold_out(rest, every=10)
        return {"training": training, "validation": validation, "test": test}


def _read(path: Path) -> list[Item]:
    if not path.is_file():
        raise DataError("list of a split is missing", path=path, expected=", ".join(_LISTS.values()))
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if rows and not {"image", "label"} <= rows[0].keys():
        raise DataError("list lacks a column", path=path, expected="image, label", found=", ".join(rows[0]))
    return [
        Item(name=Path(row["image"]).stem, image=str(path.parent / row["image"]), label=str(path.parent / row["label"]))
        for row in rows
    ]
