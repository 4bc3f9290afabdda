"""What to train inside a frozen network, and the presets by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from peft import LoraConfig

from topolora_monai.adapters.conv_lora import ConvLoraConfig
from topolora_monai.adapters.spatial_conv import Normalization
from topolora_monai.errors import ConfigError, unknown_choice


@dataclasses.dataclass(frozen=True)
class LowRank:
    """Low-rank updates by a method of PEFT, and the linears that they go to.

    Args:
        peft: the method and its settings, without its ``target_modules``, which follow from the others.
        targets: in the image encoder which linears of each transformer block: ``"mlp"`` (both layers), ``"qkv"``,
            ``"proj"``; in the mask decoder ``"attention"`` (queries, keys, values and output), ``"mlp"``.
        first_block: index of the first adapted transformer block, counted through the whole encoder; -4 adapts the
            last four. Autograd keeps nothing of the blocks before it.
        last_block: index after the last adapted block; None adapts to the end.
    """

    peft: LoraConfig | ConvLoraConfig
    targets: tuple[str, ...]
    first_block: int = 0
    last_block: int | None = None


FORMER_NAMES: dict[str, str] = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "experts": "scales"}
"""Names of settings in older files and commands, which still count; ``experts`` gives scales 1 to that number."""

_FORMER_METHODS = {"adalora": None, "train_biases": False, "train_norms": False, "base_quantization": "none"}
"""Fields of methods that were taken out, with the value by which a file says that it does not use them."""


class _Rule(NamedTuple):
    """What a setting has to be; limits are those of memory, as files with settings come from anywhere."""

    words: str
    holds: Callable[[Any], bool]


def _whole(least: int, most: int) -> _Rule:
    return _Rule(f"a whole number from {least} to {most}", lambda value: type(value) is int and least <= value <= most)


def _number(words: str, holds: Callable[[float], bool]) -> _Rule:
    return _Rule(words, lambda value: type(value) in (int, float) and abs(value) <= 1e6 and holds(value))


def _some_of(*known: str) -> _Rule:
    words = f"some of {', '.join(known)}"
    return _Rule(words, lambda value: isinstance(value, tuple) and bool(value) and all(one in known for one in value))


_SWITCH = _Rule("true or false", lambda value: isinstance(value, bool))
_BLOCK, _SCALE = _whole(-10_000, 10_000), _whole(1, 64)
_RULES = {
    "r": _whole(1, 4096),
    "lora_alpha": _number("a number up to a million", lambda value: True),
    "lora_dropout": _number("a number from 0, below 1", lambda value: 0 <= value < 1),
    "first_block": _BLOCK,
    "last_block": _Rule("a whole number, or nothing", lambda value: value is None or _BLOCK.holds(value)),
    "scales": _Rule(
        "1 to 64 scales of experts, whole numbers from 1 to 64",
        lambda value: isinstance(value, tuple | list) and 0 < len(value) <= 64 and all(map(_SCALE.holds, value)),
    ),
    "top_k": _whole(1, 64),
    "balance_weight": _number("a number from 0", lambda value: value >= 0),
    "conv_adapter_norm": _Rule('"layer" or "batch"', lambda value: value in ("layer", "batch")),
    **dict.fromkeys(
        ("use_dora", "use_rslora", "conv_adapter", "detail_branch", "train_decoder", "train_encoder", "freeze_unused"),
        _SWITCH,
    ),
}


class Method(NamedTuple):
    """A method with settings of its own: their defaults, the rule of its targets, and the names of what can be set."""

    default: LowRank
    targets: _Rule
    settings: tuple[str, ...]


_BLOCK_TARGETS = _some_of("mlp", "qkv", "proj")
_DECODER = ("attention", "mlp")
_PLACE = ("targets", "first_block", "last_block")
_LORA_SETTINGS = ("r", "lora_alpha", "lora_dropout", "use_dora", "use_rslora")
_CONV_LORA_SETTINGS = ("r", "lora_alpha", "scales", "top_k", "gate", "balance_weight")
_LORA = LoraConfig(r=8, lora_alpha=16)

METHODS: dict[str, Method] = {
    "lora": Method(LowRank(_LORA, ("mlp",)), _BLOCK_TARGETS, (*_PLACE, *_LORA_SETTINGS)),
    "conv_lora": Method(LowRank(ConvLoraConfig(), ("qkv",)), _BLOCK_TARGETS, (*_PLACE, *_CONV_LORA_SETTINGS)),
    "decoder_lora": Method(LowRank(_LORA, _DECODER), _some_of(*_DECODER), ("targets", *_LORA_SETTINGS)),
}
"""Field of :class:`AdaptationConfig` to the method. Settings are PEFT's own:

LoRA (Hu et al., arXiv 2106.09685) has ``r``, ``lora_alpha`` (the update is scaled by ``lora_alpha / r``),
``lora_dropout``, ``use_dora`` (magnitude and direction, arXiv 2402.09353) and ``use_rslora`` (scaled by
``lora_alpha / sqrt(r)``, arXiv 2312.03732); Conv-LoRA has those of :class:`ConvLoraConfig`, and published it is on
``qkv``, routed by attention window where there are windows.
"""


@dataclasses.dataclass(frozen=True)
class AdaptationConfig:
    """Which parts of a segmenter train; everything else is frozen.

    Args:
        preset: name this configuration started from, for reports.
        lora: low-rank updates in the image encoder, or None; see :data:`METHODS` for those of all three methods.
        conv_lora: low-rank updates mixed by convolutions, or None; on other linears than ``lora``.
        decoder_lora: low-rank updates in the mask decoder's transformer, in place of training the decoder, or None.
        conv_adapter: put a spatial convolution adapter between image encoder and mask decoder.
        conv_adapter_norm: ``"layer"`` normalises each pixel and so does not depend on the batch;
            ``"batch"`` is the published BatchNorm.
        detail_branch: refine the mask decoder's logits by convolutions on the image at its own resolution; not of a
            token set.
        train_decoder: train the mask decoder.
        train_encoder: train the image encoder itself.
        freeze_unused: keep parts that no gradient can reach (IoU head, hyper-networks 1 to 3) frozen.

    Raises:
        ConfigError: if nothing would train, two methods take the same part, or a value is not possible.
    """

    preset: str = "custom"
    lora: LowRank | None = None
    conv_lora: LowRank | None = None
    conv_adapter: bool = False
    conv_adapter_norm: Normalization = "layer"
    train_decoder: bool = False
    train_encoder: bool = False
    freeze_unused: bool = True
    decoder_lora: LowRank | None = None
    detail_branch: bool = False

    def __post_init__(self) -> None:
        for name, value in self.to_dict().items():
            if name not in METHODS:
                _check(name, value)
            elif value is not None:
                for setting, found in value.items():
                    _check(f"{name}#{setting}", found, METHODS[name].targets if setting == "targets" else None)
        if not (self.train_decoder or self.train_encoder or self.adds_parameters):
            raise ConfigError("this configuration trains nothing", hint=f"choose a preset: {', '.join(PRESETS)}")
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
        return bool(self.lora or self.conv_lora or self.decoder_lora or self.conv_adapter or self.detail_branch)

    @property
    def mergeable(self) -> Literal["fully", "partly", "no"]:
        """Whether :func:`~topolora_monai.adapters.merge` leaves the base's own layers and no others."""
        if not (self.conv_adapter or self.conv_lora or self.detail_branch):
            return "fully"
        return "partly" if self.lora or self.decoder_lora else "no"

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, as stored in adapter files."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name, (_, _, settings) in METHODS.items():
            method = values[name]
            if method is not None:
                values[name] = {one: getattr(method if one in _PLACE else method.peft, one) for one in settings}
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AdaptationConfig:
        """Inverse of :meth:`to_dict`; fields that an older version did not have take their defaults.

        Raises:
            ConfigError: for fields this version does not know, or methods that it no longer has.
        """
        used = [name for name, unused in _FORMER_METHODS.items() if values.get(name, unused) != unused]
        if used:
            raise ConfigError(
                "this adapter was trained by a method that topolora_monai no longer has",
                found=", ".join(used),
                hint="versions of topolora_monai before the release of 0.1.0 read it",
            )
        return cls(**_changed({}, {name: value for name, value in values.items() if name not in _FORMER_METHODS}))


class Preset(NamedTuple):
    """A way to adapt, by name.

    Args:
        trains: what trains, in words.
        paper: arXiv number of the paper, empty where there is none.
        fields: what differs from a frozen network, as of :func:`preset_config`.
    """

    trains: str
    paper: str
    fields: dict[str, Any]


_WHOLE_DECODER = {"train_decoder": True}
_ALL_LINEARS = {"targets": ("mlp", "qkv", "proj"), "r": 6, "lora_alpha": 12.0}  # under 5 % of a ViT-B
_PAPER_QKV = {"targets": ("qkv",), "r": 3, "lora_alpha": 32.0}

PRESETS: dict[str, Preset] = {
    "topolora": Preset(
        "LoRA on the MLPs, spatial convolution adapter, decoder",
        "2601.02273",
        {"lora": True, "conv_adapter": True} | _WHOLE_DECODER,
    ),
    "topolora_plus": Preset(
        "topolora with LoRA of rank 6 on all linears of the blocks, and a detail branch",
        "",
        {"lora": _ALL_LINEARS, "conv_adapter": True, "detail_branch": True} | _WHOLE_DECODER,
    ),
    "lora": Preset("LoRA on the MLPs, decoder", "2106.09685", {"lora": True} | _WHOLE_DECODER),
    "lora_late": Preset(
        "LoRA on the MLPs of the last four blocks, decoder", "", {"lora": {"first_block": -4}} | _WHOLE_DECODER
    ),
    "lora_qkv": Preset(
        "LoRA on queries, keys and values, decoder", "2401.17868", {"lora": _PAPER_QKV} | _WHOLE_DECODER
    ),
    "lora_decoder": Preset(
        "LoRA on the MLPs and in the decoder's transformer", "", {"lora": True, "decoder_lora": True}
    ),
    "dora": Preset("DoRA on the MLPs, decoder", "2402.09353", {"lora": {"use_dora": True}} | _WHOLE_DECODER),
    "rslora": Preset("rsLoRA on the MLPs, decoder", "2312.03732", {"lora": {"use_rslora": True}} | _WHOLE_DECODER),
    "conv_lora": Preset(
        "Conv-LoRA on queries, keys and values, decoder", "2401.17868", {"conv_lora": True} | _WHOLE_DECODER
    ),
    "topolora_conv": Preset(
        "all of topolora and of conv_lora", "", {"lora": True, "conv_lora": True, "conv_adapter": True} | _WHOLE_DECODER
    ),
    "adapter_only": Preset("spatial convolution adapter", "2601.02273", {"conv_adapter": True}),
    "decoder_only": Preset("decoder", "", _WHOLE_DECODER),
    "full": Preset("image encoder and decoder", "", {"train_encoder": True} | _WHOLE_DECODER),
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
        >>> preset_config("topolora", lora={"r": 4}).lora.peft.r
        4
        >>> mixed = preset_config("topolora", train_decoder=False, decoder_lora=True, lora={"use_dora": True})
        >>> mixed.lora.peft.use_dora, mixed.conv_adapter, mixed.decoder_lora.peft.r
        (True, True, 8)
    """
    if preset not in PRESETS:
        raise unknown_choice("preset", preset, PRESETS)
    return AdaptationConfig(**_changed(_changed({"preset": preset}, PRESETS[preset].fields), changes))


def _changed(fields: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a configuration with some changed; None changes nothing."""
    _check_known([field.name for field in dataclasses.fields(AdaptationConfig)], changes)
    given = {name: _plain(value) for name, value in changes.items() if value is not None}
    methods = {name: _method(name, given[name], fields.get(name)) for name in METHODS if name in given}
    return fields | given | methods


def _method(name: str, wanted: Any, present: LowRank | None) -> LowRank | None:
    """A method that is asked for or not, given that of the preset."""
    default, _, settings = METHODS[name]
    if isinstance(wanted, bool):
        return (present or default) if wanted else None
    if not isinstance(wanted, Mapping):
        raise ConfigError(
            f"{name} adds or takes away a method", expected="true, false or its settings", found=repr(wanted)
        )
    if not wanted:
        return present
    given: dict[str, Any] = {
        str(FORMER_NAMES.get(old, old)): _plain(value) for old, value in wanted.items() if old != "experts"
    }
    _check_known(settings, given)
    if "experts" in wanted and name == "conv_lora":
        given["scales"] = _scales(wanted["experts"], given.get("scales"))
    place = {one: given.pop(one) for one in _PLACE if one in given}
    method = present or default
    return dataclasses.replace(method, peft=dataclasses.replace(method.peft, **given), **place)


def _scales(experts: Any, scales: tuple[int, ...] | None) -> tuple[int, ...]:
    _check("conv_lora#experts", experts, _SCALE)
    if scales is None:
        return tuple(range(1, experts + 1))
    _check("conv_lora#scales", scales)
    if len(scales) != experts:
        raise ConfigError("scales do not fit", expected=f"{experts}, one an expert", found=scales)
    return scales


def _plain(value: Any) -> Any:
    """MONAI's command line passes on ``true`` and ``false`` as words; JSON has no tuples."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower(), value)
    return tuple(value) if isinstance(value, list | range) else value


def _check(name: str, value: Any, rule: _Rule | None = None) -> None:
    rule = rule or _RULES.get(name.rpartition("#")[2])
    if rule and not rule.holds(value):
        raise ConfigError(f"{name} is not possible", expected=rule.words, found=repr(value)[:100])


def _check_known(known: Iterable[str], given: Iterable[str]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(
            "unknown adaptation setting",
            expected=", ".join(sorted(known)),
            found=", ".join(unknown),
            hint="check its spelling; what a file says may need a newer topolora_monai",
        )
