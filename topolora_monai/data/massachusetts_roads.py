"""Massachusetts Roads: aerial images."""

from __future__ import annotations

from topolora_monai.data.benchmark import Benchmark, Facts, Splits
from topolora_monai.data.items import Split
from topolora_monai.data.layout import Part, find_folder, pairs, unwrap

__all__ = ["MassachusettsRoads"]

_SPLITS: dict[Split, tuple[str, ...]] = {"training": ("train",), "validation": ("valid", "val"), "test": ("test",)}


class MassachusettsRoads(Benchmark):
    """1171 aerial images of 1500x1500 at 1 m with road masks, official split 1108/14/49.

    Layouts: the owners' ``{train,valid,test}/{sat,map}`` and the Kaggle copy's ``{train,val,test}`` with
    ``{train,val,test}_labels``. Images are ``.tiff``, masks ``.tif``. Some training images are partly white, without
    data.

    Classes: background, road. Terms: none stated. Cite: Mnih, "Machine Learning for Aerial Image Labeling", PhD
    thesis, University of Toronto, 2013. Arguments: see :class:`~topolora_monai.data.Benchmark`.
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

    def _list(self) -> Splits:
        root = unwrap(self.root, lambda folder: find_folder(folder, "train/sat", "train_labels") is not None)
        if root is None:
            raise self._not_here()
        splits: Splits = {"training": [], "validation": [], "test": []}
        for split, names in _SPLITS.items():
            images = find_folder(root, *(f"{name}/sat" for name in names)) or find_folder(root, *names)
            labels = find_folder(root, *(f"{name}/map" for name in names), *(f"{name}_labels" for name in names))
            if images is not None and labels is not None:
                splits[split] = pairs(images, label=Part(labels, str))
        return splits
