"""Losses that need more of a network than its logits."""

from __future__ import annotations

from typing import TypeVar, cast

import torch.nn.functional as F
from torch import Tensor, nn

from topolora_monai.errors import ConfigError
from topolora_monai.networks.baselines.little_wnet import LittleWNet
from topolora_monai.networks.baselines.mask2former import Mask2Former
from topolora_monai.networks.baselines.segmenter import BaselineSegmenter

__all__ = ["FirstStageLoss", "MatchingLoss", "network_loss"]

Inner = TypeVar("Inner", bound=nn.Module)


def network_loss(network: nn.Module, loss: nn.Module, matching: bool = True) -> nn.Module:
    """Loss that a network is trained with, called like ``loss``.

    Args:
        network: any segmenter of this package, not wrapped for several devices.
        loss: called as ``loss(logits, label, mask=..., skeleton=...)``.
        matching: train Mask2Former with its own matching loss instead of ``loss`` on its merged queries.

    Returns:
        :class:`MatchingLoss` for Mask2Former, :class:`FirstStageLoss` for Little W-Net, else ``loss`` itself.

    Example:
        >>> from topolora_monai.networks.baselines import build_baseline
        >>> type(network_loss(build_baseline("little_wnet"), nn.BCEWithLogitsLoss())).__name__
        'FirstStageLoss'
    """
    inner = network.network if isinstance(network, BaselineSegmenter) else None
    if isinstance(inner, LittleWNet):
        return FirstStageLoss(cast(BaselineSegmenter, network), loss)
    if isinstance(inner, Mask2Former) and matching:
        return MatchingLoss(cast(BaselineSegmenter, network))
    return loss


class FirstStageLoss(nn.Module):
    """The same loss on both stages of Little W-Net, added, as the paper trains it (arXiv 2009.01907).

    Args:
        network: a Little W-Net, which from now on keeps its first stage's logits in training.
        loss: called as ``loss(logits, label, mask=..., skeleton=...)``.

    Raises:
        ConfigError: for another network.
    """

    def __init__(self, network: BaselineSegmenter, loss: nn.Module) -> None:
        super().__init__()
        wnet = _inner(network, LittleWNet)
        wnet.keeping = True
        self.loss = loss
        self._take, self._restore = wnet.take, network.restore  # methods: the network is no part of its loss

    def forward(self, logits: Tensor, label: Tensor, **parts: Tensor | None) -> Tensor:
        """Loss of the second stage's logits (B, K, H, W) and of the first stage's in the same step."""
        size = (logits.shape[-2], logits.shape[-1])
        first = self._restore(self._take(), size)
        return cast(Tensor, self.loss(logits, label, **parts) + self.loss(first, label, **parts))


class MatchingLoss(nn.Module):
    """Mask2Former's own loss, by transformers: queries matched to the classes present, on sampled points.

    Each class that an image holds is one object to find, with the weights of the published network (class 2,
    mask 5, Dice 5), after each decoder layer. It has no place to leave pixels out: outside the mask the
    target is background. Points are drawn from torch's global generator.

    Args:
        network: a Mask2Former, which from now on keeps its queries in training.

    Raises:
        ConfigError: for another network.
    """

    def __init__(self, network: BaselineSegmenter) -> None:
        super().__init__()
        inner = _inner(network, Mask2Former)
        inner.keeping = True
        self._take, self._padded_size = inner.take, network.padded_size  # the network is no part of its loss
        self._losses, self._total = inner.model.get_loss_dict, inner.model.get_loss

    def forward(
        self, logits: Tensor, label: Tensor, mask: Tensor | None = None, skeleton: Tensor | None = None
    ) -> Tensor:
        """Loss of the step that gave these logits.

        Args:
            logits: merged logits (B, K, H, W), of which only the shape is used.
            label: values 0 and 1, shape (B, K, H, W).
            mask: 1 where the target is known, shape (B, 1, H, W).
            skeleton: taken for the sake of the common call; has no influence.
        """
        queries = self._take()
        target = label.float() if mask is None else label.float() * mask
        height, width = self._padded_size((logits.shape[-2], logits.shape[-1]))
        target = F.pad(target, (0, width - logits.shape[-1], 0, height - logits.shape[-2]))
        present = [image.flatten(1).any(dim=1).nonzero().flatten() for image in target]
        losses = self._losses(  # type: ignore[operator]
            masks_queries_logits=queries.masks.float(),
            class_queries_logits=queries.classes.float(),
            mask_labels=[image[classes] for image, classes in zip(target, present, strict=True)],
            class_labels=present,
            auxiliary_predictions=[{name: part.float() for name, part in one.items()} for one in queries.auxiliary],
        )
        return cast(Tensor, self._total(losses))  # type: ignore[operator]


def _inner(network: BaselineSegmenter, kind: type[Inner]) -> Inner:
    if not isinstance(network.network, kind):
        raise ConfigError("this loss is for another network", expected=kind.__name__, found=network.base_name)
    return network.network
