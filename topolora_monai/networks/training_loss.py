"""The loss that a network is trained with, for some of which logits alone do not do."""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from topolora_monai.extras import import_extra
from topolora_monai.networks.baselines.little_wnet import LittleWNet
from topolora_monai.networks.baselines.mask2former import Mask2Former
from topolora_monai.networks.baselines.segmenter import BaselineSegmenter
from topolora_monai.networks.mask_decoder import TokenSetHead
from topolora_monai.networks.segmenter import SamSegmenter
from topolora_monai.parsing import parse_bool

_OUTSIDE = -30.0  # logit of a mask where nothing is to be learnt: certain, and right


def network_loss(network: nn.Module, loss: nn.Module, matching: bool = True) -> nn.Module:
    """Loss that a network is trained with, called like ``loss``.

    Args:
        network: any segmenter of this package, not wrapped for several devices.
        loss: called as ``loss(logits, label, mask=..., skeleton=...)``.
        matching: train what predicts a set of masks, Mask2Former and token sets, with its matching loss instead of
            ``loss`` on its merged masks.

    Returns:
        :class:`TokenSetLoss` for a token set, :class:`MatchingLoss` for Mask2Former, :class:`FirstStageLoss` for Little
        W-Net, else ``loss`` itself. The network is no part of it, and keeps from now on what it needs in training.

    Example:
        >>> from topolora_monai.networks import build_network
        >>> network = build_network("vit_tiny_test", image_size=64, out_channels=2, multiclass_head="token_set")
        >>> type(network_loss(network, nn.BCEWithLogitsLoss())).__name__
        'TokenSetLoss'
    """
    inner = network.network if isinstance(network, BaselineSegmenter) else None
    if isinstance(inner, LittleWNet):
        return FirstStageLoss(cast(BaselineSegmenter, network), loss)
    if parse_bool(matching) and isinstance(inner, Mask2Former):
        return MatchingLoss(cast(BaselineSegmenter, network))
    if parse_bool(matching) and isinstance(network, SamSegmenter) and network.mask_decoder.token_set is not None:
        return TokenSetLoss(network)
    return loss


class FirstStageLoss(nn.Module):
    """The same loss on both stages of Little W-Net, added, as the paper trains it (arXiv 2009.01907)."""

    def __init__(self, network: BaselineSegmenter, loss: nn.Module) -> None:
        super().__init__()
        wnet = cast(LittleWNet, network.network)
        wnet.keeping = True
        self.loss = loss
        self._take, self._restore = wnet.take, network.restore

    def forward(self, logits: Tensor, label: Tensor, **parts: Tensor | None) -> Tensor:
        """Loss of the second stage's logits (B, K, H, W) and of the first stage's in the same step."""
        first = self._restore(self._take(), (logits.shape[-2], logits.shape[-1]))
        return cast(Tensor, self.loss(logits, label, **parts) + self.loss(first, label, **parts))


class MatchingLoss(nn.Module):
    """Mask2Former's own loss, by transformers: queries matched to the classes present, on sampled points.

    Each class that an image holds is one object to find, with the weights of the published network (class 2,
    mask 5, Dice 5), after each decoder layer. It has no place to leave pixels out: outside the mask the
    target is background. Points are drawn from torch's global generator.
    """

    def __init__(self, network: BaselineSegmenter) -> None:
        super().__init__()
        inner = cast(Mask2Former, network.network)
        inner.keeping = True
        self._take, self._padded_size = inner.take, network.padded_size
        self._losses, self._total = inner.model.get_loss_dict, inner.model.get_loss

    def forward(
        self, logits: Tensor, label: Tensor, mask: Tensor | None = None, skeleton: Tensor | None = None
    ) -> Tensor:
        """Loss of the step that gave these logits (B, K, H, W), of which only the shape is used."""
        queries = self._take()
        target = label.float() if mask is None else label.float() * mask
        height, width = self._padded_size((logits.shape[-2], logits.shape[-1]))
        target = F.pad(target, (0, width - logits.shape[-1], 0, height - logits.shape[-2]))
        mask_labels, class_labels = _objects(target)
        losses = self._losses(  # type: ignore[operator]
            masks_queries_logits=queries.masks.float(),
            class_queries_logits=queries.classes.float(),
            mask_labels=mask_labels,
            class_labels=class_labels,
            auxiliary_predictions=[{name: part.float() for name, part in one.items()} for one in queries.auxiliary],
        )
        return cast(Tensor, self._total(losses))  # type: ignore[operator]


class TokenSetLoss(nn.Module):
    """Mask2Former's matching loss on a token set, by transformers, with Conv-LoRA's weights.

    Each class that an image holds is one object; the best token for it is to name and to cover it, the others to say
    "no object". Masks are compared at the image's size, on points drawn from torch's global generator.

    Args:
        network: a segmenter with a token set.

    Raises:
        ConfigError: if transformers is not installed.
    """

    def __init__(self, network: SamSegmenter) -> None:
        super().__init__()
        head = cast(TokenSetHead, network.mask_decoder.token_set)
        head.keeping = True
        self._take, self._restore = head.take, network.restore
        self._weights = {"loss_cross_entropy": 10.0, "loss_mask": 5.0, "loss_dice": 5.0}
        config = import_extra("transformers", "baselines", "this network").Mask2FormerConfig(
            num_labels=head.classifier.out_features - 1, class_weight=10.0, mask_weight=5.0, dice_weight=5.0
        )
        module = "transformers.models.mask2former.modeling_mask2former"
        self._matching = import_extra(module, "baselines", "this network").Mask2FormerLoss(config, self._weights)

    def forward(
        self, logits: Tensor, label: Tensor, mask: Tensor | None = None, skeleton: Tensor | None = None
    ) -> Tensor:
        """Loss, float32, of the step that gave these logits (B, K, H, W), of which only the shape is used."""
        tokens = self._take()
        masks = self._restore(tokens.masks, (logits.shape[-2], logits.shape[-1]))
        target = label.float()
        if mask is not None:
            masks, target = masks.masked_fill(mask <= 0.5, _OUTSIDE), target * mask.float()
        mask_labels, class_labels = _objects(target)
        losses = self._matching(
            masks_queries_logits=masks,
            class_queries_logits=tokens.classes.float(),
            mask_labels=mask_labels,
            class_labels=class_labels,
        )
        return cast(Tensor, sum(self._weights[name] * value for name, value in losses.items()))


def _objects(target: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Of each image the masks of the classes that it holds, and which these are."""
    present = [image.flatten(1).any(dim=1).nonzero().flatten() for image in target]
    return [image[classes] for image, classes in zip(target, present, strict=True)], present
