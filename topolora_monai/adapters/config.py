"""What to train inside a frozen network, and the presets by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal

from topolora_monai.errors import ConfigError, unknown_choice

__all__ = [
    "PRESETS",
    "AdaptationConfig",
    "ConvLoraSettings",
    "Gate",
    "LoraSettings",
    "Normalization",
    "preset_config",
]

Normalization = Literal["layer", "batch"]
Gate = Literal["learned", "published"]

LORA_TARGETS = ("mlp", "qkv", "proj")


def _checked_targets(targets: Iterable[str]) -> tuple[str, ...]:
    chosen = tuple(targets)
    if not chosen or any(target not in LORA_TARGETS for target in chosen):
        raise ConfigError("unknown LoRA target", expected=f"some of {', '.join(LORA_TARGETS)}", found=chosen)
    return chosen


@dataclasses.dataclass(frozen=True)
class LoraSettings:
    """Low-rank updates of linear layers in the image encoder (Hu et al., arXiv 2106.09685), by PEFT.

    Args:
        targets: which linears of each transformer block: ``"mlp"`` (both layers), ``"qkv"``, ``"proj"``.
        rank: rank r of the update.
        alpha: the update is scaled by alpha / r.
        dropout: on the input of the update, in [0, 1).
        first_block: index of the first adapted transformer block, counted through the whole encoder.
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
        object.__setattr__(self, "targets", _checked_targets(self.targets))
        if self.rank < 1:
            raise ConfigError(
                "LoRA rank must be at least 1", found=self.rank, hint="choose preset adapter_only for none"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError("LoRA dropout must be in [0, 1)", found=self.dropout)


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
        object.__setattr__(self, "targets", _checked_targets(self.targets))
        if self.scales is not None:
            object.__setattr__(self, "scales", tuple(self.scales))
        if self.rank < 0:
            raise ConfigError("Conv-LoRA rank must not be negative", found=self.rank)
        if self.experts < 1:
            raise ConfigError("Conv-LoRA needs an expert", found=self.experts, hint="choose preset lora_qkv for none")
        scales = self.expert_scales
        if len(scales) != self.experts or any(scale != int(scale) or scale < 1 for scale in scales):
            raise ConfigError(
                "Conv-LoRA scales do not fit",
                expected=f"{self.experts} whole numbers from 1, one an expert",
                found=scales,
                hint="set conv_lora_experts and conv_lora_scales together",
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


@dataclasses.dataclass(frozen=True)
class AdaptationConfig:
    """Which parts of a segmenter train; everything else is frozen.

    Args:
        preset: name this configuration started from, for reports.
        lora: low-rank updates in the image encoder, or None.
        conv_lora: low-rank updates mixed by convolutions, on other linears than ``lora``, or None.
        conv_adapter: put a spatial convolution adapter between image encoder and mask decoder.
        conv_adapter_norm: ``"layer"`` normalises each pixel and so does not depend on the batch;
            ``"batch"`` is the published BatchNorm.
        train_decoder: train the mask decoder.
        train_encoder: train the image encoder itself.
        freeze_unused: keep parts that no gradient can reach (IoU head, hyper-networks 1 to 3) frozen.

    Raises:
        ConfigError: if nothing would train, two methods share a linear, or the normalisation is unknown.
    """

    preset: str = "custom"
    lora: LoraSettings | None = None
    conv_lora: ConvLoraSettings | None = None
    conv_adapter: bool = False
    conv_adapter_norm: Normalization = "layer"
    train_decoder: bool = False
    train_encoder: bool = False
    freeze_unused: bool = True

    def __post_init__(self) -> None:
        conv_lora = self.conv_lora is not None and self.conv_lora.rank > 0
        if not (self.lora or conv_lora or self.conv_adapter or self.train_decoder or self.train_encoder):
            raise ConfigError("this configuration trains nothing", hint=f"choose a preset: {', '.join(PRESETS)}")
        if self.lora is not None and self.conv_lora is not None:
            shared = sorted(set(self.lora.targets) & set(self.conv_lora.targets))
            if shared:
                raise ConfigError(
                    "LoRA and Conv-LoRA adapt the same linears",
                    found=", ".join(shared),
                    hint="set lora_targets or conv_lora_targets",
                )
        if self.conv_adapter_norm not in ("layer", "batch"):
            raise ConfigError(
                "unknown conv_adapter_norm", expected='"layer" or "batch"', found=repr(self.conv_adapter_norm)
            )

    @property
    def trains_whole(self) -> bool:
        """Whether the network's own weights train, all of them, and nothing is added."""
        added = self.lora or self.conv_lora or self.conv_adapter
        return self.train_encoder and self.train_decoder and not added

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, as stored in adapter files."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AdaptationConfig:
        """Inverse of :meth:`to_dict`.

        Raises:
            ConfigError: for fields this version does not know.
        """
        try:
            lora, conv_lora = values.get("lora"), values.get("conv_lora")
            nested = {
                "lora": LoraSettings(**lora) if lora is not None else None,
                "conv_lora": ConvLoraSettings(**conv_lora) if conv_lora is not None else None,
            }
            return cls(**{**values, **nested})
        except TypeError as error:
            raise ConfigError(f"unknown adaptation setting ({error})", hint="use a newer topolora_monai") from error


PRESETS: dict[str, dict[str, Any]] = {
    "topolora": {"lora": LoraSettings(), "conv_adapter": True, "train_decoder": True},
    "lora": {"lora": LoraSettings(), "train_decoder": True},
    "conv_lora": {"conv_lora": ConvLoraSettings(), "train_decoder": True},
    "lora_qkv": {"lora": LoraSettings(targets=("qkv",), rank=3, alpha=32.0), "train_decoder": True},
    "topolora_conv": {
        "lora": LoraSettings(),
        "conv_lora": ConvLoraSettings(),
        "conv_adapter": True,
        "train_decoder": True,
    },
    "adapter_only": {"conv_adapter": True},
    "decoder_only": {"train_decoder": True},
    "full": {"train_decoder": True, "train_encoder": True},
}
"""Preset name to what differs from a frozen network.

``topolora`` is arXiv 2601.02273 as published. ``conv_lora`` is arXiv 2401.17868, as published but for the gate
(``conv_lora_gate="published"`` gives that, too), and ``lora_qkv`` the plain LoRA that its paper compares with.
``topolora_conv`` is the union of both papers, each at its own place: LoRA on the MLPs, Conv-LoRA on the fused
queries, keys and values, the spatial adapter on the embedding, and the decoder.
"""


def preset_config(preset: str, **overrides: Any) -> AdaptationConfig:
    """Configuration of a preset, with single settings replaced.

    Args:
        preset: one of :data:`PRESETS`.
        **overrides: fields of :class:`LoraSettings` prefixed with ``lora_``, of :class:`ConvLoraSettings`
            prefixed with ``conv_lora_``, and fields of :class:`AdaptationConfig`; None leaves the preset's value.

    Raises:
        ConfigError: for an unknown preset or setting, or a setting of a method that the preset does not have.

    Example:
        >>> preset_config("topolora", lora_rank=4).lora.rank
        4
    """
    if preset not in PRESETS:
        raise unknown_choice("preset", preset, PRESETS)
    given = {key: value for key, value in overrides.items() if value is not None}
    fields = dict(PRESETS[preset])
    for method, title in (("lora", "LoRA"), ("conv_lora", "Conv-LoRA")):
        prefix = f"{method}_"
        changes = {key.removeprefix(prefix): given.pop(key) for key in list(given) if key.startswith(prefix)}
        if changes and fields.get(method) is None:
            raise ConfigError(
                f"preset {preset} has no {title} to set {sorted(changes)} on", hint=f"use preset {method}"
            )
        if changes:
            fields[method] = _replace(fields[method], changes)
    config: AdaptationConfig = _replace(AdaptationConfig(preset=preset, **fields), given)
    return config


def _replace(instance: Any, changes: dict[str, Any]) -> Any:
    known = {field.name for field in dataclasses.fields(instance)}
    unknown = sorted(changes.keys() - known)
    if unknown:
        raise ConfigError("unknown adaptation setting", expected=", ".join(sorted(known)), found=", ".join(unknown))
    return dataclasses.replace(instance, **changes)
