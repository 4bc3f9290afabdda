"""Sea, oil and floods in radar images."""

import re
from functools import partial

from topolora_monai.data.benchmark import Benchmark, Facts, Files, Parts, Splits, Where, hold_out, split_list
from topolora_monai.data.items import SPLITS, Item, Split, image_files
from topolora_monai.data.layout import Part, find_folder, pairs
from topolora_monai.errors import DataError
from topolora_monai.io import UNLABELLED

_radar_facts = partial(Facts, modality="sar", blank_is_legal=True)


class SlSsdd(Benchmark):
    """1160 SAR images of SSDD with masks of sea and land; official split 928/232.

    Masks (``train/NNNNNN.png``, ``test/NNNNNN.png``: 0 land, 255 sea) and images (``JPEGImages/NNNNNN.jpg`` of SSDD)
    come from two places and are joined by name: put both below one root. Every tenth training image is held out for
    validation.
    """

    name = "sl_ssdd"
    facts = _radar_facts(
        title="SL-SSDD",
        size="about 190 to 670 pixels a side",
        classes=("land", "sea"),
        counts={"official": (835, 93, 232)},
        layout="train/ and test/ with the masks, and SSDD's JPEGImages/",
        licence="none stated",
        citation="Ke 2025 (masks); Zhang et al., Remote Sensing 13(18):3690, 2021 (images)",
        homepage="https://github.com/Han-Ke/SL-SSDD",
        access="get the masks from github.com/Han-Ke/SL-SSDD and the images from"
        " github.com/TianwenZhang0825/Official-SSDD, and put train/, test/ and JPEGImages/ in one folder",
        channels=1,
        label_values={0: 0, 255: 1},
    )
    _images = (
        *("JPEGImages", "images", "SSDD/JPEGImages"),
        *(f"Official-SSDD-OPEN/{kind}/voc_style/JPEGImages" for kind in ("BBox_SSDD", "RBox_SSDD", "PSeg_SSDD")),
        "Official-SSDD-OPEN/BBox_RBox_PSeg_SSDD/voc_style/JPEGImages",
    )

    def _list(self) -> Splits:
        names: dict[Split, str] = {"training": "train", "test": "test"}
        masks = {s: find_folder(self.root, at, f"SL-SSDD/{at}", f"masks/{at}") for s, at in names.items()}
        if not any(masks.values()):
            raise self._not_here()
        images = find_folder(self.root, *self._images)
        splits: Splits = {split: [] for split in SPLITS}
        for split, folder in masks.items():
            if folder and images:
                named = {path.stem for path in image_files(folder)}
                absent = named - {path.stem for path in image_files(images)}
                if absent:
                    raise DataError(
                        f"mask without image: {min(absent)}",
                        path=images,
                        expected="an image for each mask",
                        found=f"none for {len(absent)} masks",
                        hint="take the images of the same release",
                    )
                splits[split] = pairs(Part(images, {name: name for name in named}.get), label=Part(folder))
            elif folder:  # enough to verify masks, not to train
                splits[split] = [Item(name=path.stem, label=str(path)) for path in image_files(folder)]
        if not images and not self.allow_partial:
            raise DataError(
                "SL-SSDD's masks are here, SSDD's images are not",
                path=self.root,
                expected="JPEGImages/ with the images that the masks are named after",
                hint="get them from github.com/TianwenZhang0825/Official-SSDD; --allow_partial verifies masks",
            )
        self.partial = None if images else "masks alone"
        splits["training"], splits["validation"] = hold_out(splits["training"], every=10)
        return splits


class Sos(Benchmark):
    """8070 SAR patches of oil spills: ALOS PALSAR (3101/776) and Sentinel-1A (3354/839).

    Files are ``images/N_sat.jpg`` and ``masks/N_mask.png``; also with both in one folder, or in ``sat`` and ``gt``.
    Some masks were resampled by the owners: all are cut at 127. Some are blank.

    Split schemes choose the sensor: ``all``, ``palsar``, ``sentinel``. Every tenth training image is held out for
    validation.
    """

    name = "sos"
    facts = _radar_facts(
        title="SOS",
        size="256x256",
        classes=("background", "oil"),
        counts={"all": (5809, 646, 1615), "palsar": (2790, 311, 776), "sentinel": (3018, 336, 839)},
        layout="train/ and test/, each with palsar/ and sentinel/, each with images/ and masks/",
        licence="scientific purposes",
        citation="Zhu et al., IEEE TGRS 60, 2022",
        homepage="https://github.com/CUG-URS/Deep-SAR-Oil-Spill-Dataset",
        access="fill in the owners' form, linked from github.com/CUG-URS/Deep-SAR-Oil-Spill-Dataset, and unpack",
        channels=1,
        label_values="cut",
    )
    files = Files(
        image=Where(("{}/images", "{}/sat", "{}"), lambda stem: stem[:-4] if stem.endswith("_sat") else None),
        label=Where(
            ("{}/masks", "{}/gt", "{}"),
            lambda stem: next((stem.removesuffix(end) for end in ("_mask", "_gt") if stem.endswith(end)), None),
        ),
    )

    def _parts(self) -> Parts:
        sensors = ("palsar", "sentinel") if self.split_scheme == "all" else (self.split_scheme,)
        return Parts([f"train/{sensor}" for sensor in sensors], test=[f"test/{sensor}" for sensor in sensors])


def _chip(stem: str) -> str | None:
    """Ghana_103272 from Ghana_103272_S1Hand and Ghana_103272_LabelHand."""
    match = re.fullmatch(r"(.+_\d+)_(?:S1Hand|LabelHand|S1|QC)", stem)
    return match[1] if match else None


class Sen1Floods11(Benchmark):
    """446 hand-labelled chips at 10 m, VV and VH in dB, from eleven floods.

    Files are ``S1Hand/REGION_ID_S1Hand.tif`` and ``LabelHand/REGION_ID_LabelHand.tif``, in the root or below
    ``v1.1/data/flood_events/HandLabeled``. Labels are -1 (not labelled, left out of loss and scores), 0 and 1.

    Split schemes: ``official`` (252/89/90); ``bolivia`` tests on the 15 chips of the region that the official split
    holds out.
    """

    name = "sen1floods11"
    facts = _radar_facts(
        title="Sen1Floods11",
        size="512x512",
        classes=("dry", "water"),
        counts={"official": (252, 89, 90), "bolivia": (252, 89, 15)},
        layout="S1Hand/ and LabelHand/",
        licence="see github.com/cloudtostreet/Sen1Floods11",
        citation="Bonafilia et al., CVPR Workshops 2020, pp. 210-211",
        homepage="https://github.com/cloudtostreet/Sen1Floods11",
        access="copy gs://sen1floods11/v1.1/data/flood_events/HandLabeled/{S1Hand,LabelHand} (gsutil, no account)",
        channels=2,
        pixel_values="db",
        label_values={-1: UNLABELLED, 0: 0, 1: 1},
    )
    _above = ("", "HandLabeled/", "data/flood_events/HandLabeled/", "v1.1/data/flood_events/HandLabeled/")
    files = Files(
        image=Where(tuple(f"{{}}{above}S1Hand" for above in _above), _chip),
        label=Where(tuple(f"{{}}{above}LabelHand" for above in _above), _chip),
    )
    held_out = 0

    def _split_of(self, item: Item) -> Split | None:
        lists: dict[Split, str] = {"training": "train", "validation": "valid", "test": "test"}
        lists["test"] = "bolivia" if self.split_scheme == "bolivia" else "test"
        chip = _chip(item["name"])
        return next((split for split, name in lists.items() if chip in split_list(f"sen1floods11_{name}")), None)
