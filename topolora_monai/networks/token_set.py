"""A set of mask tokens that share the classes among them, as Conv-LoRA segments several classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from topolora_monai.errors import ConfigError
from topolora_monai.extras import import_extra
from topolora_monai.networks.baselines.kept_output import KeepsOutput

if TYPE_CHECKING:
    from topolora_monai.networks.segmenter import SamSegmenter

__all__ = ["TokenOutput", "TokenSetHead", "TokenSetLoss", "merge_tokens"]

_LEAST = 1e-6  # of a probability, for its logarithm
_OUTSIDE = -30.0  # logit of a mask where nothing is to be learnt: certain, and right


class TokenOutput(NamedTuple):
    """What mask tokens predict before merging.

    Args:
        classes: logits (B, N, K + 1); the last is "no object".
        masks: logits (B, N, h, w).
    """

    classes: Tensor
    masks: Tensor


class TokenSetHead(KeepsOutput[TokenOutput]):
    """Class of each mask token, and the tokens' masks merged by class (Conv-LoRA, arXiv 2401.17868).

    It starts from equal scores for all classes, so that a network is the same whatever seed it is built with. In
    training the tokens' own predictions are kept for the matching loss.

    Args:
        dim: channels of a token.
        out_channels: number of classes K, without the background.
    """

    def __init__(self, dim: int, out_channels: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(dim, out_channels + 1)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, tokens: Tensor, masks: Tensor) -> Tensor:
        """Logits (B, K, h, w), float32, of tokens (B, N, D) and their mask logits (B, N, h, w)."""
        classes = self.classifier(tokens)
        self.keep(TokenOutput(classes, masks))
        return merge_tokens(classes, masks)


def merge_tokens(classes: Tensor, masks: Tensor) -> Tensor:
    """Merge tokens to s_k = sum_q softmax(classes_q)_k sigmoid(masks_q), given as logits beside a background of 0.

    What the classes leave of a pixel is background, log(s_k) - log(1 - sum_j s_j), so that
    :func:`~topolora_monai.networks.probabilities` with ``"softmax"`` gives s_k back. Tokens that agree can exceed 1
    together; the background then has a millionth, and the classes share the pixel in proportion to s_k.

    Args:
        classes: logits (B, N, K + 1), the last of "no object".
        masks: logits (B, N, h, w).

    Returns:
        Logits of shape (B, K, h, w), float32.

    Example:
        >>> from topolora_monai.networks.activation import probabilities
        >>> classes = torch.tensor([[[0.5, 0.2, 0.3], [0.1, 0.1, 0.8]]]).log()
        >>> merged = merge_tokens(classes, torch.tensor([0.6, 0.5]).logit().view(1, 2, 1, 1))
        >>> [round(p, 3) for p in probabilities(merged, "softmax").flatten().tolist()]
        [0.35, 0.17]
    """
    shares = classes.float().softmax(dim=-1)[..., :-1]
    scores = torch.einsum("bnk,bnhw->bkhw", shares, masks.float().sigmoid())
    background = (1 - scores.sum(dim=1, keepdim=True)).clamp(min=_LEAST)
    return scores.clamp(min=_LEAST).log() - background.log()


class TokenSetLoss(nn.Module):
    """Mask2Former's matching loss on a token set, by transformers, with Conv-LoRA's weights.

    Each class that an image holds is one object; the best token for it is to name and to cover it, the others to say
    "no object". Masks are compared at the image's size, on points drawn from torch's global generator.

    Args:
        network: a segmenter with a token set, which from now on keeps its tokens' predictions in training.
        class_weight: of the cross entropy of the tokens' classes.
        mask_weight: of the masks' binary cross entropy.
        dice_weight: of the masks' Dice loss.

    Raises:
        ConfigError: for a network without a token set, or if transformers is not installed.
    """

    def __init__(
        self, network: SamSegmenter, class_weight: float = 10.0, mask_weight: float = 5.0, dice_weight: float = 5.0
    ) -> None:
        super().__init__()
        head = network.mask_decoder.token_set
        if head is None:
            raise ConfigError(
                "the matching loss needs a token set", found=network.base_name, hint="set multiclass_head token_set"
            )
        head.keeping = True
        self._take, self._restore = head.take, network.restore  # methods: the network is no part of its loss
        self._weights = {
            "loss_cross_entropy": class_weight,
            "loss_mask": mask_weight,
            "loss_dice": dice_weight,
        }
        self._matching = _matching_loss(head.classifier.out_features - 1, self._weights)

    def forward(
        self, logits: Tensor, label: Tensor, mask: Tensor | None = None, skeleton: Tensor | None = None
    ) -> Tensor:
        """Loss of the step that gave these logits.

        Args:
            logits: merged logits (B, K, H, W), of which only the shape is used.
            label: values 0 and 1, shape (B, K, H, W).
            mask: 1 where the target is known, shape (B, 1, H, W); nothing is learnt elsewhere.
            skeleton: taken for the sake of the common call; has no influence.

        Returns:
            Scalar, float32.
        """
        tokens = self._take()
        masks = self._restore(tokens.masks, (logits.shape[-2], logits.shape[-1]))
        target = label.float()
        if mask is not None:
            masks, target = masks.masked_fill(mask <= 0.5, _OUTSIDE), target * mask.float()
        present = [image.flatten(1).any(dim=1).nonzero().flatten() for image in target]
        losses = self._matching(
            masks_queries_logits=masks,
            class_queries_logits=tokens.classes.float(),
            mask_labels=[image[classes] for image, classes in zip(target, present, strict=True)],
            class_labels=present,
        )
        return cast(Tensor, sum(self._weights[name] * value for name, value in losses.items()))


def _matching_loss(out_channels: int, weights: dict[str, float]) -> Any:
    config = import_extra("transformers", "baselines", "this network").Mask2FormerConfig(
        num_labels=out_channels,
        class_weight=weights["loss_cross_entropy"],
        mask_weight=weights["loss_mask"],
        dice_weight=weights["loss_dice"],
    )
    return import_extra(
        "transformers.models.mask2former.modeling_mask2former", "baselines", "this network"
    ).Mask2FormerLoss(config, weights)
