"""The loss that a network is trained with."""

from __future__ import annotations

from torch import nn

from topolora_monai.networks import baselines
from topolora_monai.networks.segmenter import SamSegmenter
from topolora_monai.networks.token_set import TokenSetLoss
from topolora_monai.parsing import parse_bool

__all__ = ["network_loss"]


def network_loss(network: nn.Module, loss: nn.Module, matching: bool = True) -> nn.Module:
    """Loss that a network is trained with, called like ``loss``.

    Args:
        network: any segmenter of this package, not wrapped for several devices.
        loss: called as ``loss(logits, label, mask=..., skeleton=...)``.
        matching: train what predicts a set of masks, Mask2Former and token sets, with its matching loss instead of
            ``loss`` on its merged masks.

    Returns:
        :class:`~topolora_monai.networks.token_set.TokenSetLoss` for a token set, else what
        :func:`topolora_monai.networks.baselines.network_loss` says, which is ``loss`` itself for most networks.

    Example:
        >>> from topolora_monai.networks import build_network
        >>> network = build_network("vit_tiny_test", image_size=64, out_channels=2, multiclass_head="token_set")
        >>> type(network_loss(network, nn.BCEWithLogitsLoss())).__name__
        'TokenSetLoss'
    """
    matching = parse_bool(matching)
    if isinstance(network, SamSegmenter) and network.mask_decoder.token_set is not None and matching:
        return TokenSetLoss(network)
    return baselines.network_loss(network, loss, matching)
