"""Conv-LoRA (ICLR 2024, arXiv 2401.17868): low-rank updates with a mixture of convolutions, registered with PEFT."""

from topolora_monai.adapters.conv_lora.experts import ConvExperts
from topolora_monai.adapters.conv_lora.gate import NoisyTopKGate, Routing
from topolora_monai.adapters.conv_lora.layer import ConvLoraLinear, balance_loss
from topolora_monai.adapters.conv_lora.tuner import ConvLoraConfig, ConvLoraModel

__all__ = [
    "ConvExperts",
    "ConvLoraConfig",
    "ConvLoraLinear",
    "ConvLoraModel",
    "NoisyTopKGate",
    "Routing",
    "balance_loss",
]
