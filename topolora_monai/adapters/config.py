"""What to train inside a frozen network, and the presets by name."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from topolora_monai.errors import ConfigError, unknown_choice

__all__ = [
    "METHODS",
    "PRESETS",
    "AdaptationConfig",
    "ConvLoraSettings",
    "DecoderLoraSettings",
    "Gate",
    "LoraSettings",
    "Normalization",
    "Preset",
    "preset_config",
]

Normalization = Literal["layer", "batch"]
Gate = Literal["learned", "published"]

LORA_TARGETS = ("mlp", "qkv", "proj")
DECODER_TARGETS = ("attention", "mlp")


def _checked_targets(targets: Iterable[str], known: tuple[str, ...] = LORA_TARGETS) -> tuple[str, ...]:
    chosen = tuple(targets)
    if not chosen or any(target not in known for target in chosen):
        raise ConfigError("unknown LoRA target", expected=f"some of {', '.join(known)}", found=chosen)
    return chosen


_LARGEST = {"rank": 4096, "experts": 64, "scales": 64}
"""Beyond these, memory that no machine has; files with settings come from anywhere."""


def _check_types(settings: Any, title: str = "") -> None:
    """Make sure that numbers and switches are some, and no larger than makes sense.

    Raises:
        ConfigError: for the first that is not.
    """
    for name, hint in typing.get_type_hints(type(settings)).items():
        kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
        value = getattr(settings, name)
        if not (value is None and type(None) in kinds):
            for kind in {bool, int, float}.intersection(kinds):
                _check_type(f"{title} {name}".strip(), value, kind)


def _check_type(name: str, value: Any, kind: type) -> None:
    largest = _LARGEST.get(name.rpartition(" ")[2], 1_000_000)
    if kind is bool:
        words, fits = "true or false", isinstance(value, bool)
    else:
        words = f"a {'whole ' if kind is int else ''}number, at most {largest:,}"
        known = int if kind is int else (int, float)
        fits = isinstance(value, known) and not isinstance(value, bool) and abs(value) <= largest
    if not fits:
        raise ConfigError(f"{name} is not possible", expected=words, found=repr(value)[:100])


def _check_update(title: str, rank: int, dropout: float) -> None:
    if rank < 1:
        raise ConfigError(f"{title} rank must be at least 1", found=rank, hint="choose a preset without it for none")
    if not 0.0 <= dropout < 1.0:
        raise ConfigError(f"{title} dropout must be in [0, 1)", found=dropout)


@dataclasses.dataclass(frozen=True)
class LoraSettings:
    """Low-rank updates of linear layers in the image encoder (Hu et al., arXiv 2106.09685), by PEFT.

    Args:
        targets: which linears of each transformer block: ``"mlp"`` (both layers), ``"qkv"``, ``"proj"``.
        rank: rank r of the update.
        alpha: the update is scaled by alpha / r.
        dropout: on the input of the update, in [0, 1).
        first_block: index of the first adapted transformer block, counted through the whole encoder; -4 adapts
            the last four. Autograd keeps nothing of the blocks before it.
        last_block: index after the last adapted block; None adapts to the end.
        use_dora: decompose weights into magnitude and direction (arXiv 2402.09353).
        use_rslora: scale by alpha / sqrt(r) (arXiv 2312.03732).

    Raises:
        ConfigError: for an impossible value.
    """

    targets: tuple[str, ...] = ("mlp",)
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    first_block: int = 0
    last_block: int | None = None
    use_dora: bool = False
    use_rslora: bool = False

    def __post_init__(self) -> None:
        _check_types(self, "LoRA")
        object.__setattr__(self, "targets", _checked_targets(self.targets))
        _check_update("LoRA", self.rank, self.dropout)


@dataclasses.dataclass(frozen=True)
class DecoderLoraSettings:
    """Low-rank updates of the mask decoder's transformer, in place of training the decoder whole, by PEFT.

    Args:
        targets: ``"attention"`` (queries, keys, values and output of every attention), ``"mlp"`` (both layers).
        rank: rank r of the update.
        alpha: the update is scaled by alpha / r.
        dropout: on the input of the update, in [0, 1).
        use_dora: decompose weights into magnitude and direction (arXiv 2402.09353).
        use_rslora: scale by alpha / sqrt(r) (arXiv 2312.03732).

    Raises:
        ConfigError: for an impossible value.
    """

    targets: tuple[str, ...] = DECODER_TARGETS
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    use_dora: bool = False
    use_rslora: bool = False

    def __post_init__(self) -> None:
        _check_types(self, "decoder LoRA")
        object.__setattr__(self, "targets", _checked_targets(self.targets, DECODER_TARGETS))
        _check_update("decoder LoRA", self.rank, self.dropout)


@dataclasses.dataclass(frozen=True)
class ConvLoraSettings:
    """Low-rank updates mixed by convolutions in the image encoder (Conv-LoRA, ICLR 2024, arXiv 2401.17868).

    Args:
        targets: which linears of each transformer block: ``"qkv"`` as published, routed by attention window
            where there are windows; ``"proj"`` and ``"mlp"`` (both layers), routed by image in SAM's ViT.
        rank: rank r of the update; 0 adapts nothing.
        alpha: the update is scaled by alpha / r.
        experts: number of convolutions to choose from.
        scales: one whole number an expert, the scale it works at; None for 1 to ``experts``.
        top_k: experts that answer for each image or window.
        gate: ``"learned"`` weights answers by the gate's probabilities, so that the task trains the routing;
            ``"published"`` weights them by one, as the reference code does.
        balance_weight: weight of the loss that keeps the experts equally busy.
        first_block: index of the first adapted transformer block, counted through the whole encoder.
        last_block: index after the last adapted block; None adapts to the end.

    Raises:
        ConfigError: for an impossible value.

    Example:
        >>> ConvLoraSettings(experts=2).expert_scales
        (1, 2)
    """

    targets: tuple[str, ...] = ("qkv",)
    rank: int = 3
    alpha: float = 32.0
    experts: int = 8
    scales: tuple[int, ...] | None = None
    top_k: int = 1
    gate: Gate = "learned"
    balance_weight: float = 1e-2
    first_block: int = 0
    last_block: int | None = None

    def __post_init__(self) -> None:
        _check_types(self, "Conv-LoRA")
        object.__setattr__(self, "targets", _checked_targets(self.targets))
        if self.scales is not None:
            object.__setattr__(self, "scales", tuple(self.scales))
            for scale in self.scales:
                _check_type("Conv-LoRA scales", scale, int)
        if self.rank < 0:
            raise ConfigError("Conv-LoRA rank must not be negative", found=self.rank)
        if self.experts < 1:
            raise ConfigError("Conv-LoRA needs an expert", found=self.experts, hint="choose preset lora_qkv for none")
        scales = self.expert_scales
        if len(scales) != self.experts or any(scale < 1 for scale in scales):
            raise ConfigError(
                "Conv-LoRA scales do not fit",
                expected=f"{self.experts} whole numbers from 1, one an expert",
                found=scales,
                hint="set experts and scales together",
            )
        if not 1 <= self.top_k <= self.experts:
            raise ConfigError("Conv-LoRA top_k does not fit", expected=f"1 to {self.experts}", found=self.top_k)
        if self.gate not in ("learned", "published"):
            raise ConfigError("unknown Conv-LoRA gate", expected='"learned" or "published"', found=repr(self.gate))
        if not self.balance_weight >= 0:
            raise ConfigError("Conv-LoRA balance_weight must not be negative", found=self.balance_weight)

    @property
    def expert_scales(self) -> tuple[int, ...]:
        """Scale of each expert."""
        return self.scales if self.scales is not None else tuple(range(1, self.experts + 1))


_FORMER = {"adalora": None, "train_biases": False, "train_norms": False, "base_quantization": "none"}
"""Fields of methods that were taken out, with the value by which a file says that it does not use them."""


@dataclasses.dataclass(frozen=True)
class AdaptationConfig:
    """Which parts of a segmenter train; everything else is frozen.

    Args:
        preset: name this configuration started from, for reports.
        lora: low-rank updates in the image encoder, or None.
        conv_lora: low-rank updates mixed by convolutions, or None; on other linears than ``lora``.
        decoder_lora: low-rank updates in the mask decoder, or None.
        conv_adapter: put a spatial convolution adapter between image encoder and mask decoder.
        conv_adapter_norm: ``"layer"`` normalises each pixel and so does not depend on the batch;
            ``"batch"`` is the published BatchNorm.
        train_decoder: train the mask decoder.
        train_encoder: train the image encoder itself.
        freeze_unused: keep parts that no gradient can reach (IoU head, hyper-networks 1 to 3) frozen.

    Raises:
        ConfigError: if nothing would train, two methods take the same part, or a choice is unknown.
    """

    preset: str = "custom"
    lora: LoraSettings | None = None
    conv_lora: ConvLoraSettings | None = None
    conv_adapter: bool = False
    conv_adapter_norm: Normalization = "layer"
    train_decoder: bool = False
    train_encoder: bool = False
    freeze_unused: bool = True
    decoder_lora: DecoderLoraSettings | None = None

    def __post_init__(self) -> None:
        _check_types(self)
        if not (self.train_decoder or self.train_encoder or self.adds_parameters):
            raise ConfigError("this configuration trains nothing", hint=f"choose a preset: {', '.join(PRESETS)}")
        self._check_sharing()
        if self.conv_adapter_norm not in ("layer", "batch"):
            raise ConfigError(
                "unknown conv_adapter_norm", expected='"layer" or "batch"', found=repr(self.conv_adapter_norm)
            )

    def _check_sharing(self) -> None:
        shared = set(self.lora.targets) & set(self.conv_lora.targets) if self.lora and self.conv_lora else set()
        if shared:
            raise ConfigError(
                "LoRA and Conv-LoRA adapt the same linears",
                found=", ".join(sorted(shared)),
                hint="set targets of lora or conv_lora, or one of them to false",
            )
        if self.decoder_lora is not None and self.train_decoder:
            raise ConfigError(
                "the mask decoder trains whole and by LoRA", hint="set train_decoder false, or decoder_lora false"
            )

    @property
    def adds_parameters(self) -> bool:
        """Whether anything is added to the network."""
        conv_lora = self.conv_lora is not None and self.conv_lora.rank > 0
        return bool(self.lora or conv_lora or self.decoder_lora or self.conv_adapter)

    @property
    def trains_whole(self) -> bool:
        """Whether the network's own weights train, all of them, and nothing is added."""
        return self.train_encoder and self.train_decoder and not self.adds_parameters and self.conv_lora is None

    @property
    def mergeable(self) -> Literal["fully", "partly", "no"]:
        """Whether :func:`~topolora_monai.adapters.merge` leaves the base's own layers and no others."""
        stays = self.conv_adapter or (self.conv_lora is not None and self.conv_lora.rank > 0)
        if not stays:
            return "fully"
        return "partly" if self.lora or self.decoder_lora else "no"

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, as stored in adapter files."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AdaptationConfig:
        """Inverse of :meth:`to_dict`; fields that an older version did not have take their defaults.

        Raises:
            ConfigError: for fields this version does not know, or methods that it no longer has.
        """
        used = [name for name, unused in _FORMER.items() if values.get(name, unused) != unused]
        if used:
            raise ConfigError(
                "this adapter was trained by a method that topolora_monai no longer has",
                found=", ".join(used),
                hint="versions of topolora_monai before the release of 0.1.0 read it",
            )
        values = {name: value for name, value in values.items() if name not in _FORMER}
        try:
            given = {name: values[name] for name in METHODS if values.get(name) is not None}
            return cls(**values | {name: METHODS[name].settings(**fields) for name, fields in given.items()})
        except TypeError as error:
            raise ConfigError(f"unknown adaptation setting ({error})", hint="use a newer topolora_monai") from error


class Method(NamedTuple):
    """A method with settings of its own.

    Args:
        title: its name in messages.
        settings: class of its settings.
    """

    title: str
    settings: type[Any]


METHODS: dict[str, Method] = {
    "lora": Method("LoRA", LoraSettings),
    "conv_lora": Method("Conv-LoRA", ConvLoraSettings),
    "decoder_lora": Method("decoder LoRA", DecoderLoraSettings),
}
"""Field of :class:`AdaptationConfig` to the method."""


class Preset(NamedTuple):
    """A way to adapt, by name.

    Args:
        trains: what trains, in words.
        paper: arXiv number of the paper, empty where there is none.
        fields: what differs from a frozen network, fields of :class:`AdaptationConfig`.
    """

    trains: str
    paper: str
    fields: dict[str, Any]


_LORA = LoraSettings()
_DECODER: dict[str, Any] = {"train_decoder": True}

PRESETS: dict[str, Preset] = {
    "topolora": Preset(
        "LoRA on the MLPs, spatial convolution adapter, decoder",
        "2601.02273",
        {"lora": _LORA, "conv_adapter": True} | _DECODER,
    ),
    "lora": Preset("LoRA on the MLPs, decoder", "2106.09685", {"lora": _LORA} | _DECODER),
    "lora_late": Preset(
        "LoRA on the MLPs of the last four blocks, decoder", "", {"lora": LoraSettings(first_block=-4)} | _DECODER
    ),
    "lora_qkv": Preset(
        "LoRA on queries, keys and values, decoder",
        "2401.17868",
        {"lora": LoraSettings(targets=("qkv",), rank=3, alpha=32.0)} | _DECODER,
    ),
    "lora_decoder": Preset(
        "LoRA on the MLPs and in the decoder's transformer", "", {"lora": _LORA, "decoder_lora": DecoderLoraSettings()}
    ),
    "dora": Preset("DoRA on the MLPs, decoder", "2402.09353", {"lora": LoraSettings(use_dora=True)} | _DECODER),
    "rslora": Preset("rsLoRA on the MLPs, decoder", "2312.03732", {"lora": LoraSettings(use_rslora=True)} | _DECODER),
    "conv_lora": Preset(
        "Conv-LoRA on queries, keys and values, decoder", "2401.17868", {"conv_lora": ConvLoraSettings()} | _DECODER
    ),
    "topolora_conv": Preset(
        "all of topolora and of conv_lora",
        "",
        {"lora": _LORA, "conv_lora": ConvLoraSettings(), "conv_adapter": True} | _DECODER,
    ),
    "adapter_only": Preset("spatial convolution adapter", "2601.02273", {"conv_adapter": True}),
    "decoder_only": Preset("decoder", "", _DECODER),
    "full": Preset("image encoder and decoder", "", {"train_encoder": True} | _DECODER),
}
"""Presets by name.

``topolora`` is arXiv 2601.02273 but for its convolution adapter, which starts as a no-op and normalises each pixel
instead of the batch (``conv_adapter_norm="batch"`` gives BatchNorm). ``conv_lora`` is arXiv 2401.17868, as published
but for the gate (``conv_lora={"gate": "published"}`` gives that, too), and ``lora_qkv`` the plain LoRA that its paper
compares with.
``topolora_conv`` is the union of both papers, each at its own place: LoRA on the MLPs, Conv-LoRA on the fused
queries, keys and values, the spatial adapter on the embedding, and the decoder.
"""


def preset_config(preset: str, **changes: Any) -> AdaptationConfig:
    """Configuration of a preset, with single settings replaced and methods added or taken away.

    Args:
        preset: one of :data:`PRESETS`.
        **changes: fields of :class:`AdaptationConfig`. A method of :data:`METHODS` takes a mapping of its settings,
            which adds it where the preset has none; True adds it with its defaults, False takes it away. None and
            an empty mapping leave the preset's; ``"true"`` and ``"false"`` count as what they say.

    Raises:
        ConfigError: for an unknown preset or setting, or an impossible value.

    Example:
        >>> preset_config("topolora", lora={"rank": 4}).lora.rank
        4
        >>> mixed = preset_config("topolora", train_decoder=False, decoder_lora=True, lora={"use_dora": True})
        >>> mixed.lora.use_dora, mixed.conv_adapter, mixed.decoder_lora.rank
        (True, True, 8)
    """
    if preset not in PRESETS:
        raise unknown_choice("preset", preset, PRESETS)
    fields = dict(PRESETS[preset].fields)
    for name, value in changes.items():
        if name in METHODS and value is not None:
            fields[name] = _method(name, _plain(value), fields.get(name))
        elif value is not None:
            fields[name] = _plain(value)
    _check_known(AdaptationConfig, fields)
    return AdaptationConfig(**{"preset": preset, **fields})


def _plain(value: Any) -> Any:
    """MONAI's command line passes on ``true`` and ``false`` as words."""
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


def _method(name: str, wanted: Any, present: Any) -> Any:
    """Settings of a method that is asked for or not, given those of the preset."""
    settings = METHODS[name].settings
    if isinstance(wanted, bool):
        return (present or settings()) if wanted else None
    if not isinstance(wanted, Mapping):
        raise ConfigError(
            f"{name} adds or takes away a method", expected="true, false or its settings", found=repr(wanted)
        )
    if not wanted:
        return present
    _check_known(settings, wanted)
    return dataclasses.replace(present or settings(), **{key: _plain(value) for key, value in wanted.items()})


def _check_known(settings: type[Any], changes: Mapping[str, Any]) -> None:
    known = {field.name for field in dataclasses.fields(settings)}
    unknown = sorted(changes.keys() - known)
    if unknown:
        raise ConfigError("unknown adaptation setting", expected=", ".join(sorted(known)), found=", ".join(unknown))
