"""Fundus-like images with a known vessel tree: made on first use, the same for everyone."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.draw import disk

from topolora_monai.data.folder import Folder
from topolora_monai.data.items import SPLITS, Split
from topolora_monai.errors import DataError
from topolora_monai.io import is_whole_png, write_png
from topolora_monai.io.atomic import folder_beside, remove_leftovers, writing

_SIZE = 512
_FOV_RADIUS = 246
_COUNTS: dict[Split, int] = {"training": 16, "validation": 4, "test": 4}
_WIDEST, _THINNEST = 12.0, 2.0
_VERSION = 1
"""Raise when the images change, so that old ones on disk are not taken for new ones."""


class SyntheticVessels(Folder):
    """24 images of 512x512 with vessels of 2 to 12 px, masks and fields of view, seeded.

    Vessels leave an optic disc, wander, branch and taper; each tree is connected. 16 images are for training, 4 for
    validation, 4 for test. Made by :func:`draw_sample`, so free of any licence.

    Args:
        root: folder to keep the images in, or that of this very set in it; filled when it does not hold them yet, and
            mended where one is damaged.
        seed: of the whole set.

    Raises:
        DataError: if ``root`` holds something else.
        OutputError: if ``root`` cannot be written.
    """

    name = "synthetic_vessels"

    def __init__(self, root: str | Path, seed: int = 0) -> None:
        given, name = Path(root).absolute(), f"v{_VERSION}-seed{seed}"
        self.root = given if given.name == name else given / name
        self._make(seed)
        super().__init__(self.root, classes=("background", "vessel"))

    def _make(self, seed: int) -> None:
        """Draw into a folder beside and rename it, so that an interrupted start leaves no half set."""
        if self.root.parent.is_file():
            raise DataError("a file stands where the data folder should be", path=self.root.parent)
        remove_leftovers(self.root.parent)
        with writing(self.root, "the synthetic images", "give another --dataset_dir"):
            if self.root.is_dir():
                _complete(self.root, seed)
                return
            self.root.parent.mkdir(parents=True, exist_ok=True)
            with folder_beside(self.root) as beside:
                _complete(beside, seed)
                if not self.root.is_dir():  # another process may have been faster
                    os.replace(beside, self.root)


def draw_sample(
    rng: np.random.Generator, size: int = _SIZE
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one image with its truth; vessel widths stay 2 to 12 px whatever the size.

    Returns:
        Image (size, size, 3), vessel mask (size, size) and field of view (size, size); uint8, masks 0/255.

    Example:
        >>> image, mask, fov = draw_sample(np.random.default_rng(0), size=128)
        >>> image.shape, sorted(set(mask.flatten().tolist())), bool((mask[fov == 0] == 0).all())
        ((128, 128, 3), [0, 255], True)
    """
    fov = np.zeros((size, size), bool)
    fov[disk((size / 2, size / 2), _FOV_RADIUS / _SIZE * size, shape=fov.shape)] = True
    side = rng.choice([-1, 1])
    origin = np.array([size / 2 + rng.normal(0, size / 40), size / 2 + side * size * rng.uniform(0.2, 0.3)])
    depth = np.zeros((size, size))
    for angle in _root_angles(rng):
        _grow(depth, fov, rng, origin, angle, rng.uniform(0.65, 1.0) * _WIDEST, generation=0)
    mask = (depth > 0) & fov
    image = _render(rng, depth, fov, origin)
    return image, mask.astype(np.uint8) * 255, fov.astype(np.uint8) * 255


def _root_angles(rng: np.random.Generator) -> NDArray[np.float64]:
    count = int(rng.integers(6, 9))
    return np.asarray(np.arange(count) * 2 * np.pi / count + rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.2, count))


def _grow(
    depth: NDArray[np.float64],
    fov: NDArray[np.bool_],
    rng: np.random.Generator,
    start: NDArray[np.float64],
    angle: float,
    width: float,
    generation: int,
) -> None:
    """Walk a tapering vessel one pixel a step; at each branching the widths follow Murray's law."""
    position, bend = start.copy(), rng.normal(0, 0.004)
    until_branch = rng.uniform(0.08, 0.18) * len(depth)
    side = rng.choice([-1, 1])
    while width > _THINNEST * 0.75:
        if not fov[int(position[0]), int(position[1])]:
            return
        _stamp(depth, position, max(width, _THINNEST) / 2)
        bend = 0.97 * bend + rng.normal(0, 0.003)
        angle += bend
        position = position + np.array([np.sin(angle), np.cos(angle)])
        width *= 1 - 0.0015 * rng.uniform(0.5, 1.5)
        until_branch -= 1
        if until_branch <= 0:
            share = rng.uniform(0.15, 0.5) if generation < 2 else rng.uniform(0.3, 0.5)
            child = width * share ** (1 / 3)
            if child > _THINNEST * 0.75 and generation < 5:
                _grow(depth, fov, rng, position, angle + side * rng.uniform(0.4, 1.0), child, generation + 1)
            width *= (1 - share) ** (1 / 3)
            angle -= side * rng.uniform(0.05, 0.25)
            side, until_branch = -side, rng.uniform(0.08, 0.18) * len(depth)


def _stamp(depth: NDArray[np.float64], centre: NDArray[np.float64], radius: float) -> None:
    """Raise ``depth`` to the half-thickness of a round vessel around ``centre``."""
    low = np.maximum(np.floor(centre - radius - 1).astype(int), 0)
    high = np.ceil(centre + radius + 2).astype(int)
    window = depth[low[0] : high[0], low[1] : high[1]]
    rows, columns = np.ogrid[low[0] : low[0] + window.shape[0], low[1] : low[1] + window.shape[1]]
    inside = radius**2 - (rows - centre[0]) ** 2 - (columns - centre[1]) ** 2
    np.maximum(window, np.sqrt(np.maximum(inside, 0)), out=window)


def _render(
    rng: np.random.Generator, depth: NDArray[np.float64], fov: NDArray[np.bool_], origin: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Light, texture, optic disc, absorbing vessels, blur and noise."""
    size = len(depth)
    rows, columns = np.mgrid[0:size, 0:size]
    light = 1 + 0.2 * _smooth_noise(rng, size, size / 5) + 0.06 * _smooth_noise(rng, size, size / 60)
    centre = np.array([size / 2, size / 2]) + rng.normal(0, size / 12, 2)
    light = np.maximum(light, 0.5)
    light *= 1 - 0.55 * ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / size**2
    colour = np.array([0.72, 0.40, 0.20]) * rng.uniform(0.85, 1.15, 3)
    image = light[..., None] * colour
    disc = np.exp(-((((rows - origin[0]) ** 2 + (columns - origin[1]) ** 2) / (2 * (size / 22) ** 2)) ** 2))
    image += disc[..., None] * np.array([0.18, 0.24, 0.16])
    absorbed = np.exp(-gaussian_filter(depth, 0.7)[..., None] * np.array([0.035, 0.10, 0.06]) * rng.uniform(0.7, 1.2))
    thin_contrast = 1 - 0.12 * (gaussian_filter((depth > 0).astype(float), 0.7))[..., None]
    image *= absorbed * thin_contrast
    image = gaussian_filter(image, (0.7, 0.7, 0)) + rng.normal(0, 0.022, image.shape)
    surround = 0.02 + rng.normal(0, 0.004, image.shape)
    return np.asarray((np.clip(np.where(fov[..., None], image, surround), 0, 1) * 255).round(), np.uint8)


def _smooth_noise(rng: np.random.Generator, size: int, scale: float) -> NDArray[np.float64]:
    noise = gaussian_filter(rng.normal(size=(size, size)), scale, mode="wrap")
    return np.asarray(noise / noise.std())


def _complete(root: Path, seed: int) -> None:
    """Draw what is not there, or damaged."""
    each = [split for split in SPLITS for _ in range(_COUNTS[split])]
    for number, split in enumerate(each, start=1):
        files = [root / split / kind / f"{number:02d}.png" for kind in ("images", "masks", "fov")]
        if all(is_whole_png(file) for file in files):
            continue
        for file, array in zip(files, draw_sample(np.random.default_rng([seed, number])), strict=True):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_png(array, file)
