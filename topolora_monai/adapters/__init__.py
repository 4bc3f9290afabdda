"""What trains inside a frozen network, and how it is stored."""

# ruff: noqa: E402 - a broken pair of torch and torchvision is to be explained before it fails

from topolora_monai.extras import check_torchvision

check_torchvision()

from topolora_monai.adapters.adapt import Adaptation, adapt, merge
from topolora_monai.adapters.base import base_weights
from topolora_monai.adapters.config import (
    METHODS,
    PRESETS,
    AdaptationConfig,
    LowRank,
    Preset,
    preset_config,
)
from topolora_monai.adapters.conv_lora import ConvLoraConfig, ConvLoraLinear, balance_loss
from topolora_monai.adapters.detail_branch import DetailBranch
from topolora_monai.adapters.files import adapter_state, halve_adapter, load_adapter, read_spec, save_adapter
from topolora_monai.adapters.inspection import (
    AdapterComparison,
    AdapterSummary,
    compare_adapters,
    describe_adapter,
    verify_adapter,
)
from topolora_monai.adapters.library import AdapterLibrary
from topolora_monai.adapters.peft_folder import from_peft, to_peft
from topolora_monai.adapters.released import ReleasedAdapter, find_adapter, released_adapters
from topolora_monai.adapters.spatial_conv import SpatialConvAdapter

__all__ = [
    "METHODS",
    "PRESETS",
    "Adaptation",
    "AdaptationConfig",
    "AdapterComparison",
    "AdapterLibrary",
    "AdapterSummary",
    "ConvLoraConfig",
    "ConvLoraLinear",
    "DetailBranch",
    "LowRank",
    "Preset",
    "ReleasedAdapter",
    "SpatialConvAdapter",
    "adapt",
    "adapter_state",
    "balance_loss",
    "base_weights",
    "compare_adapters",
    "describe_adapter",
    "find_adapter",
    "from_peft",
    "halve_adapter",
    "load_adapter",
    "merge",
    "preset_config",
    "read_spec",
    "released_adapters",
    "save_adapter",
    "to_peft",
    "verify_adapter",
]
