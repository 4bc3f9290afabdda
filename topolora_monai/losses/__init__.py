"""Losses for thin structures, one contract for all: logits and target to a number."""

from topolora_monai.losses.base import SegmentationLoss
from topolora_monai.losses.centreline import CbDiceLoss, ClCrossEntropyLoss, SkeletonRecallLoss, SoftClDiceLoss
from topolora_monai.losses.component_graph import ComponentGraphLoss, critical_regions
from topolora_monai.losses.cross_entropy import BalancedCrossEntropyLoss, BinaryCrossEntropyLoss, CrossEntropyLoss
from topolora_monai.losses.overlap import BoundaryDiceLoss, SoftDiceLoss, StructureLoss
from topolora_monai.losses.soft_skeleton import soft_skeleton
from topolora_monai.losses.topology import LOSS_TERMS, TopologyLoss, topology_loss
from topolora_monai.losses.topology_skeleton import exact_skeleton, topology_skeleton

__all__ = [
    "LOSS_TERMS",
    "BalancedCrossEntropyLoss",
    "BinaryCrossEntropyLoss",
    "BoundaryDiceLoss",
    "CbDiceLoss",
    "ClCrossEntropyLoss",
    "ComponentGraphLoss",
    "CrossEntropyLoss",
    "SegmentationLoss",
    "SkeletonRecallLoss",
    "SoftClDiceLoss",
    "SoftDiceLoss",
    "StructureLoss",
    "TopologyLoss",
    "critical_regions",
    "exact_skeleton",
    "soft_skeleton",
    "topology_loss",
    "topology_skeleton",
]
