"""SAM's mask decoder for batches of images: original parameters, one logit map per class."""

from typing import NamedTuple

import torch
from segment_anything.modeling import MaskDecoder as OriginalMaskDecoder
from torch import Tensor, nn

from topolora_monai.networks.shared import KeepsOutput

_LEAST = 1e-6  # of a probability, for its logarithm


class MaskDecoder(nn.Module):
    """SAM's two-way decoder, batched over images instead of over the prompts of one image.

    For one class, mask token 0 and hyper-network 0 answer, as ``multimask_output=False`` does in the
    original. For several, one token a class starts as a copy of token 0 and shares hyper-network 0
    (Conv-LoRA's arrangement); :meth:`use_token_set` lets a set of such tokens share the classes instead.
    State-dict keys of the original parameters are unchanged.

    Args:
        decoder: the original decoder; its layers are taken over, so do not use it further.
        out_channels: number of classes K.
    """

    def __init__(self, decoder: OriginalMaskDecoder, out_channels: int = 1) -> None:
        super().__init__()
        self.transformer = decoder.transformer
        self.iou_token = decoder.iou_token
        self.mask_tokens = decoder.mask_tokens
        self.output_upscaling = decoder.output_upscaling
        self.output_hypernetworks_mlps = decoder.output_hypernetworks_mlps
        self.iou_prediction_head = decoder.iou_prediction_head
        self.class_tokens: nn.Parameter | None = None
        self.token_set: TokenSetHead | None = None
        if out_channels > 1:
            self._add_class_tokens(out_channels)

    def use_token_set(self, out_channels: int, tokens: int) -> None:
        """Answer by copies of mask token 0 and a classifier of each; to be called once base weights are loaded."""
        self._add_class_tokens(tokens)
        self.token_set = TokenSetHead(self.mask_tokens.embedding_dim, out_channels).train(self.training)

    def _add_class_tokens(self, count: int) -> None:
        self.class_tokens = nn.Parameter(torch.empty(count, self.mask_tokens.embedding_dim))
        self.reset_class_tokens()

    @torch.no_grad()
    def reset_class_tokens(self) -> None:
        """Start every class from mask token 0; to be called again once base weights are loaded."""
        if self.class_tokens is not None:
            self.class_tokens.copy_(self.mask_tokens.weight[:1].expand_as(self.class_tokens))

    @property
    def unused_modules(self) -> list[nn.Module]:
        """Parts that no gradient reaches: the IoU head and the hyper-networks of masks 1 to 3."""
        return [self.iou_prediction_head, *self.output_hypernetworks_mlps[1:]]

    def forward(
        self, embedding: Tensor, positions: Tensor, sparse: Tensor, dense: Tensor, *finer: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode masks to logits (B, K, 4h, 4w), and the upscaled embedding that they were made of (B, D / 8, 4h, 4w).

        Args:
            embedding: image embedding, shape (B, D, h, w).
            positions: positional encoding of the grid, shape (1, D, h, w).
            sparse: embedded points and boxes, shape (B, P, D), P may be 0.
            dense: embedded mask prompt or "no mask", broadcastable to ``embedding``.
            *finer: maps of a finer grid, for decoders that use some.
        """
        batch, _, height, width = embedding.shape
        answering = self.class_tokens if self.class_tokens is not None else self.mask_tokens.weight[:1]
        output_tokens = torch.cat([self.iou_token.weight, answering, self.mask_tokens.weight[1:], *self._more_tokens()])
        tokens = torch.cat([output_tokens.expand(batch, -1, -1), sparse.to(output_tokens.dtype)], dim=1)
        hidden, source = self.transformer(embedding + dense, positions.expand_as(embedding), tokens)
        upscaled = self._upscale(source.transpose(1, 2).reshape(batch, -1, height, width), *finer)
        answers = hidden[:, 1 : 1 + answering.shape[0]]
        logits: Tensor = (self.output_hypernetworks_mlps[0](answers) @ upscaled.flatten(2)).unflatten(
            2, upscaled.shape[2:]
        )
        return logits if self.token_set is None else self.token_set(answers, logits), upscaled

    def _more_tokens(self) -> tuple[Tensor, ...]:
        """Output tokens beside those for masks and their quality; (1, D) each."""
        return ()

    def _upscale(self, source: Tensor, *finer: Tensor) -> Tensor:
        """From the grid of the embedding to four times as fine; (B, D, h, w) to (B, D / 8, 4h, 4w)."""
        upscaled: Tensor = self.output_upscaling(source)
        return upscaled


class TokenOutput(NamedTuple):
    """What mask tokens predict before merging: logits (B, N, K + 1), the last of "no object", and (B, N, h, w)."""

    classes: Tensor
    masks: Tensor


class TokenSetHead(KeepsOutput[TokenOutput]):
    """Class of each mask token, and the tokens' masks merged by class (Conv-LoRA, arXiv 2401.17868).

    It starts from equal scores for all classes, so that a network is the same whatever seed it is built with. In
    training the tokens' own predictions are kept for the matching loss.
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

    Classes are logits (B, N, K + 1), the last of "no object", masks are logits (B, N, h, w); the result has shape
    (B, K, h, w), float32. What the classes leave of a pixel is background, log(s_k) - log(1 - sum_j s_j), so that
    :func:`~topolora_monai.networks.probabilities` with ``"softmax"`` gives s_k back. Tokens that agree can exceed 1
    together; the background then has a millionth, and the classes share the pixel in proportion to s_k.

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
