"""From a fingerprint to settings of a training, each with its reason."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, get_args

from topolora_monai.data.registry import SegmentationData
from topolora_monai.errors import ConfigError, unknown_choice
from topolora_monai.networks.registry import NETWORK_NAMES
from topolora_monai.planning.fingerprint import ClassFigures, Fingerprint, fingerprint
from topolora_monai.spec import Sampling

SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)
"""Where crops are cut."""

PLAN_IDS: Mapping[str, str] = {
    "image_size": "image_size",
    "crop_size": "crop_size",
    "sampling": "sampling",
    "model#overlap": "overlap",
    "batch_size": "batch_size",
    "epochs": "epochs",
    "crops_per_image": "crops_per_image",
    "learning_rate": "learning_rate",
    "model#view_diameter": "view_diameter",
    "model#thickness": "thickness",
}
"""Ids of ``train.yaml`` that a plan gives, and its names for them."""

SCALE_REASONS: Mapping[str, str] = {
    "view_diameter": "pixels across the fields of view, the median; what match_scale compares other images with",
    "thickness": "pixels across the thinnest class, the median along its skeleton; likewise, for other plans",
}
"""What a plan says of the pixel scale of its images."""

_DECODER_STRIDE = 4
_THIN_ACROSS, _HALF_ACROSS = 1.2, 3
"""Pixels of the mask decoder that the thinnest tenth of a skeleton covers, and that its thinner half needs at most."""
_LEAST_PIXELS = 2
_MOST_ZOOM = 4.0
_GRID = 64
_CROP_GRID = 16
_BATCH = 2
OVERLAP = 0.25
"""Of tiles, in every plan."""
_RARE = 2 / 3
_EPOCHS = (5, 30)
_CROPS = 6000
_CROPS_AN_EPOCH = 64
_MEMORY_SHARE = 0.8
_SMALLEST = 128
_MIXED = 1.5
_FAR_THICKER = 8


class _Network(NamedTuple):
    """What a plan has to know of a network.

    Attributes:
        most: side of its input that crops are enlarged to, where that serves thin structures.
        least: side below which pretrained weights have not been tried.
        native: side of its input that it was trained at.
        stride: that its input must be a multiple of.
        kilobytes: of memory that a training step takes for each pixel of its input, in float32.
        gigabytes: that it takes beside that, with the libraries.
        learning_rate: for a batch of two.
    """

    most: int
    least: int
    native: int
    stride: int
    kilobytes: float
    gigabytes: float
    learning_rate: float = 5e-4


_SAM = _Network(most=768, least=384, native=1024, stride=16, kilobytes=3.5, gigabytes=1.3)
_NETWORKS: dict[str, _Network] = {
    "vit_b": _SAM,
    "vit_l": _SAM._replace(kilobytes=9.5, gigabytes=2.2),
    "vit_h": _SAM._replace(kilobytes=16.0, gigabytes=3.6),
    "vit_t": _SAM._replace(kilobytes=2.5, gigabytes=1.0),
    "sam2_t": _SAM._replace(kilobytes=3.0, gigabytes=1.1, stride=32),
    "sam2_s": _SAM._replace(kilobytes=3.5, gigabytes=1.2, stride=32),
    "sam2_b": _SAM._replace(kilobytes=5.0, gigabytes=1.3, stride=32),
    "sam2_l": _SAM._replace(kilobytes=10.0, gigabytes=1.9, stride=32),
    "vit_tiny_test": _Network(256, 256, 256, 16, kilobytes=1.5, gigabytes=0.9, learning_rate=2e-3),
}
"""Kilobytes of vit_t and vit_b are measured (``results/``), those of the others follow from their width and depth."""
_BASELINE = _Network(most=384, least=64, native=384, stride=32, kilobytes=8.0, gigabytes=1.3)


@dataclass(frozen=True)
class Plan:
    """Settings of a training, by the names of ``train.yaml``.

    Attributes:
        network_name: network that it is for.
        image_size: side in pixels of the network's input.
        crop_size: side in pixels of the image that is enlarged, or shrunk, to it.
        sampling: where crops are cut.
        overlap: of the tiles in validation.
        batch_size: crops in a step.
        epochs: passes over the training images.
        crops_per_image: of each image in an epoch.
        learning_rate: the highest.
        reasons: why, by the same names.
        found: the fingerprint, and what is remarkable in it, a sentence each.
        view_diameter, thickness: of a :class:`Fingerprint`; None where nothing is known.
    """

    network_name: str
    image_size: int
    crop_size: int
    sampling: Sampling
    overlap: float
    batch_size: int
    epochs: int
    crops_per_image: int
    learning_rate: float
    reasons: Mapping[str, str] = field(default_factory=dict)
    found: tuple[str, ...] = ()
    view_diameter: float | None = None
    thickness: float | None = None

    @property
    def zoom(self) -> float:
        """Pixels of the network's input for one of the image."""
        return self.image_size / self.crop_size

    def values(self) -> dict[str, int | float | str]:
        """By the ids of ``train.yaml``, those that are known."""
        values = {id_: getattr(self, name) for id_, name in PLAN_IDS.items()}
        return {id_: value for id_, value in values.items() if value is not None}


def network_stride(network_name: str) -> int:
    """What ``image_size`` must be a multiple of; 1 for baselines, which do without.

    Raises:
        ConfigError: for an unknown name.
    """
    _network(network_name)
    return _NETWORKS[network_name].stride if network_name in _NETWORKS else 1


def largest_zoom(figures: Fingerprint) -> float:
    """Enlargement that the thinnest structures ask for; below 1 where they could be shrunk.

    Example:
        >>> vessels = ClassFigures("vessel", 0.09, 16, 2.8, 0.9, (1.0, 3.0, 6.4))
        >>> largest_zoom(Fingerprint("drive", 16, 16, ((584, 565),), 3, 8, (0, 1), 0, (vessels,), 0, {}, 2**34))
        4.0
    """
    return max((_zoom(each.widths) for each in figures.classes if each.widths), default=0.0)


def fit_plan(figures: Fingerprint, network_name: str = "vit_b") -> Plan:
    """Settings that fit a training split and a network.

    - Thin structures are enlarged: the tenth of the skeleton where they are thinnest covers 1.2 pixels of the mask
      decoder, each of them four of the network's input, unless half of the skeleton covers three of them already; two
      of the input in any case.
    - What needs no enlarging is seen whole, at about the images' own size.
    - Crops are centred on foreground, half of them, where too many would hold none.

    Args:
        figures: of the training split.
        network_name: of :func:`~topolora_monai.networks.build_network`.

    Raises:
        ConfigError: for an unknown network, or if the memory is too small for any plan.

    Example:
        >>> polyps = ClassFigures("polyp", 0.14, 96, 1.1, 0.4, (33.0, 78.0, 146.0))
        >>> figures = Fingerprint("kvasir", 600, 96, ((352, 352),), 3, 8, (0, 1), 0, (polyps,), 0, {}, 2**34)
        >>> plan = fit_plan(figures, "vit_t")
        >>> plan.image_size, plan.crop_size, plan.sampling
        (384, 352, 'uniform')
    """
    network = _network(network_name)
    image_size, crop_size, batch_size, sizes = _fit_sizes(figures, network, network_name)
    sampling, why_sampled = _sampling(figures, crop_size)
    epochs, crops_per_image, why_steps = _steps(figures, crop_size)
    baseline = network_name not in _NETWORKS
    reasons = {
        **sizes,
        "sampling": why_sampled,
        "overlap": "a quarter takes half the time of a half, and cost 0.0007 Dice on DRIVE"
        if crop_size < figures.longer_sides[2]
        else "images that fit into a crop are one tile, whatever this says",
        "epochs": why_steps,
        "crops_per_image": f"at least {_CROPS_AN_EPOCH} crops an epoch of {_counted(figures.images, 'image')}, "
        "and up to four of an image of many",
        "learning_rate": "from random weights, on a small network"
        if network_name == "vit_tiny_test"
        else "measured on DRIVE with a batch of two; for pretrained weights and what is added to them",
        **SCALE_REASONS,
    }
    return Plan(
        network_name=network_name,
        image_size=crop_size if baseline else image_size,
        crop_size=crop_size,
        sampling=sampling,
        overlap=OVERLAP,
        batch_size=batch_size,
        epochs=epochs,
        crops_per_image=crops_per_image,
        learning_rate=network.learning_rate,
        reasons=reasons,
        found=(*_described(figures), *_remarks(figures, image_size / crop_size, crop_size)),
        view_diameter=figures.view_diameter,
        thickness=figures.thickness,
    )


def plan(data: SegmentationData, network_name: str = "vit_b") -> Plan:
    """Settings that fit a data set's training split and a network, as ``topolora plan`` writes them.

    Args:
        data: what :func:`~topolora_monai.data.open_dataset` gives.
        network_name: of :func:`~topolora_monai.networks.build_network`.

    Raises:
        DataError, ConfigError: as :func:`~topolora_monai.planning.fingerprint` and :func:`fit_plan`.

    Example:
        >>> from topolora_monai.data import open_dataset
        >>> plan(open_dataset("synthetic_vessels"), "vit_tiny_test").image_size
        256
    """
    return fit_plan(fingerprint(data), network_name)


def _network(name: str) -> _Network:
    if name not in NETWORK_NAMES:
        raise unknown_choice("network_name", name, NETWORK_NAMES)
    return _NETWORKS.get(name, _BASELINE)


def _zoom(widths: tuple[float, float, float]) -> float:
    thinnest, middle, _ = widths
    decoder = _DECODER_STRIDE * min(_THIN_ACROSS / thinnest, _HALF_ACROSS / middle)
    return min(_MOST_ZOOM, max(_LEAST_PIXELS / thinnest, decoder))


def _fit_sizes(figures: Fingerprint, network: _Network, network_name: str) -> tuple[int, int, int, dict[str, str]]:
    """Image size, crop size, batch size and their reasons, at the largest input that the memory holds."""
    baseline = network_name not in _NETWORKS
    size_of_all = figures.memory / 1e9
    wanted, needs = 0, 0.0
    for most in _inputs(figures, network):
        image_size, crop_size, reasons = _sizes(figures, network, most, baseline)
        wanted = max(wanted, image_size)
        needs, twice = (network.gigabytes + batch * image_size**2 * network.kilobytes / 1e6 for batch in (1, _BATCH))
        if needs > _MEMORY_SHARE * size_of_all:
            continue
        if image_size < wanted:
            reasons["image_size"] += f"; {wanted} px do not fit into {size_of_all:.1f} GB of memory"
        if twice <= _MEMORY_SHARE * size_of_all:
            batch_size, why = _BATCH, f"takes about {twice:.1f} of {size_of_all:.1f} GB in float32"
        else:
            batch_size, why = 1, f"{_BATCH} would take about {twice:.1f} of {size_of_all:.1f} GB in float32"
        return image_size, crop_size, batch_size, {**reasons, "batch_size": why}
    raise ConfigError(
        f"too little memory for any plan with {network_name}",
        expected=f"about {needs / _MEMORY_SHARE:.1f} GB, for one crop at {_SMALLEST} px",
        found=f"{size_of_all:.1f} GB",
        hint="take a smaller network, such as vit_t, or give more memory",
    )


def _inputs(figures: Fingerprint, network: _Network) -> list[int]:
    """Largest sides of the input to try: the network's own where thin and thick structures are to be seen at once."""
    most = network.most
    thick = max((each.widths[2] for each in figures.classes if each.widths), default=0.0)
    if largest_zoom(figures) and 2 * thick > most / max(1.0, largest_zoom(figures)):
        most = network.native
    return [side for side in (1024, 896, 768, 640, 512, 448, 384, 320, 256, 192, _SMALLEST) if side <= most]


def _sizes(figures: Fingerprint, network: _Network, most: int, baseline: bool) -> tuple[int, int, dict[str, str]]:
    side = _side(figures)
    asked = largest_zoom(figures)
    thinnest = min((each.widths[0] for each in figures.classes if each.widths), default=0.0)
    middle = min((each.widths[1] for each in figures.classes if each.widths), default=0.0)
    if baseline:
        crop = min(most, -(-side // network.stride) * network.stride)
        why = f"the network works at the image's own size; crops of at most {network.most} px, images are {side}"
        return crop, crop, {"image_size": "of no effect: the network works at the image's own size", "crop_size": why}
    structures = (
        f"a tenth of the skeleton is at most {thinnest:.1f} px wide, half of it {middle:.1f}"
        if thinnest
        else "no foreground was found, so nothing is known about its thickness"
    )
    whole = side * asked <= most
    if whole:
        floor = min(network.least, most, int(_MOST_ZOOM * side))
        wanted = max(side * max(1.0, asked), floor)
        image_size = min(most, max(_GRID, math.ceil(wanted / _GRID) * _GRID))
        zoom = image_size / side
        near = f"the whole image of {side} px at {zoom:.2f} times its size"
        if wanted == floor and floor > side:
            near += f", since networks of this kind have been tried from {network.least} px up"
        why_crop = f"whole images: {structures}, which asks for a zoom of {asked:.2f} at least"
        shown = f"; the thinnest tenth is {thinnest * zoom:.1f} px of the input" if thinnest else ""
        return image_size, side, {"image_size": near + shown, "crop_size": why_crop}
    crop = max(_CROP_GRID, int(most / asked) // _CROP_GRID * _CROP_GRID)
    zoom = most / crop
    why_crop = (
        f"{structures}: enlarged {zoom:.2f} times it is {thinnest * zoom:.1f} and {middle * zoom:.1f} px, or "
        f"{thinnest * zoom / _DECODER_STRIDE:.1f} and {middle * zoom / _DECODER_STRIDE:.1f} px of the mask decoder, "
        f"which answers at a quarter"
    )
    why = f"the largest input that is worth its time; the whole image of {side} px would need {side * asked:,.0f}"
    return most, crop, {"image_size": why, "crop_size": why_crop}


def _side(figures: Fingerprint) -> int:
    """Longer side that nine tenths of the images stay below."""
    sides = sorted(max(size) for size in figures.sizes)
    return sides[min(len(sides) - 1, math.ceil(0.9 * len(sides)) - 1)]


def _sampling(figures: Fingerprint, crop_size: int) -> tuple[Sampling, str]:
    if not figures.occupied:
        return "uniform", "no foreground was found to centre crops on"
    if crop_size >= figures.longer_sides[2]:
        return "uniform", "crops are whole images"
    side = max((known for known in figures.occupied if known <= crop_size), default=min(figures.occupied))
    share = figures.occupied[side]
    said = f"{share:.0%} of crops of {side} px laid anywhere in an image with foreground hold some of it"
    if share < _RARE:
        return "foreground", f"only {said}: half of them are centred on it"
    return "uniform", said


def _steps(figures: Fingerprint, crop_size: int) -> tuple[int, int, str]:
    height, width = sorted(figures.sizes)[len(figures.sizes) // 2]
    tiles = math.ceil(height / crop_size) * math.ceil(width / crop_size)
    crops = max(1, math.ceil(_CROPS_AN_EPOCH / figures.images), min(4, tiles))
    an_epoch = crops * figures.images
    least, most = _EPOCHS
    epochs = min(most, max(least, math.ceil(_CROPS / an_epoch)))
    return (
        epochs,
        crops,
        f"{epochs * an_epoch:,} crops in all, {an_epoch:,} an epoch: about {_CROPS:,}, in {least} to {most} epochs",
    )


def _described(figures: Fingerprint) -> list[str]:
    middle = figures.longer_sides[1]
    heights, widths = zip(*figures.sizes, strict=True)
    size = (
        f"{widths[0]}x{heights[0]} px"
        if len(set(figures.sizes)) == 1
        else f"{min(widths)}x{min(heights)} to {max(widths)}x{max(heights)} px, the longer side {middle} in the middle"
    )
    slices = f", slices of {_counted(figures.volumes, 'volume')}" if figures.volumes else ""
    depth = f" of {figures.bits} bit" if figures.bits else ""
    low, high = figures.value_range
    return [
        f"{figures.opened} of {_counted(figures.images, 'training image')} opened{slices}: {size}, "
        f"{_counted(figures.channels, 'channel')}{depth}, values {low:.4g} to {high:.4g}",
        *map(_class_described, figures.classes),
    ]


def _class_described(each: ClassFigures) -> str:
    if not each.widths:
        return f"{each.name}: in no image"
    thin, middle, thick = each.widths
    return (
        f"{each.name}: {each.share:.2%} of pixels, in {_counted(each.images, 'image')}, {each.components:.1f} "
        f"components each, the largest over {each.extent:.0%} of the image; a tenth of its skeleton is at most "
        f"{thin:.1f} px wide, half {middle:.1f}, nine tenths {thick:.1f}"
    )


def _remarks(figures: Fingerprint, zoom: float, crop_size: int) -> list[str]:
    remarks = []
    least, _, largest = figures.longer_sides
    if figures.images == 1:
        remarks.append("one image alone: every figure is its own; validation and test say little")
    if figures.volumes > 0 and figures.images < 20:
        remarks.append("few slices: neighbours look alike, so this counts as still fewer images")
    if largest > _MIXED * least:
        remarks.append(
            f"images of very different sizes: larger than {crop_size} px they are cut into tiles, smaller they are "
            "padded, at one pixel scale; resize them before if their structures differ in size as much"
        )
    if figures.empty == figures.opened:
        remarks.append("all masks that were opened are empty: there is nothing to learn from them but background")
    elif figures.empty:
        remarks.append(f"{_counted(figures.empty, 'image')} without foreground, which no crop can be centred on")
    known = [each for each in figures.classes if each.widths]
    thin = min(known, key=lambda each: each.widths[0] if each.widths else 0, default=None)
    for each in known:
        if thin and thin.widths and each.widths and each.widths[1] > _FAR_THICKER * thin.widths[1]:
            seen = "with its surroundings" if crop_size > 2 * each.widths[2] else "in part"
            remarks.append(
                f"{each.name} is {each.widths[1] / thin.widths[1]:.0f} times as thick as {thin.name}, which decides "
                f"the zoom of {zoom:.2f}: crops of {crop_size} px show {each.name} {seen}"
            )
    thinnest = min((each.widths[0] for each in known if each.widths), default=0)
    if thinnest and thinnest * zoom < _LEAST_PIXELS:
        remarks.append(f"the thinnest tenth is {thinnest * zoom:.1f} px of the input even so: expect breaks there")
    loaded = figures.images * max(h * w for h, w in figures.sizes) * (figures.channels + len(figures.classes) + 1) * 4
    if loaded > figures.memory / 2:
        remarks.append(
            f"loaded images would take about {loaded / 1e9:.0f} GB: give --train#cache_dir FOLDER to keep them on disk"
        )
    return remarks


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
