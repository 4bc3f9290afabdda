"""Public data sets in their official layouts, as file names alone or as small drawn images."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from topolora_monai.data.benchmark import split_list
from topolora_monai.data.fundus import Stare

Record = list[tuple[str, str]]
"""One annotated image: relative paths with what they are (image, mask, fov, colour)."""


def drive() -> Iterable[Record]:
    for part, numbers, tag in (("training", range(21, 41), "training"), ("test", range(1, 21), "test")):
        for number in numbers:
            record = [
                (f"{part}/images/{number:02d}_{tag}.tif", "image"),
                (f"{part}/1st_manual/{number:02d}_manual1.gif", "mask"),
                (f"{part}/mask/{number:02d}_{tag}_mask.gif", "fov"),
            ]
            yield [*record, (f"{part}/2nd_manual/{number:02d}_manual2.gif", "mask")] if part == "test" else record


def stare() -> Iterable[Record]:
    for name in Stare.numbers:
        yield [
            (f"stare-images/{name}.ppm.gz", "fundus"),
            (f"labels-ah/{name}.ah.ppm.gz", "mask"),
            (f"labels-vk/{name}.vk.ppm.gz", "mask"),
        ]


def chase_db1() -> Iterable[Record]:
    for child in range(1, 15):
        for eye in "LR":
            name = f"Image_{child:02d}{eye}"
            yield [(f"{name}.jpg", "fundus"), (f"{name}_1stHO.png", "mask"), (f"{name}_2ndHO.png", "mask")]


def hrf() -> Iterable[Record]:
    for group in ("dr", "g", "h"):
        for number in range(1, 16):
            name = f"{number:02d}_{group}"
            suffix = "JPG" if group == "dr" else "jpg"
            yield [
                (f"images/{name}.{suffix}", "image"),
                (f"manual1/{name}.tif", "mask"),
                (f"mask/{name}_mask.tif", "fov"),
            ]


def kvasir_seg() -> Iterable[Record]:
    lists = ("pranet_test", "official_validation", "effisegnet_validation", "effisegnet_test")
    known = sorted(frozenset().union(*(split_list(f"kvasir_seg_{name}") for name in lists)))
    names = known + [f"other{number:03d}" for number in range(1000 - len(known))]
    for name in names:
        yield [(f"Kvasir-SEG/images/{name}.jpg", "image"), (f"Kvasir-SEG/masks/{name}.jpg", "mask")]


def cvc_clinicdb() -> Iterable[Record]:
    for number in range(1, 613):
        yield [(f"Original/{number}.tif", "image"), (f"Ground Truth/{number}.tif", "mask")]


def isic2017() -> Iterable[Record]:
    first = 0
    for part, count in (("Training", 2000), ("Validation", 150), ("Test_v2", 600)):
        for number in range(first, first + count):
            name = f"ISIC_{number:07d}"
            yield [
                (f"ISIC-2017_{part}_Data/{name}.jpg", "image"),
                (f"ISIC-2017_{part}_Data/{name}_superpixels.png", "image"),
                (f"ISIC-2017_{part}_Part1_GroundTruth/{name}_segmentation.png", "mask"),
            ]
        first += count


def sl_ssdd() -> Iterable[Record]:
    for number in range(1, 1161):
        part = "test" if number % 10 in (1, 9) else "train"
        yield [(f"JPEGImages/{number:06d}.jpg", "grey"), (f"{part}/{number:06d}.png", "mask")]


def sos() -> Iterable[Record]:
    for part, sensor, first, count in (
        *(("train", "palsar", 10777, 3101), ("train", "sentinel", 20840, 3354)),
        *(("test", "palsar", 10001, 776), ("test", "sentinel", 20001, 839)),
    ):
        for number in range(first, first + count):
            folder = f"{part}/{sensor}"
            yield [(f"{folder}/images/{number}_sat.jpg", "image"), (f"{folder}/masks/{number}_mask.png", "mask")]


def sen1floods11() -> Iterable[Record]:
    for name in ("train", "valid", "test", "bolivia"):
        for chip in sorted(split_list(f"sen1floods11_{name}")):
            yield [(f"S1Hand/{chip}_S1Hand.tif", "db"), (f"LabelHand/{chip}_LabelHand.tif", "signed")]


def camo() -> Iterable[Record]:
    top = "CAMO-V.1.0-CVIU2019"
    for number in range(1, 1251):
        part, name = "Train" if number <= 1000 else "Test", f"camourflage_{number:05d}"
        yield [(f"{top}/Images/{part}/{name}.jpg", "image"), (f"{top}/GT/{name}.png", "mask")]


def sbu_shadow() -> Iterable[Record]:
    for part, count in (("SBUTrain4KRecoveredSmall", 4085), ("SBU-Test", 638)):
        for number in range(count):
            folder, name = f"SBU-shadow/{part}", f"lssd{number:04d}"
            yield [(f"{folder}/ShadowImages/{name}.jpg", "image"), (f"{folder}/ShadowMasks/{name}.png", "mask")]


def leaf_disease() -> Iterable[Record]:
    for number in range(588):
        name = f"{number:05d}"
        yield [
            (f"data/data/images/{name}.jpg", "image"),
            (f"data/data/masks/{name}.png", "mask"),
            (f"aug_data/aug_data/images/{name}_1.jpg", "image"),
            (f"aug_data/aug_data/masks/{name}_1.png", "mask"),
        ]


def massachusetts_roads() -> Iterable[Record]:
    for part, count in (("train", 1108), ("valid", 14), ("test", 49)):
        for number in range(count):
            name = f"10{len(part)}78735_{number}"
            yield [(f"{part}/sat/{name}.tiff", "image"), (f"{part}/map/{name}.tif", "mask")]


def trans10k() -> Iterable[Record]:
    for part, count in (
        *(("train", 5000), ("validation/easy", 600), ("validation/hard", 400)),
        *(("test/easy", 3000), ("test/hard", 1428)),
    ):
        for number in range(count):
            yield [(f"{part}/images/{number}.jpg", "image"), (f"{part}/masks/{number}_mask.png", "colour")]


def topomortar() -> Iterable[Record]:
    for part, first, last in (("train", 1, 50), ("val", 51, 70), ("test", 71, 420)):
        for number in range(first, last + 1):
            kinds = ("accurate",) if part == "test" else ("accurate", "noisy", "pseudo")
            yield [
                (f"{part}/images/{number:03d}.png", "image"),
                *((f"{part}/{kind}/{number:03d}.png", "mask") for kind in kinds),
            ]


RECORDS: dict[str, Callable[[], Iterable[Record]]] = {
    fake.__name__: fake
    for fake in (
        *(drive, stare, chase_db1, hrf, kvasir_seg, cvc_clinicdb, isic2017, sl_ssdd, sos, sen1floods11),
        *(camo, sbu_shadow, leaf_disease, massachusetts_roads, topomortar, trans10k),
    )
}


def touch(name: str, root: Path) -> Path:
    """All files of a data set, empty: enough to list it."""
    for folder in {str(Path(path).parent) for record in RECORDS[name]() for path, _ in record}:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for record in RECORDS[name]():
        for path, _ in record:
            (root / path).touch()
    return root


def draw(name: str, root: Path, every: int = 1, size: tuple[int, int] = (40, 48)) -> Path:
    """Each so manieth image of a data set, drawn with its masks."""
    for number, record in enumerate(RECORDS[name]()):
        if number % every == 0:
            rng = np.random.default_rng(number)
            mask = _line(rng, size)
            for path, kind in record:
                _save(root / path, _KINDS[kind](rng, mask))
    return root


def _line(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A cross that no two images share."""
    mask = np.zeros(size, bool)
    row, column = rng.integers(8, size[0] - 8), rng.integers(8, size[1] - 8)
    mask[row - 1 : row + 2, 6:-6] = True
    mask[6:-6, column - 1 : column + 2] = True
    return mask


def _picture(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    image = rng.integers(120, 160, (*mask.shape, 3), dtype=np.uint8)
    image[mask] //= 2
    return image


def _fundus(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    image = _picture(rng, mask)
    image[~_disc(mask)] = 2
    return image


def _disc(mask: np.ndarray) -> np.ndarray:
    return np.pad(np.ones((mask.shape[0] - 6, mask.shape[1] - 6), bool), 3)


def _colours(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """Red things, white stuff."""
    coloured = np.zeros((*mask.shape, 3), np.uint8)
    coloured[mask] = (255, 0, 0)
    coloured[:4] = 255
    return coloured


def _decibels(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    looks = rng.gamma(4, 1 / 4, (2, *mask.shape))
    return (10 * np.log10(looks) + np.where(mask, -20, -10)).astype(np.float32)


def _signed(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    label = mask.astype(np.int16)
    label[:3] = -1
    return label[None]


_KINDS: dict[str, Callable[[np.random.Generator, np.ndarray], np.ndarray]] = {
    "image": _picture,
    "fundus": _fundus,
    "grey": lambda rng, mask: _picture(rng, mask)[..., 0],
    "mask": lambda rng, mask: mask.astype(np.uint8) * 255,
    "fov": lambda rng, mask: _disc(mask).astype(np.uint8) * 255,
    "colour": _colours,
    "db": _decibels,
    "signed": _signed,
}


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if array.ndim == 3 and array.shape[0] < 3:
        _save_geotiff(path, array)
    elif path.suffix == ".gz":
        content = io.BytesIO()
        Image.fromarray(array).save(content, format="PPM")
        path.write_bytes(gzip.compress(content.getvalue()))
    else:
        Image.fromarray(array).save(path)


def _save_geotiff(path: Path, array: np.ndarray) -> None:
    import rasterio

    grid = rasterio.Affine(1e-4, 0, 10.0, 0, -1e-4, 50.0)
    profile = {"driver": "GTiff", "count": len(array), "dtype": array.dtype, "crs": "EPSG:4326", "transform": grid}
    with rasterio.open(path, "w", height=array.shape[1], width=array.shape[2], **profile) as file:
        file.write(array)
