"""Losses for thin structures, one contract for all: logits and target to a number."""

from topolora_monai.losses.base import SegmentationLoss
from topolora_monai.losses.cldice import SoftClDiceLoss
from topolora_monai.losses.cross_entropy import BalancedCrossEntropyLoss, BinaryCrossEntropyLoss, CrossEntropyLoss
from topolora_monai.losses.dice import SoftDiceLoss
from topolora_monai.losses.soft_skeleton import soft_skeleton
from topolora_monai.losses.structure import StructureLoss
from topolora_monai.losses.topology import LOSS_TERMS, TopologyLoss

__all__ = [
    "LOSS_TERMS",
    "BalancedCrossEntropyLoss",
    "BinaryCrossEntropyLoss",
    "CrossEntropyLoss",
    "SegmentationLoss",
    "SoftClDiceLoss",
    "SoftDiceLoss",
    "StructureLoss",
    "TopologyLoss",
    "soft_skeleton",
]
