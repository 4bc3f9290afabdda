"""Data sets and figures made up for plans."""

import numpy as np
from PIL import Image

from topolora_monai.data import Folder
from topolora_monai.planning import ClassFigures, Fingerprint


def lines(size, width, count=1):
    """A mask with horizontal lines, ten pixels from the border."""
    mask = np.zeros(size, np.uint8)
    for number in range(count):
        top = (number + 1) * size[0] // (count + 1)
        mask[top : top + width, 10 : size[1] - 10] = 255
    return mask


def write_folder(root, masks, **options):
    """Pairs of images and masks as a data set."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    for number, mask in enumerate(masks):
        image = rng.integers(80, 200, (*mask.shape, 3), dtype=np.uint8)
        image[mask > 0] //= 2
        Image.fromarray(image).save(root / f"images/{number:03d}.png")
        Image.fromarray(mask).save(root / f"masks/{number:03d}.png")
    return Folder(root, **options)


def figures(*widths, side=512, images=50, sizes=None, memory=32 * 10**9, occupied=None, **others):
    """A fingerprint of classes with these widths at a tenth, a half and nine tenths of their skeletons."""
    classes = tuple(
        ClassFigures(f"class {number}", 0.1 if each else 0.0, images if each else 0, 1.0, 0.5, each)
        for number, each in enumerate(widths, 1)
    )
    sizes = tuple(sizes or [(side, side)] * min(images, 64))
    empty = 0 if any(widths) else len(sizes)
    known = {64: 1.0, 256: 1.0} if occupied is None and any(widths) else occupied or {}
    settings = {"channels": 3, "bits": 8, "value_range": (0.0, 1.0), "volumes": 0, "empty": empty} | others
    return Fingerprint("made up", images, len(sizes), sizes, classes=classes, occupied=known, memory=memory, **settings)
