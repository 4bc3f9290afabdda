"""The segmenter and its parts: tensors in, logits out."""

# ruff: noqa: E402 - a broken pair of torch and torchvision is to be explained before it fails

from topolora_monai.extras import check_torchvision

check_torchvision()

from topolora_monai.networks.activation import probabilities
from topolora_monai.networks.baselines import BASELINE_NAMES, BaselineSegmenter
from topolora_monai.networks.mask_decoder import MaskDecoder
from topolora_monai.networks.registry import NETWORK_NAMES, build_network, network_extra
from topolora_monai.networks.sam2 import Sam2ImageEncoder, Sam2MaskDecoder
from topolora_monai.networks.segmenter import SamSegmenter
from topolora_monai.networks.tiny_vit import TinyVitImageEncoder
from topolora_monai.networks.training_loss import network_loss
from topolora_monai.networks.vit import VitImageEncoder

__all__ = [
    "BASELINE_NAMES",
    "NETWORK_NAMES",
    "BaselineSegmenter",
    "MaskDecoder",
    "Sam2ImageEncoder",
    "Sam2MaskDecoder",
    "SamSegmenter",
    "TinyVitImageEncoder",
    "VitImageEncoder",
    "build_network",
    "network_extra",
    "network_loss",
    "probabilities",
]
