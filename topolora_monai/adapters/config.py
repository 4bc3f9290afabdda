"""What to train inside a frozen network, and the presets by name."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from topolora_monai.errors import ConfigError, unknown_choice

__all__ = ["PRESETS", "AdaptationConfig", "LoraSettings", "Normalization", "preset_config"]

Normalization = Literal["layer", "batch"]

LORA_TARGETS = ("mlp", "qkv", "proj")


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
        object.__setattr__(self, "targets", tuple(self.targets))
        unknown = [target for target in self.targets if target not in LORA_TARGETS]
        if unknown or not self.targets:
            raise ConfigError("unknown LoRA target", expected=f"some of {', '.join(LORA_TARGETS)}", found=self.targets)
        if self.rank < 1:
            raise ConfigError(
                "LoRA rank must be at least 1", found=self.rank, hint="choose preset adapter_only for none"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError("LoRA dropout must be in [0, 1)", found=self.dropout)


@dataclasses.dataclass(frozen=True)
class AdaptationConfig:
    """Which parts of a segmenter train; everything else is frozen.

    Args:
        preset: name this configuration started from, for reports.
        lora: low-rank updates in the image encoder, or None.
        conv_adapter: put a spatial convolution adapter between image encoder and mask decoder.
        conv_adapter_norm: ``"layer"`` normalises each pixel and so does not depend on the batch;
            ``"batch"`` is the published BatchNorm.
        train_decoder: train the mask decoder.
        train_encoder: train the image encoder itself.
        freeze_unused: keep parts that no gradient can reach (IoU head, hyper-networks 1 to 3) frozen.

    Raises:
        ConfigError: if nothing would train, or the normalisation is unknown.
    """

    preset: str = "custom"
    lora: LoraSettings | None = None
    conv_adapter: bool = False
    conv_adapter_norm: Normalization = "layer"
    train_decoder: bool = False
    train_encoder: bool = False
    freeze_unused: bool = True

    def __post_init__(self) -> None:
        if not (self.lora or self.conv_adapter or self.train_decoder or self.train_encoder):
            raise ConfigError("this configuration trains nothing", hint=f"choose a preset: {', '.join(PRESETS)}")
        if self.conv_adapter_norm not in ("layer", "batch"):
            raise ConfigError(
                "unknown conv_adapter_norm", expected='"layer" or "batch"', found=repr(self.conv_adapter_norm)
            )

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
            lora = values.get("lora")
            return cls(**{**values, "lora": LoraSettings(**lora) if lora is not None else None})
        except TypeError as error:
            raise ConfigError(f"unknown adaptation setting ({error})", hint="use a newer topolora_monai") from error


PRESETS: dict[str, dict[str, Any]] = {
    "topolora": {"lora": LoraSettings(), "conv_adapter": True, "train_decoder": True},
    "lora": {"lora": LoraSettings(), "train_decoder": True},
    "adapter_only": {"conv_adapter": True},
    "decoder_only": {"train_decoder": True},
    "full": {"train_decoder": True, "train_encoder": True},
}
"""Preset name to what differs from a frozen network. ``topolora`` is arXiv 2601.02273 as published."""


def preset_config(preset: str, **overrides: Any) -> AdaptationConfig:
    """Configuration of a preset, with single settings replaced.

    Args:
        preset: one of :data:`PRESETS`.
        **overrides: fields of :class:`LoraSettings` prefixed with ``lora_`` and fields of
            :class:`AdaptationConfig`; None leaves the preset's value.

    Raises:
        ConfigError: for an unknown preset or setting, or a LoRA setting on a preset without LoRA.

    Example:
        >>> preset_config("topolora", lora_rank=4).lora.rank
        4
    """
    if preset not in PRESETS:
        raise unknown_choice("preset", preset, PRESETS)
    given = {key: value for key, value in overrides.items() if value is not None}
    fields = dict(PRESETS[preset])
    lora_changes = {key.removeprefix("lora_"): given.pop(key) for key in list(given) if key.startswith("lora_")}
    if lora_changes:
        if fields.get("lora") is None:
            raise ConfigError(f"preset {preset} has no LoRA to set {sorted(lora_changes)} on", hint="use preset lora")
        fields["lora"] = _replace(fields["lora"], lora_changes)
    config: AdaptationConfig = _replace(AdaptationConfig(preset=preset, **fields), given)
    return config


def _replace(instance: Any, changes: dict[str, Any]) -> Any:
    known = {field.name for field in dataclasses.fields(instance)}
    unknown = sorted(changes.keys() - known)
    if unknown:
        raise ConfigError("unknown adaptation setting", expected=", ".join(sorted(known)), found=", ".join(unknown))
    return dataclasses.replace(instance, **changes)
