"""Mask2Former (Swin-T) of transformers, its query masks merged to logits per class."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timm.models import adapt_input_conv
from torch import Tensor, nn

from topolora_monai.extras import import_extra
from topolora_monai.networks.baselines.encoder_weights import IMAGENET, another_encoder, fetching
from topolora_monai.networks.shared import KeepsOutput
from topolora_monai.weights import read_checkpoint

_PUBLISHED_SWIN = "microsoft/swin-tiny-patch4-window7-224"
_NEW_IN_BACKBONE = "hidden_states_norms."  # Mask2Former's own norms on each stage of the encoder


class Queries(NamedTuple):
    """What Mask2Former predicts before merging: logits (B, Q, K + 1), the last of "no object", and (B, Q, h, w).

    ``auxiliary`` has the same of each decoder layer before the last, under the library's names.
    """

    classes: Tensor
    masks: Tensor
    auxiliary: list[dict[str, Tensor]]


class Mask2Former(KeepsOutput[Queries]):
    """Mask2Former (Cheng et al., arXiv 2112.01527) of transformers as a network from images to logits.

    In training the queries are kept for the matching loss.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, H / 4, W / 4), float32, of images (B, C, H, W), H and W multiples of 32."""
        wants_auxiliary = self.keeping and self.training
        output = self.model(pixel_values=image, output_auxiliary_logits=wants_auxiliary)
        classes, masks = output.class_queries_logits, output.masks_queries_logits
        self.keep(Queries(classes, masks, output.auxiliary_logits or []))
        return merge_queries(classes, masks)


def merge_queries(classes: Tensor, masks: Tensor) -> Tensor:
    """Merge query masks to p = 1 - prod_q(1 - p_q m_q) for each class, given as logits log(p / (1 - p)).

    Classes are logits (B, Q, K + 1), p_q their softmax, the last one "no object"; masks are logits (B, Q, h, w), m_q
    their sigmoid; the result has shape (B, K, h, w). Computed in the logarithm, in float32: neither a hundred confident
    queries nor none saturate.

    Example:
        >>> merged = merge_queries(torch.tensor([[[0.0, 0.0]]]), torch.full((1, 1, 1, 1), 30.0))
        >>> bool(merged.sigmoid().isclose(torch.tensor(0.5)))
        True
    """
    log_classes = F.log_softmax(classes.float(), dim=-1)[..., :-1]
    log_masks = F.logsigmoid(masks.float())
    merged = [_merge_one(log_classes[..., k, None, None] + log_masks) for k in range(log_classes.shape[-1])]
    return torch.stack(merged, dim=1)


def _merge_one(log_joint: Tensor) -> Tensor:
    """Logits (B, h, w) of one class from log(p_q m_q), shape (B, Q, h, w)."""
    log_background = _log_complement(log_joint.clamp(max=-1e-7)).sum(dim=1).clamp(max=-1e-30)
    return _log_complement(log_background) - log_background


def _log_complement(log_p: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, precise at both ends."""
    near_one = log_p > -math.log(2)
    # Each branch sees only what it is precise for: the other one's infinite slope would become NaN.
    close = torch.log(-torch.expm1(torch.where(near_one, log_p, -1.0)))
    far = torch.log1p(-torch.exp(torch.where(near_one, -1.0, log_p)))
    return torch.where(near_one, close, far)


def build_mask2former(encoder_weights: str | None, in_channels: int, out_channels: int) -> Mask2Former:
    """Mask2Former with a Swin-T encoder, whose file is as transformers publishes it, and 100 queries."""
    transformers = import_extra("transformers", "baselines", "this network")
    swin = transformers.SwinConfig(
        embed_dim=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        drop_path_rate=0.3,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = transformers.Mask2FormerConfig(backbone_config=swin, num_labels=out_channels)
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    if encoder_weights is not None:
        model.model.pixel_level_module.encoder = _pretrained_swin(transformers, swin, encoder_weights)
    _set_in_channels(model.model.pixel_level_module.encoder, in_channels)
    model.model.pixel_level_module.encoder.swin.layernorm = nn.Identity()  # its output has no user, so no gradient
    return Mask2Former(model)


def _pretrained_swin(transformers: Any, config: Any, encoder_weights: str) -> nn.Module:
    """Swin by the library's own loading, which knows the older names of its tensors."""
    options = {"config": config, "output_loading_info": True, "ignore_mismatched_sizes": True}
    with _without_report(transformers):
        if encoder_weights == IMAGENET:
            with fetching("swin_t"):
                swin, report = transformers.SwinBackbone.from_pretrained(_PUBLISHED_SWIN, **options)
        else:
            state = read_checkpoint(encoder_weights)
            swin, report = transformers.SwinBackbone.from_pretrained(None, state_dict=state, **options)
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(_NEW_IN_BACKBONE))
    reshaped = sorted(str(entry[0]) for entry in report["mismatched_keys"])
    if missing or reshaped:
        raise another_encoder(encoder_weights, len(swin.state_dict()), missing, reshaped)
    return swin  # type: ignore[no-any-return]


@contextmanager
def _without_report(transformers: Any) -> Iterator[None]:
    """Silence the library's list of what a file lacks, which is checked here, and its progress bar."""
    logging = transformers.utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _set_in_channels(encoder: nn.Module, in_channels: int) -> None:
    """Fit the first convolution, trained or not, to another number of channels."""
    for module in encoder.modules():
        projection = getattr(module, "projection", None)
        if isinstance(projection, nn.Conv2d) and in_channels != 3:
            fitted = nn.Conv2d(in_channels, projection.out_channels, projection.kernel_size, projection.stride)  # type: ignore[arg-type]
            with torch.no_grad():
                fitted.weight.copy_(adapt_input_conv(in_channels, projection.weight))
                fitted.bias.copy_(projection.bias)  # type: ignore[union-attr, arg-type]
            module.projection = fitted
            module.num_channels = in_channels  # type: ignore[assignment]
            return
