"""Conv-LoRA as a PEFT method: configuration, injection, and registration under the type ``CONV_LORA``."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, ClassVar

from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING, PeftConfig
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from topolora_monai.adapters.config import Gate
from topolora_monai.adapters.conv_lora.layer import ConvLoraLinear
from topolora_monai.errors import ConfigError

__all__ = ["ConvLoraConfig", "ConvLoraModel"]


class ConvLoraType(str, enum.Enum):
    """The type's name, in the form in which PEFT keeps those of its own methods."""

    CONV_LORA = "CONV_LORA"


@dataclass
class ConvLoraConfig(PeftConfig):
    """PEFT configuration of Conv-LoRA, stored by ``save_pretrained`` as every other.

    Args:
        r: rank; 0 leaves the layers as they are.
        lora_alpha: the update is scaled by lora_alpha / r.
        target_modules: names of linear layers, or a regular expression.
        scales: one whole number an expert.
        top_k: experts that answer for each image or window.
        gate: ``"learned"`` or ``"published"``.
        balance_weight: weight of the balance loss.
        modules_to_save: other modules that train and are stored.

    Example:
        >>> import torch
        >>> from peft import get_peft_model
        >>> config = ConvLoraConfig(r=2, target_modules=["0"])
        >>> get_peft_model(torch.nn.Sequential(torch.nn.Linear(8, 8)), config).get_nb_trainable_parameters()
        (368, 440)
    """

    r: int = 3
    lora_alpha: float = 32.0
    target_modules: list[str] | str | None = None
    scales: list[int] = field(default_factory=lambda: list(range(1, 9)))
    top_k: int = 1
    gate: Gate = "learned"
    balance_weight: float = 1e-2
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = ConvLoraType.CONV_LORA


class ConvLoraModel(BaseTuner):
    """Replaces linear layers by :class:`ConvLoraLinear`; to be used through PEFT's functions."""

    prefix = "lora_"
    tuner_layer_cls = ConvLoraLinear
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def _create_and_replace(
        self,
        peft_config: ConvLoraConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **_: Any,
    ) -> None:
        settings: dict[str, Any] = {
            "r": peft_config.r,
            "alpha": peft_config.lora_alpha,
            "scales": peft_config.scales,
            "top_k": peft_config.top_k,
            "gate": peft_config.gate,
            "balance_weight": peft_config.balance_weight,
        }
        if isinstance(target, ConvLoraLinear):
            target.update_layer(adapter_name, **settings)
        elif isinstance(target, nn.Linear):
            self._replace_module(parent, target_name, ConvLoraLinear(target, adapter_name, **settings), target)
        else:
            raise ConfigError(
                f"Conv-LoRA cannot adapt layer {current_key}", expected="torch.nn.Linear", found=type(target).__name__
            )


# peft.utils.register_peft_method takes none but the types that PEFT lists itself; these are the tables it fills.
PEFT_TYPE_TO_CONFIG_MAPPING[ConvLoraType.CONV_LORA] = ConvLoraConfig
PEFT_TYPE_TO_TUNER_MAPPING[ConvLoraType.CONV_LORA] = ConvLoraModel
PEFT_TYPE_TO_PREFIX_MAPPING[ConvLoraType.CONV_LORA] = ConvLoraModel.prefix
