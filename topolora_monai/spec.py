"""What a trained model is: every entry of an adapter file's header, its type, its range and its default.

How it was trained is one of them.
"""

from __future__ import annotations

import dataclasses
import re
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from monai.transforms import Compose

from topolora_monai.data.benchmark import Modality
from topolora_monai.errors import AdapterFileError, ConfigError
from topolora_monai.losses.centreline import SkeletonMethod
from topolora_monai.losses.topology import LOSS_TERMS
from topolora_monai.networks.activation import Activation
from topolora_monai.networks.registry import MulticlassHead
from topolora_monai.networks.segmenter import Fit
from topolora_monai.transforms import GreenClahed, LoadItem, RefinedLeed
from topolora_monai.transforms.intensity import IntensityScaling, PixelValues

__all__ = [
    "MODEL_FORMAT",
    "ModelSpec",
    "Protocol",
    "RecipeName",
    "Sampling",
    "Schedule",
    "ThresholdBy",
    "TrainingRecipe",
]

Protocol = Literal["native", "published", "published_conv_lora"]
"""How a model was trained and is scored: at one pixel scale, or as TopoLoRA-SAM's or Conv-LoRA's authors do."""
ThresholdBy = Literal["dice", "cldice"]
"""What a stored threshold is best for."""
RecipeName = Literal["topolora", "published", "conv_lora", "published_conv_lora"]
"""The packaged bundle's ways to train."""
Sampling = Literal["uniform", "foreground"]
"""Where crops are cut: anywhere, or half of them around a pixel of the foreground."""
Schedule = Literal["cosine", "polynomial"]
"""How the learning rate falls."""

MODEL_FORMAT = 1
"""Number of the present format of headers."""

_MOST_CHANNELS = 1024


class _Rule(NamedTuple):
    """What an entry has to be, in words and as a check, and what is kept of one that is."""

    words: str
    holds: Callable[[Any], bool]
    kept: Callable[[Any], Any] = lambda found: found


def _is_number(value: Any, least: float = -1e300, most: float = 1e300) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _whole(least: int, most: int) -> _Rule:
    return _Rule(
        f"a whole number from {least} to {most}",
        lambda value: isinstance(value, int) and _is_number(value, least, most),
    )


def _text(length: int) -> _Rule:
    return _Rule(
        f"printable text of at most {length:,} characters",
        lambda value: isinstance(value, str) and 0 < len(value) <= length and value.isprintable(),
    )


def _rising(words: str, least: float = -1e300, most: float = 1e300) -> _Rule:
    def holds(pair: Any) -> bool:
        numbers = isinstance(pair, list | tuple) and len(pair) == 2 and all(_is_number(n, least, most) for n in pair)
        return numbers and pair[0] < pair[1]

    return _Rule(words, holds, lambda pair: tuple(map(float, pair)))


def _terms(most: float) -> _Rule:
    return _Rule(
        f"numbers from 0 to {most:g} by the names of loss terms",
        lambda found: (
            isinstance(found, Mapping)
            and found.keys() <= LOSS_TERMS.keys()
            and all(_is_number(number, 0, most) for number in found.values())
        ),
    )


def _are_looks(found: Any) -> bool:
    pair = found if isinstance(found, list | tuple) else [found, found]
    return len(pair) == 2 and all(map(_is_number, pair)) and 0 < pair[0] <= pair[1]


def _are_names(names: Any) -> bool:
    listed = isinstance(names, list | tuple) and len(names) <= _MOST_CHANNELS + 1 and all(map(_NAME.holds, names))
    return listed and len(set(names)) == len(names)


_NAME, _SIDE = _text(200), _whole(16, 8192)
_SHA256 = _Rule(
    "64 hexadecimal digits", lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
)
_ADAPTATION = _Rule(
    "an object, whose preset is printable text",
    lambda value: isinstance(value, Mapping) and (value.get("preset", "") == "" or _NAME.holds(value["preset"])),
)
_LABELS = _Rule(f"a list of different names, each {_NAME.words}", _are_names, tuple)
_LOOKS = _Rule(
    "a number above 0, or two, the lower first",
    _are_looks,
    lambda found: tuple(found) if type(found) is list else found,
)
_CROP_SIDE = _SIDE._replace(holds=lambda value: (_is_number(value) and value == 0) or _SIDE.holds(value))
_BELOW_ONE = _Rule("0 or more and less than 1", lambda value: _is_number(value, 0) and value < 1)

_Channels = Annotated[int, _whole(1, _MOST_CHANNELS)]
_Count = Annotated[int, _whole(1, 1_000_000)]
_Positive = Annotated[float, _Rule("a number above 0", lambda value: _is_number(value) and value > 0)]
_NotNegative = Annotated[float, _Rule("0 or more", lambda value: _is_number(value, 0))]
_Share = Annotated[float, _Rule("a number from 0 to 1", lambda value: _is_number(value, 0, 1))]


def _rule_of(hint: Any) -> _Rule:
    """The rule that annotates a type, or that the type says."""
    if get_origin(hint) is Annotated:
        rule: _Rule = hint.__metadata__[0]
    elif get_origin(hint) is Literal:
        rule = _Rule(" or ".join(get_args(hint)), lambda value: isinstance(value, str) and value in get_args(hint))
    elif hint is bool:
        rule = _Rule("true or false", lambda value: isinstance(value, bool))
    elif hint is str:
        rule = _NAME
    else:  # of a type or None
        some = _rule_of(get_args(hint)[0])
        rule = _Rule(
            some.words,
            lambda value: value is None or some.holds(value),
            lambda value: None if value is None else some.kept(value),
        )
    return rule


def _rules(kind: type) -> dict[str, _Rule]:
    hints = get_type_hints(kind, include_extras=True)
    return {name: _rule_of(hint) for name, hint in hints.items() if name != "further"}


def _check(entries: Any, whose: str) -> None:
    for name, rule in _rules(type(entries)).items():
        found = getattr(entries, name)
        if not rule.holds(found):
            raise ConfigError(f"wrong {name} of the {whose}", expected=rule.words, found=_shown(found))
        object.__setattr__(entries, name, rule.kept(found))


def _plain(entries: Any) -> dict[str, Any]:
    """What is known, as plain JSON types."""
    known = {name: getattr(entries, name) for name in _rules(type(entries))}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in known.items() if v is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How a model was trained: settings of the bundle's training workflow, as plain data.

    What is None is as the bundle has it. Of parts that were replaced by others nothing is known here.

    Args:
        name: of the bundle's configurations; their augmentation is a part of it.
        modality: chooses the augmentation.
        elastic_magnitude: largest shift in pixels by which images were bent.
        elastic_scale: smallest and largest factor by which they grew.
        colour_share, blur_share: of crops whose colours changed, and that were blurred.
        speckle_looks: of the speckle added to SAR images, one number or the lowest and highest.
        loss_weights, loss_ramps, skeleton, skeleton_iterations, loss_smooth: of
            :class:`~topolora_monai.losses.TopologyLoss`.
        matching_loss: whether networks that predict a set of masks were trained with their own loss instead.
        epochs: passes over the training images.
        crops_per_image: of each image in an epoch.
        sampling: where they are cut, ``"uniform"`` or ``"foreground"``.
        batch_size: crops in a step of one process.
        accumulation_steps: batches in a step of the optimiser.
        processes: that trained together.
        learning_rate, schedule, warmup_fraction: the highest, how it falls, and the share of steps in which it rises.
        weight_decay: of the optimiser.
        max_grad_norm: gradients were clipped to.
        ema_decay: of the average of the weights that was saved.
        prompt_share, prompt_rounds, prompt_clicks: of :class:`~topolora_monai.engines.PromptRounds`.
        calibrate: whether a temperature was chosen with the threshold.

    Raises:
        ConfigError: for an entry of another type or out of its range.

    Example:
        >>> TrainingRecipe(modality="sar", loss_weights={"structure": 1.0}, batch_size=2).to_dict()
        {'name': 'topolora', 'modality': 'sar', 'loss_weights': {'structure': 1.0}, 'batch_size': 2}
    """

    name: RecipeName = "topolora"
    modality: Modality | None = None
    elastic_magnitude: _NotNegative | None = None
    elastic_scale: Annotated[tuple[float, float], _rising("two numbers above 0, the lower first", 1e-3, 1e3)] | None = (
        None
    )
    colour_share: _Share | None = None
    blur_share: _Share | None = None
    speckle_looks: Annotated[float | tuple[float, float], _LOOKS] | None = None
    loss_weights: Annotated[Mapping[str, float], _terms(1e6)] | None = None
    loss_ramps: Annotated[Mapping[str, float], _terms(1)] | None = None
    skeleton: SkeletonMethod | None = None
    skeleton_iterations: Annotated[int, _whole(0, 1000)] | None = None
    loss_smooth: _Positive | None = None
    matching_loss: bool | None = None
    epochs: _Count | None = None
    crops_per_image: _Count | None = None
    sampling: Sampling | None = None
    batch_size: _Count | None = None
    accumulation_steps: _Count | None = None
    processes: _Count | None = None
    learning_rate: _Positive | None = None
    weight_decay: _NotNegative | None = None
    schedule: Schedule | None = None
    warmup_fraction: _Share | None = None
    max_grad_norm: _Positive | None = None
    ema_decay: Annotated[float, _BELOW_ONE] | None = None
    prompt_share: _Share | None = None
    prompt_rounds: _Count | None = None
    prompt_clicks: _Count | None = None
    calibrate: bool | None = None

    def __post_init__(self) -> None:
        _check(self, "recipe")

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> TrainingRecipe:
        """What :meth:`to_dict` gave; entries that are not known are left out.

        Raises:
            ConfigError: for a wrong one.
        """
        return cls(**{name: entries[name] for name in _rules(cls) if entries.get(name) is not None})

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> TrainingRecipe:
        """What of a run's settings can be remembered: those of another type or out of range are left out."""
        rules = _rules(cls)
        return cls(**{name: settings[name] for name in rules.keys() & settings if rules[name].holds(settings[name])})

    def to_dict(self) -> dict[str, Any]:
        """What is known, as plain JSON types."""
        return _plain(self)


_RECIPE = _Rule(
    "an object of a training recipe's entries",
    lambda found: isinstance(found, TrainingRecipe | Mapping),
    lambda found: found if isinstance(found, TrainingRecipe) else TrainingRecipe.from_dict(found),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A trained model, but for its tensors. What is made by hand or read from a file is checked alike.

    Whoever reads a model takes these entries from here: no other place has a default for one of them. Text among
    them is somebody's data; it is shown and written, never made a part of a configuration.

    Args:
        network_name: base network, as of :func:`~topolora_monai.networks.build_network`, or ``"custom"``.
        base_sha256: of the base's weights, 64 hexadecimal digits.
        adaptation: what :meth:`~topolora_monai.adapters.AdaptationConfig.from_dict` takes.
        package_version: that wrote the file.
        format: :data:`MODEL_FORMAT`.
        image_size: side in pixels at which the image encoder works, 16 to 8192.
        crop_size: side of tiles in pixels of the image, 16 to 8192; 0 takes ``image_size``. The two's ratio is the
            zoom.
        overlap: of the tiles that it was validated with, as a share of their side, less than 1.
        in_channels: of images, 1 to 1024.
        out_channels: classes without the background, 1 to 1024.
        fit, multiclass_head, mask_tokens: of :func:`~topolora_monai.networks.build_network`.
        prompts: whether it was trained to answer clicks, boxes and earlier masks, so that they are put to it.
        labels: names of the classes, the background first; none gives them numbers.
        activation: what makes probabilities of logits.
        pixel_values, percentiles, value_range: of :class:`~topolora_monai.transforms.IntensityScaling`.
        bits: that pictures of 16 bit fill.
        clahe: whether the green channel is equalised.
        despeckle_looks: of SAR images that the refined Lee filter smooths; None for no filter.
        view_diameter: of the fields of view of its training images, the median in pixels; None where they have none.
        thickness: along the skeletons of its training masks, the median width in pixels, of the thinnest class.
        threshold: foreground is ``probability >= threshold``.
        threshold_by: what the threshold was chosen by.
        temperature: that logits are divided by.
        protocol: that it was trained by.
        checkpoint: name of the published checkpoint that the base's weights are, as ``topolora weights list`` has it.
        seed: of those of the base's weights that no checkpoint gave.
        pretrained: whether the base's weights were published ones; None where nothing is known.
        dataset: trained on; None where nothing is known, as for the following.
        split_scheme: of the data set.
        annotator: whose masks.
        folds, fold: of a cross-validation, and which one.
        group_pattern: regular expression for what was not divided.
        ignore: value of pixels that nobody annotated.
        partial: what part of the data set was there.
        validation_dice: Dice on the validation split.
        recipe: that it was trained by; None where nothing is known.
        further: entries that this version does not know, as they are.

    Raises:
        ConfigError: for an entry of another type or out of its range, or labels that are not one more than the
            classes.

    Example:
        >>> spec = ModelSpec(
        ...     network_name="vit_t", base_sha256=64 * "0", adaptation={}, package_version="1.0", image_size=512
        ... )
        >>> spec.crop_size, spec.labels, spec.threshold
        (512, ('background', 'foreground'), 0.5)
        >>> ModelSpec.from_header(spec.to_header(), "a.safetensors") == spec
        True
    """

    network_name: str
    base_sha256: Annotated[str, _SHA256]
    adaptation: Annotated[Mapping[str, Any], _ADAPTATION]
    package_version: str
    format: Annotated[int, _whole(MODEL_FORMAT, MODEL_FORMAT)] = MODEL_FORMAT
    image_size: Annotated[int, _SIDE] = 1024
    crop_size: Annotated[int, _CROP_SIDE] = 0
    overlap: Annotated[float, _BELOW_ONE] = 0.5
    in_channels: _Channels = 3
    out_channels: _Channels = 1
    fit: Fit = "pad"
    multiclass_head: MulticlassHead = "per_class"
    mask_tokens: _Channels = 10
    prompts: bool = False
    labels: Annotated[tuple[str, ...], _LABELS] = ()
    activation: Activation = "sigmoid"
    pixel_values: PixelValues = "linear"
    percentiles: Annotated[tuple[float, float], _rising("two numbers from 0 to 100, the lower first", 0, 100)] = (
        1.0,
        99.0,
    )
    value_range: Annotated[tuple[float, float], _rising("two finite numbers, the lower first")] | None = None
    bits: Annotated[int, _whole(8, 16)] = 16
    clahe: bool = False
    despeckle_looks: _Positive | None = None
    view_diameter: _Positive | None = None
    thickness: _Positive | None = None
    threshold: _Share = 0.5
    threshold_by: ThresholdBy = "dice"
    temperature: _Positive = 1.0
    protocol: Protocol = "native"
    checkpoint: str | None = None
    seed: Annotated[int, _whole(-(2**63), 2**63 - 1)] = 0
    pretrained: bool | None = None
    dataset: str | None = None
    split_scheme: str | None = None
    annotator: str | None = None
    folds: Annotated[int, _whole(2, 10_000)] | None = None
    fold: Annotated[int, _whole(0, 10_000)] | None = None
    group_pattern: Annotated[str, _text(2000)] | None = None
    ignore: Annotated[int, _whole(-(2**31), 2**31)] | None = None
    partial: Annotated[str, _text(2000)] | None = None
    validation_dice: _Share | None = None
    recipe: Annotated[TrainingRecipe, _RECIPE] | None = None
    further: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self, "model")
        object.__setattr__(self, "crop_size", self.crop_size or self.image_size)
        object.__setattr__(self, "labels", self.labels or _numbered_names(self.out_channels))
        if len(self.labels) != self.out_channels + 1:
            raise ConfigError(
                "labels of the model do not fit its classes",
                expected=f"the background and {self.out_channels} more",
                found=f"{len(self.labels)}: {', '.join(self.labels)}"[:100],
            )

    @classmethod
    def from_header(cls, header: Mapping[str, Any], path: str | Path) -> ModelSpec:
        """What a header says. An optional entry may be missing or None; one that is not known is kept.

        Args:
            header: as read from a file.
            path: the file, for an error.

        Raises:
            AdapterFileError: for a format that is not known, an entry that is missing, of another type or out of
                its range, or labels that do not fit.
        """
        version = header.get("format")
        if version != MODEL_FORMAT or isinstance(version, bool):
            raise AdapterFileError(
                "adapter file of an unknown format",
                path=path,
                expected=MODEL_FORMAT,
                found=_shown(version),
                hint=f"use topolora_monai {_shown(header.get('package_version'))}",
            )
        rules = _rules(cls)
        known: dict[str, Any] = {name: header.get(name) for name in _REQUIRED}
        known |= {name: header[name] for name in rules if header.get(name) is not None}
        further = {name: value for name, value in header.items() if name not in rules}
        try:
            return cls(**known, further=further)
        except ConfigError as error:
            raise AdapterFileError(
                "header of the adapter file is wrong",
                path=path,
                found=error,
                hint="the file is damaged or was edited; copy it again",
            ) from error

    def to_header(self) -> dict[str, Any]:
        """Every entry as plain JSON types, but those of which nothing is known."""
        recipe = {} if self.recipe is None else {"recipe": self.recipe.to_dict()}
        return {**self.further, **_plain(self), **recipe}

    def replace(self, **changes: Any) -> ModelSpec:
        """The same model with other entries.

        Raises:
            ConfigError: as the class.
        """
        return dataclasses.replace(self, **changes)

    def loading_transforms(self, **label_options: Any) -> Compose:
        """How the model's images are read and prepared: a loader, and filters of what it gives.

        Args:
            **label_options: ``label_values`` and ``label_channels`` of :class:`~topolora_monai.transforms.LoadItem`.
        """
        decibels = self.pixel_values != "linear"
        steps: list[Any] = [LoadItem(self.in_channels, self.scaling, **label_options)]
        if self.clahe:
            steps.append(GreenClahed(keys="image", mask_key="fov"))
        if self.despeckle_looks is not None:
            steps.append(
                RefinedLeed(
                    keys="image",
                    looks=self.despeckle_looks,
                    pixel_values="db" if decibels else "amplitude",
                    db_range="limits" if decibels else None,
                    mask_key="fov",
                )
            )
        return Compose(steps)

    @property
    def network_settings(self) -> dict[str, Any]:
        """Arguments of :func:`~topolora_monai.networks.build_network`, but the weights."""
        names = ("network_name", "image_size", "in_channels", "out_channels", "fit", "multiclass_head", "mask_tokens")
        return {name: getattr(self, name) for name in (*names, "seed")}

    @property
    def scaling(self) -> IntensityScaling:
        """From the values of rasters and volumes to [0, 1]."""
        return IntensityScaling(self.pixel_values, self.percentiles, self.value_range, self.bits)

    @property
    def exclusive(self) -> bool:
        """Whether a pixel is of one class at most, among several."""
        return self.out_channels > 1 and self.activation == "softmax"

    @property
    def preset(self) -> str:
        """Name of the adaptation."""
        return str(self.adaptation.get("preset", "custom"))

    @property
    def pixel_scale(self) -> float:
        """Pixels of the network for one of the image."""
        return self.image_size / self.crop_size


_REQUIRED = ("network_name", "base_sha256", "adaptation", "package_version")


def _shown(value: Any) -> str:
    """A value as an error names it, however large it is."""
    return "nothing" if value is None else reprlib.repr(value)


def _numbered_names(classes: int) -> tuple[str, ...]:
    names = ("foreground",) if classes == 1 else tuple(f"class {number}" for number in range(1, classes + 1))
    return ("background", *names)
