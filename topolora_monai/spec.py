"""What a trained model is: every entry of an adapter file's header, its type, its range and its default.

How it was trained is one of them.
"""

# ruff: noqa: RUF009 - `_entry` gives fields

from __future__ import annotations

import dataclasses
import math
import re
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

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

__all__ = ["MODEL_FORMAT", "ModelSpec", "Protocol", "RecipeName", "Schedule", "ThresholdBy", "TrainingRecipe"]

Protocol = Literal["native", "published", "published_conv_lora"]
"""How a model was trained and is scored: at one pixel scale, or as TopoLoRA-SAM's or Conv-LoRA's authors do."""
ThresholdBy = Literal["dice", "cldice"]
"""What a stored threshold is best for."""
RecipeName = Literal["topolora", "published", "conv_lora", "published_conv_lora"]
"""The packaged bundle's ways to train."""
Schedule = Literal["cosine", "polynomial"]
"""How the learning rate falls."""

MODEL_FORMAT = 1
"""Number of the present format of headers."""

_CHANNELS = (1, 1024)


class _Rule(NamedTuple):
    """What an entry has to be: in words, and as a function that gives the value or raises ``ValueError``."""

    words: str
    value: Callable[[Any], Any]


def _rule(words: str, holds: Callable[[Any], bool]) -> _Rule:
    def value(found: Any) -> Any:
        if not holds(found):
            raise ValueError(words)
        return found

    return _Rule(words, value)


def _text(length: int = 200) -> _Rule:
    return _rule(
        f"printable text of at most {length:,} characters",
        lambda value: isinstance(value, str) and 0 < len(value) <= length and value.isprintable(),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def _whole(least: int, most: int) -> _Rule:
    return _rule(
        f"a whole number from {least} to {most}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most,
    )


def _rising(words: str, least: float = -math.inf, most: float = math.inf) -> _Rule:
    def holds(pair: Any) -> bool:
        numbers = isinstance(pair, list | tuple) and len(pair) == 2 and all(map(_is_number, pair))
        return numbers and least <= pair[0] < pair[1] <= most

    rule = _rule(words, holds)
    return rule._replace(value=lambda pair: tuple(map(float, rule.value(pair))))


def _choice(of: Any) -> _Rule:
    return _rule(" or ".join(get_args(of)), lambda value: isinstance(value, str) and value in get_args(of))


def _optional(rule: _Rule) -> _Rule:
    return rule._replace(value=lambda value: None if value is None else rule.value(value))


def _or_zero(rule: _Rule) -> _Rule:
    return rule._replace(value=lambda value: 0 if value == 0 and value is not False else rule.value(value))


def _names() -> _Rule:
    name = _text()

    def holds(names: Any) -> bool:
        return (
            isinstance(names, list | tuple)
            and len(names) <= _CHANNELS[1] + 1
            and all(isinstance(one, str) for one in names)
            and len(set(names)) == len(names)
        )

    rule = _rule(f"a list of different names, each {name.words}", holds)
    return rule._replace(value=lambda names: tuple(map(name.value, rule.value(names))))


def _terms(most: float) -> _Rule:
    return _rule(
        f"numbers from 0 to {most:g} by the names of loss terms",
        lambda found: (
            isinstance(found, Mapping)
            and found.keys() <= LOSS_TERMS.keys()
            and all(_is_number(number) and 0 <= number <= most for number in found.values())
        ),
    )


def _looks() -> _Rule:
    def holds(found: Any) -> bool:
        pair = found if isinstance(found, list | tuple) else [found, found]
        return len(pair) == 2 and all(map(_is_number, pair)) and 0 < pair[0] <= pair[1]

    rule = _rule("a number above 0, or two, the lower first", holds)
    return rule._replace(value=lambda found: tuple(found) if isinstance(rule.value(found), list) else found)


_SIDE, _CHANNEL_COUNT = _whole(16, 8192), _whole(*_CHANNELS)
_SWITCH = _rule("true or false", lambda value: isinstance(value, bool))
_POSITIVE = _rule("a number above 0", lambda value: _is_number(value) and value > 0)
_SHARE = _rule("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
_FIT = _choice(Fit)
_MULTICLASS_HEAD = _choice(MulticlassHead)
_ACTIVATION = _choice(Activation)
_PIXEL_VALUES = _choice(PixelValues)
_THRESHOLD_BY = _choice(ThresholdBy)
_PROTOCOL = _choice(Protocol)
_ADAPTATION = _rule(
    "an object, whose preset is printable text",
    lambda value: (
        isinstance(value, Mapping)
        and isinstance(value.get("preset", ""), str)
        and len(value.get("preset", "")) <= 200
        and value.get("preset", "").isprintable()
    ),
)
_OBJECT = _rule("an object", lambda value: isinstance(value, Mapping))
_SHA256 = _rule(
    "64 hexadecimal digits", lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
)


def _entry(rule: _Rule, default: Any = dataclasses.MISSING) -> Any:
    return dataclasses.field(default=default, metadata={"rule": rule})


def _rules(kind: type) -> dict[str, _Rule]:
    return {entry.name: entry.metadata["rule"] for entry in dataclasses.fields(kind) if "rule" in entry.metadata}


def _maybe(rule: _Rule) -> Any:
    return _entry(_optional(rule), None)


_COUNT = _whole(1, 1_000_000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How a model was trained: settings of the bundle's training workflow, as plain data.

    What is None is as the bundle has it. Of parts that were replaced by others nothing is known here.

    Args:
        name: of the bundle's configurations; their augmentation is a part of it.
        modality: chooses the augmentation.
        elastic_magnitude: largest shift in pixels by which images were bent.
        speckle_looks: of the speckle added to SAR images, one number or the lowest and highest.
        loss_weights: of :class:`~topolora_monai.losses.TopologyLoss`, as the next four.
        loss_ramps: likewise.
        skeleton: likewise.
        skeleton_iterations: likewise.
        loss_smooth: likewise.
        matching_loss: whether networks that predict a set of masks were trained with their own loss instead.
        epochs: passes over the training images.
        crops_per_image: of each image in an epoch.
        batch_size: crops in a step of one process.
        accumulation_steps: batches in a step of the optimiser.
        processes: that trained together.
        learning_rate: the highest.
        weight_decay: of the optimiser.
        schedule: of the learning rate.
        warmup_fraction: of the steps.
        max_grad_norm: gradients were clipped to.
        calibrate: whether a temperature was chosen with the threshold.

    Raises:
        ConfigError: for an entry of another type or out of its range.

    Example:
        >>> TrainingRecipe(modality="sar", loss_weights={"structure": 1.0}, batch_size=2).to_dict()
        {'name': 'topolora', 'modality': 'sar', 'loss_weights': {'structure': 1.0}, 'batch_size': 2}
    """

    name: RecipeName = _entry(_choice(RecipeName), "topolora")
    modality: Modality | None = _maybe(_choice(Modality))
    elastic_magnitude: float | None = _maybe(_rule("0 or more", lambda value: _is_number(value) and value >= 0))
    speckle_looks: float | tuple[float, float] | None = _maybe(_looks())
    loss_weights: Mapping[str, float] | None = _maybe(_terms(1e6))
    loss_ramps: Mapping[str, float] | None = _maybe(_terms(1))
    skeleton: SkeletonMethod | None = _maybe(_choice(SkeletonMethod))
    skeleton_iterations: int | None = _maybe(_whole(0, 1000))
    loss_smooth: float | None = _maybe(_POSITIVE)
    matching_loss: bool | None = _maybe(_SWITCH)
    epochs: int | None = _maybe(_COUNT)
    crops_per_image: int | None = _maybe(_COUNT)
    batch_size: int | None = _maybe(_COUNT)
    accumulation_steps: int | None = _maybe(_COUNT)
    processes: int | None = _maybe(_COUNT)
    learning_rate: float | None = _maybe(_POSITIVE)
    weight_decay: float | None = _maybe(_rule("0 or more", lambda value: _is_number(value) and value >= 0))
    schedule: Schedule | None = _maybe(_choice(Schedule))
    warmup_fraction: float | None = _maybe(_SHARE)
    max_grad_norm: float | None = _maybe(_POSITIVE)
    calibrate: bool | None = _maybe(_SWITCH)

    def __post_init__(self) -> None:
        for name, rule in _rules(type(self)).items():
            object.__setattr__(self, name, _value(name, rule, getattr(self, name), "recipe"))

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
        return cls(**{name: settings[name] for name in rules.keys() & settings if _holds(rules[name], settings[name])})

    def to_dict(self) -> dict[str, Any]:
        """What is known, as plain JSON types."""
        known = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in known.items()}


_RECIPE = _Rule(
    "an object of a training recipe's entries",
    lambda found: found if isinstance(found, TrainingRecipe) else TrainingRecipe.from_dict(_OBJECT.value(found)),
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
        in_channels: of images, 1 to 1024.
        out_channels: classes without the background, 1 to 1024.
        fit: of :class:`~topolora_monai.networks.SamSegmenter`.
        multiclass_head: of :func:`~topolora_monai.networks.build_network`.
        mask_tokens: likewise.
        labels: names of the classes, the background first; none gives them numbers.
        activation: what makes probabilities of logits.
        pixel_values: of :class:`~topolora_monai.transforms.IntensityScaling`.
        percentiles: likewise.
        value_range: likewise.
        bits: that pictures of 16 bit fill.
        clahe: whether the green channel is equalised.
        despeckle_looks: of SAR images that the refined Lee filter smooths; None for no filter.
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
        folds: of a cross-validation.
        fold: which one.
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

    network_name: str = _entry(_text())
    base_sha256: str = _entry(_SHA256)
    adaptation: Mapping[str, Any] = _entry(_ADAPTATION)
    package_version: str = _entry(_text())
    format: int = _entry(_whole(MODEL_FORMAT, MODEL_FORMAT), MODEL_FORMAT)
    image_size: int = _entry(_SIDE, 1024)
    crop_size: int = _entry(_or_zero(_SIDE), 0)
    in_channels: int = _entry(_CHANNEL_COUNT, 3)
    out_channels: int = _entry(_CHANNEL_COUNT, 1)
    fit: Fit = _entry(_FIT, "pad")
    multiclass_head: MulticlassHead = _entry(_MULTICLASS_HEAD, "per_class")
    mask_tokens: int = _entry(_CHANNEL_COUNT, 10)
    labels: tuple[str, ...] = _entry(_names(), ())
    activation: Activation = _entry(_ACTIVATION, "sigmoid")
    pixel_values: PixelValues = _entry(_PIXEL_VALUES, "linear")
    percentiles: tuple[float, float] = _entry(
        _rising("two numbers from 0 to 100, the lower first", 0, 100), (1.0, 99.0)
    )
    value_range: tuple[float, float] | None = _entry(_optional(_rising("two finite numbers, the lower first")), None)
    bits: int = _entry(_whole(8, 16), 16)
    clahe: bool = _entry(_SWITCH, False)
    despeckle_looks: float | None = _entry(_optional(_POSITIVE), None)
    threshold: float = _entry(_SHARE, 0.5)
    threshold_by: ThresholdBy = _entry(_THRESHOLD_BY, "dice")
    temperature: float = _entry(_POSITIVE, 1.0)
    protocol: Protocol = _entry(_PROTOCOL, "native")
    checkpoint: str | None = _entry(_optional(_text()), None)
    seed: int = _entry(_whole(-(2**63), 2**63 - 1), 0)
    pretrained: bool | None = _entry(_optional(_SWITCH), None)
    dataset: str | None = _entry(_optional(_text()), None)
    split_scheme: str | None = _entry(_optional(_text()), None)
    annotator: str | None = _entry(_optional(_text()), None)
    folds: int | None = _entry(_optional(_whole(2, 10_000)), None)
    fold: int | None = _entry(_optional(_whole(0, 10_000)), None)
    group_pattern: str | None = _entry(_optional(_text(2000)), None)
    ignore: int | None = _entry(_optional(_whole(-(2**31), 2**31)), None)
    partial: str | None = _entry(_optional(_text(2000)), None)
    validation_dice: float | None = _entry(_optional(_SHARE), None)
    recipe: TrainingRecipe | None = _entry(_optional(_RECIPE), None)
    further: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, rule in _RULES.items():
            object.__setattr__(self, name, _value(name, rule, getattr(self, name), "model"))
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
        known: dict[str, Any] = {name: header.get(name) for name in _REQUIRED}
        known |= {name: header[name] for name in _RULES if header.get(name) is not None}
        further = {name: value for name, value in header.items() if name not in _RULES}
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
        known = {name: getattr(self, name) for name in _RULES}
        known["recipe"] = None if self.recipe is None else self.recipe.to_dict()
        listed = {name: list(value) if isinstance(value, tuple) else value for name, value in known.items()}
        return {**self.further, **{name: value for name, value in listed.items() if value is not None}}

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


_RULES = _rules(ModelSpec)
_REQUIRED = ("network_name", "base_sha256", "adaptation", "package_version")


def _value(name: str, rule: _Rule, found: Any, whose: str) -> Any:
    try:
        return rule.value(found)
    except ConfigError:  # of an entry within it
        raise
    except ValueError:
        raise ConfigError(f"wrong {name} of the {whose}", expected=rule.words, found=_shown(found)) from None


def _holds(rule: _Rule, found: Any) -> bool:
    try:
        rule.value(found)
    except ValueError:
        return False
    return True


def _shown(value: Any) -> str:
    """A value as an error names it, however large it is."""
    return "nothing" if value is None else reprlib.repr(value)


def _numbered_names(classes: int) -> tuple[str, ...]:
    names = ("foreground",) if classes == 1 else tuple(f"class {number}" for number in range(1, classes + 1))
    return ("background", *names)
