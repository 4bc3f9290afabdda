"""What a training split looks like: sizes, how thick and how rare its structures are, and the memory at hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects, label
from scipy.spatial import cKDTree
from skimage.measure import block_reduce
from skimage.morphology import skeletonize

from topolora_monai.data.depth import bits_for, item_maximum
from topolora_monai.data.fields_of_view import view_diameter
from topolora_monai.data.items import Item, check_item
from topolora_monai.data.registry import SegmentationData
from topolora_monai.errors import DataError
from topolora_monai.io import LabelValues, image_kind, numbered
from topolora_monai.io.memory import memory_bytes
from topolora_monai.transforms import IntensityScaling, LoadItem

MOST_IMAGES = 64
"""Images of the split that are opened."""

_SIDES = (64, 96, 128, 192, 256, 384, 512, 768, 1024)
_WINDOW = 2048
"""Side of the part of a larger mask that its skeleton is taken of."""
_COARSE = 1024
"""Side that larger masks are reduced to before crops of them are counted."""
_MOST_VIEWS = 16
"""Pictures that a field of view is looked for in."""

_Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class ClassFigures:
    """One foreground class over the images that were opened.

    Attributes:
        name: of the class.
        share: of all pixels.
        images: that hold it.
        components: of it in an image that holds it, on average.
        extent: longer side of its largest component, as a share of the image's, the median over these images.
        widths: in pixels, that a tenth, a half and nine tenths of its skeleton's pixels stay below; none without it.
    """

    name: str
    share: float
    images: int
    components: float
    extent: float
    widths: tuple[float, float, float] | None


@dataclass(frozen=True)
class Fingerprint:
    """A training split in figures.

    Attributes:
        dataset: its name.
        images: in the split; a volume counts by its slices.
        opened: how many of them were measured.
        sizes: (height, width) of these.
        channels: of the images.
        bits: that its pictures fill; None for rasters and volumes, whose values have units.
        value_range: lowest and highest value, in the unit of rasters and volumes, from 0 to 1 of pictures.
        volumes: files that slices come from; 0 where images are no slices.
        classes: of the foreground.
        empty: images without foreground.
        occupied: by the side of a square crop, the share of crops laid anywhere in an image with foreground that hold
            some of it.
        memory: bytes of the device that trains.
        view_diameter: of the pictures' fields of view, the median in pixels; None where most have none.
    """

    dataset: str
    images: int
    opened: int
    sizes: tuple[tuple[int, int], ...]
    channels: int
    bits: int | None
    value_range: tuple[float, float]
    volumes: int
    classes: tuple[ClassFigures, ...]
    empty: int
    occupied: Mapping[int, float]
    memory: int
    view_diameter: float | None = None

    @property
    def thickness(self) -> float | None:
        """Width in pixels that half of the skeleton stays below, of the thinnest class; None without foreground."""
        return min((each.widths[1] for each in self.classes if each.widths), default=None)

    @property
    def longer_sides(self) -> tuple[int, int, int]:
        """The least, the median and the largest longer side."""
        sides = sorted(max(size) for size in self.sizes)
        return sides[0], sides[len(sides) // 2], sides[-1]

    @property
    def share(self) -> float:
        """Of all pixels that are foreground of any class, where classes exclude one another."""
        return sum(each.share for each in self.classes)


def fingerprint(
    data: SegmentationData,
    *,
    items: Sequence[Item] | None = None,
    classes: Sequence[str] | None = None,
    label_values: LabelValues | None = None,
    most: int = MOST_IMAGES,
    seed: int = 0,
    memory: int | None = None,
) -> Fingerprint:
    """Measure a training split; nothing of validation and test is read.

    Args:
        data: what :func:`~topolora_monai.data.open_dataset` gives.
        items: of the split; the data set's own where they are None.
        classes: names, the background first; the data set's own where they are None.
        label_values: of its masks; likewise.
        most: images to open; of a larger split so many are drawn.
        seed: of the drawing.
        memory: in bytes; what the GPU, or else the machine, has where it is None.

    Raises:
        DataError: if the split is empty, or a file cannot be used.

    Example:
        >>> from topolora_monai.data import open_dataset
        >>> found = fingerprint(open_dataset("synthetic_vessels"), most=2)
        >>> found.opened, found.sizes[0], found.classes[0].name
        (2, (512, 512), 'vessel')
    """
    items = data.items("training") if items is None else items
    names = list(data.classes if classes is None else classes)[1:]
    if not items:
        raise DataError("no image for training", path=data.root, hint="a plan is measured on the training split")
    drawn = np.sort(np.random.default_rng(seed).permutation(len(items))[: max(1, most)])
    chosen = [items[number] for number in drawn]
    deepest = [maximum for maximum in map(item_maximum, chosen) if maximum is not None]
    scaling = IntensityScaling(pixel_values=data.pixel_values, bits=bits_for(deepest))
    bits = bits_for(deepest) if deepest else 8
    values = numbered(("", *names), None, data.label_values) if label_values is None else label_values
    load = LoadItem(data.channels, scaling, values, label_channels=len(names))
    counts = [_Counts(name) for name in names]
    sizes, ranges, empty, occupied = [], [], 0, []
    pictures = image_kind(chosen[0]["image"]) == "picture"
    views: list[float | None] = []
    for number, item in zip(drawn, chosen, strict=True):
        check_item(item, values)
        sample = load(item)
        masks: _Mask = sample["label"].numpy() > 0
        sizes.append((masks.shape[1], masks.shape[2]))
        ranges.append(_value_range(sample))
        if pictures and len(views) < _MOST_VIEWS:
            views.append(view_diameter(sample["image"].numpy()))
        foreground: _Mask = np.any(masks, 0)
        empty += not foreground.any()
        if foreground.any():
            occupied.append(_occupied(foreground))
        for count, mask in zip(counts, masks, strict=True):
            count.add(mask, np.random.default_rng([seed, int(number)]))
    pixels = sum(height * width for height, width in sizes)
    return Fingerprint(
        dataset=data.name,
        images=len(items),
        opened=len(chosen),
        sizes=tuple(sizes),
        channels=data.channels,
        bits=bits if pictures else None,
        value_range=(float(min(low for low, _ in ranges)), float(max(high for _, high in ranges))),
        volumes=len({item["image"] for item in items if "slice" in item}),
        classes=tuple(count.figures(pixels) for count in counts),
        empty=empty,
        occupied={side: float(np.mean([one[side] for one in occupied])) for side in _SIDES} if occupied else {},
        memory=_device_memory() if memory is None else memory,
        view_diameter=_median_view(views),
    )


def skeleton_widths(mask: _Mask) -> NDArray[np.float64]:
    """How wide a structure is at each pixel of its skeleton: the diameter of the largest disc in it over that pixel.

    That is the local thickness of Hildebrand and Rueegsegger (Journal of Microscopy 185, 1997), on the skeleton alone:
    spurs from a line's ragged edge count as the line. Exact for lines along rows and columns.

    Args:
        mask: bool (H, W).

    Returns:
        Float (N,), in pixels, one number for each pixel of the skeleton, in order of rows.

    Example:
        >>> mask = np.zeros((9, 40), bool)
        >>> mask[3:5] = True
        >>> float(np.median(skeleton_widths(mask)))
        2.0
    """
    points = np.argwhere(skeletonize(mask))
    if not len(points):
        return np.zeros(0)
    if mask.all():
        return np.full(len(points), float(min(mask.shape)))
    # At twice the size a line's centre lies on the grid, however many pixels wide it is.
    distances = distance_transform_edt(mask.repeat(2, 0).repeat(2, 1))
    widths = distances.reshape(mask.shape[0], 2, mask.shape[1], 2).max((1, 3))[tuple(points.T)]
    covered = cKDTree(points).query_ball_point(points, widths / 2)
    result = widths.copy()
    np.maximum.at(result, np.concatenate(covered).astype(int), widths.repeat([len(one) for one in covered]))
    return np.asarray(result)


class _Counts:
    """One class, image by image."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pixels = 0
        self.components: list[int] = []
        self.extents: list[float] = []
        self.widths: list[NDArray[np.float64]] = []

    def add(self, mask: _Mask, rng: np.random.Generator) -> None:
        if not mask.any():
            return
        self.pixels += int(mask.sum())
        numbers, count = label(mask, np.ones((3, 3)))
        self.components.append(int(count))
        boxes = [max(part.stop - part.start for part in box) for box in find_objects(numbers)]
        self.extents.append(max(boxes) / max(mask.shape))
        self.widths.append(skeleton_widths(_window(mask, rng)))

    def figures(self, pixels: int) -> ClassFigures:
        widths = np.concatenate(self.widths) if self.widths else np.zeros(0)
        tenth, half, nine = np.quantile(widths, (0.1, 0.5, 0.9)) if len(widths) else (0.0, 0.0, 0.0)
        return ClassFigures(
            self.name,
            share=self.pixels / pixels,
            images=len(self.components),
            components=float(np.mean(self.components)) if self.components else 0.0,
            extent=float(np.median(self.extents)) if self.extents else 0.0,
            widths=(float(tenth), float(half), float(nine)) if len(widths) else None,
        )


def _window(mask: _Mask, rng: np.random.Generator) -> _Mask:
    """The mask, or the part of a very large one around a pixel of the structure."""
    if max(mask.shape) <= _WINDOW:
        return mask
    rows, columns = np.nonzero(mask)
    chosen = rng.integers(len(rows))
    top, left = (
        int(np.clip(at - _WINDOW // 2, 0, max(0, length - _WINDOW)))
        for at, length in zip((rows[chosen], columns[chosen]), mask.shape, strict=True)
    )
    return mask[top : top + _WINDOW, left : left + _WINDOW]


def _occupied(foreground: _Mask) -> dict[int, float]:
    factor = -(-max(foreground.shape) // _COARSE)
    coarse = block_reduce(foreground, (factor, factor), np.max) if factor > 1 else foreground
    sums = np.pad(coarse.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    shares = {}
    for side in _SIDES:
        high, wide = (min(max(1, side // factor), length) for length in coarse.shape)
        inside = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
        shares[side] = float((inside > 0).mean())
    return shares


def _value_range(sample: Mapping[str, Any]) -> tuple[float, float]:
    """Of an image in its own unit; what lies beyond the limits it was scaled between counts as these."""
    valid = sample["fov"][0] > 0
    if not valid.any():
        return 0.0, 0.0
    values = sample["image"][:, valid]
    lows, highs = sample["limits"].T
    low = (lows + values.amin(1) * (highs - lows)).min()
    high = (lows + values.amax(1) * (highs - lows)).max()
    return float(low), float(high)


def _median_view(views: Sequence[float | None]) -> float | None:
    known = [view for view in views if view is not None]
    return round(float(np.median(known)), 1) if 2 * len(known) > len(views) else None


def _device_memory() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    return memory_bytes()
