"""Topology terms and their composition: logits and target to a scalar."""

from topolora_monai.losses.cldice import SoftClDiceLoss
from topolora_monai.losses.soft_skeleton import soft_skeleton
from topolora_monai.losses.topology import TopologyLoss

__all__ = ["SoftClDiceLoss", "TopologyLoss", "soft_skeleton"]
