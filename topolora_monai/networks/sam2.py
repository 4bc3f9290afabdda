"""SAM 2's image part: transformers' Hiera encoder, and a mask decoder that sees its finer maps."""

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from segment_anything.modeling import MaskDecoder as OriginalMaskDecoder
from segment_anything.modeling.mask_decoder import MLP
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from topolora_monai.errors import unknown_choice
from topolora_monai.extras import import_extra
from topolora_monai.networks.mask_decoder import MaskDecoder

Sam2Size = Literal["tiny", "small", "base_plus", "large"]

# What differs from transformers' defaults, which are those of the tiny size; window_background: the grid of
# the position table, window_size: tokens a side of a window in each stage.
_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"width": 96},
    "small": {"width": 96, "blocks": [1, 2, 11, 2], "global": [7, 10, 13]},
    "base_plus": {"width": 112, "heads": 2, "blocks": [2, 3, 16, 3], "global": [12, 16, 20], "background": [14, 14]},
    "large": {"width": 144, "heads": 2, "blocks": [2, 6, 36, 4], "global": [23, 33, 43], "windows": [8, 4, 16, 8]},
}


class Sam2ImageEncoder(nn.Module):
    """SAM 2's Hiera backbone and feature pyramid (Ravi et al., arXiv 2408.00714), by transformers.

    The layers are those of ``transformers.Sam2VisionModel``, whose names they keep (``backbone``, ``neck``);
    the position encodings that its neck computes for the memory of videos are not needed and left out.

    Args:
        size: ``"tiny"``, ``"small"``, ``"base_plus"`` or ``"large"``.
        activation_checkpointing: recompute each block in the backward pass to save memory.

    Raises:
        ConfigError: for an unknown size, or if transformers is not installed.

    Example:
        >>> import torch
        >>> [tuple(level.shape) for level in Sam2ImageEncoder()(torch.zeros(1, 3, 64, 96))]
        [(1, 256, 4, 6), (1, 256, 8, 12), (1, 256, 16, 24)]
    """

    stride = 32  # of the coarsest level, which is added to the embedding's, at 16

    def __init__(self, size: Sam2Size = "tiny", activation_checkpointing: bool = False) -> None:
        super().__init__()
        self.activation_checkpointing = activation_checkpointing
        model = _vision_model(size)
        self.backbone = model.backbone
        self.neck = model.neck
        self.no_memory_embedding = nn.Parameter(torch.zeros(1, 1, model.config.fpn_hidden_size))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode a normalised image, (B, 3, H, W), H and W multiples of 32.

        Gives maps of 256 channels: the embedding at a sixteenth of the image's sides, and what the decoder refines it
        with, at an eighth and a quarter.
        """
        laterals = [
            convolution(stage.permute(0, 3, 1, 2))
            for convolution, stage in zip(self.neck.convs, reversed(self._stages(image)), strict=True)
        ]
        coarsest, middle, eighth, quarter = laterals
        embedding = middle + F.interpolate(coarsest, scale_factor=2.0, mode="nearest")
        # What the video part adds on a frame that remembers nothing, as every single image is.
        return embedding + self.no_memory_embedding.reshape(1, -1, 1, 1), eighth, quarter

    def _stages(self, image: Tensor) -> list[Tensor]:
        """Output of each stage of the backbone, (B, H, W, C), at strides 4, 8, 16 and 32."""
        x = self.backbone.patch_embed(image)
        x = x + self._positions((x.shape[1], x.shape[2]))
        stages = []
        for index, block in enumerate(self.backbone.blocks):
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
            if index in self.backbone.stage_ends:
                stages.append(x)
        return stages

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """A coarse table stretched over the grid plus one of a window's size repeated over it."""
        window = self.backbone.pos_embed_window
        stretched = F.interpolate(self.backbone.pos_embed, size=grid, mode="bicubic")
        repeated = window.tile(1, 1, grid[0] // window.shape[2], grid[1] // window.shape[3])
        positions: Tensor = stretched + repeated
        return positions.permute(0, 2, 3, 1)


class Sam2MaskDecoder(MaskDecoder):
    """SAM 2's mask decoder: SAM's, with an object token and skips from the encoder's finer maps.

    State-dict keys are those of the official files below ``sam_mask_decoder``, but for the MLPs of the
    transformer, which keep SAM's names.

    Args:
        decoder: an original SAM decoder; its layers are taken over, so do not use it further.
        out_channels: number of classes K.

    Example:
        >>> from topolora_monai.networks import build_network
        >>> type(build_network("sam2_t", image_size=64).mask_decoder).__name__
        'Sam2MaskDecoder'
    """

    def __init__(self, decoder: OriginalMaskDecoder, out_channels: int = 1) -> None:
        super().__init__(decoder, out_channels)
        channels: int = decoder.transformer_dim
        self.obj_score_token = nn.Embedding(1, channels)
        self.pred_obj_score_head = MLP(channels, channels, 1, 3)
        self.conv_s0 = nn.Conv2d(channels, channels // 8, kernel_size=1)
        self.conv_s1 = nn.Conv2d(channels, channels // 4, kernel_size=1)

    @property
    def unused_modules(self) -> list[nn.Module]:
        """Parts that no gradient reaches: those of SAM's decoder and the object score's head."""
        return [*super().unused_modules, self.pred_obj_score_head]

    def _more_tokens(self) -> tuple[Tensor, ...]:
        """The object token; SAM 2 puts it first, but the transformer does not know the order of its tokens."""
        return (self.obj_score_token.weight,)

    def _upscale(self, source: Tensor, *finer: Tensor) -> Tensor:
        """As SAM's, with the finer maps added at twice and four times the grid."""
        eighth, quarter = finer
        first, norm, activation, second, last_activation = self.output_upscaling
        upscaled = activation(norm(first(source) + self.conv_s1(eighth)))
        refined: Tensor = last_activation(second(upscaled) + self.conv_s0(quarter))
        return refined


def _vision_model(size: str) -> Any:
    """A ``Sam2VisionModel`` with random weights."""
    if size not in _SIZES:
        raise unknown_choice("size of SAM 2", size, get_args(Sam2Size))
    transformers = import_extra("transformers", "sam2", "SAM 2", since="4.56")
    import_extra("transformers.models.sam2", "sam2", "SAM 2", since="4.56")
    settings = _SIZES[size]
    widths = [settings["width"] * 2**stage for stage in range(4)]
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=widths[0],
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[settings.get("heads", 1) * 2**stage for stage in range(4)],
        blocks_per_stage=settings.get("blocks", [1, 2, 7, 2]),
        global_attention_blocks=settings.get("global", [5, 7, 9]),
        window_size_per_stage=settings.get("windows", [8, 4, 14, 7]),
        window_positional_embedding_background_size=settings.get("background", [7, 7]),
    )
    return transformers.Sam2VisionModel(
        transformers.Sam2VisionConfig(backbone_config=backbone, backbone_channel_list=widths[::-1])
    )
