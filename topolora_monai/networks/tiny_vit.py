"""MobileSAM's TinyViT image encoder, composed from timm's blocks under the checkpoint's own names."""

from collections import OrderedDict
from typing import cast

import torch
from segment_anything.modeling.common import LayerNorm2d
from timm.models.tiny_vit import Attention, ConvNorm, TinyVit
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class TinyVitImageEncoder(nn.Module):
    """TinyViT-5M as MobileSAM and LiteMedSAM train it (Zhang et al., arXiv 2306.14289).

    Two things differ from timm's ``tiny_vit_5m_224``: the last downsampling keeps its resolution, so the
    embedding has a sixteenth of the image's side, and SAM's neck replaces the classifier. Blocks are
    windowed with padding, so any grid works. State-dict keys are those of the published checkpoints
    without their unused ImageNet classifier (``norm_head``, ``head``).

    Args:
        activation_checkpointing: recompute each stage in the backward pass to save memory.

    Example:
        >>> import torch
        >>> TinyVitImageEncoder()(torch.zeros(1, 3, 64, 96)).shape
        torch.Size([1, 256, 4, 6])
    """

    stride = 16

    def __init__(self, activation_checkpointing: bool = False) -> None:
        super().__init__()
        self.activation_checkpointing = activation_checkpointing
        source = TinyVit(
            num_classes=0,
            embed_dims=(64, 128, 160, 320),
            depths=(2, 2, 6, 2),
            num_heads=(2, 4, 5, 10),
            window_sizes=(7, 7, 14, 7),
            drop_path_rate=0.0,
        )
        _rename_conv_norms(source)
        for module in source.modules():
            if isinstance(module, Attention):
                module.__class__ = _WindowAttention
        embed = source.patch_embed
        self.patch_embed = nn.ModuleDict({"seq": nn.Sequential(embed.conv1, embed.act, embed.conv2)})
        stages = list(source.stages)
        stages[3].downsample.conv2.c.stride = (1, 1)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {"blocks": stage.blocks} | ({"downsample": following.downsample} if following is not None else {})
            )
            for stage, following in zip(stages, [*stages[1:], None], strict=True)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(320, 256, 1, bias=False),
            LayerNorm2d(256),
            nn.Conv2d(256, 256, 3, padding=1, bias=False),
            LayerNorm2d(256),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Encode a normalised image; (B, 3, H, W), H and W multiples of 16, to (B, 256, H / 16, W / 16)."""
        # Every second operation is a linear over channels: with these last, nothing is copied between the two kinds.
        x = self.patch_embed["seq"](image.contiguous(memory_format=torch.channels_last))
        for index in range(len(self.layers)):
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(self._stage, index, x, use_reentrant=False)
            else:
                x = self._stage(index, x)
        embedding: Tensor = self.neck(x)
        return embedding

    def _stage(self, index: int, x: Tensor) -> Tensor:
        layer = cast(nn.ModuleDict, self.layers[index])
        convolutional = index == 0  # the other blocks want channels last
        x = layer["blocks"](x if convolutional else x.permute(0, 2, 3, 1))
        x = x if convolutional else x.permute(0, 3, 1, 2)
        return layer["downsample"](x) if "downsample" in layer else x


class _WindowAttention(Attention):
    """Attention in a window with timm's position biases, in the shape that PyTorch's fused kernel for CPUs takes."""

    def get_attention_biases(self, device: torch.device) -> Tensor:
        """Biases of shape (1, heads, N, N); timm's come without batch axis, and from a cache that outlives weights."""
        biases: Tensor = self.attention_biases[:, self.attention_bias_idxs]
        return biases[None]


def _rename_conv_norms(module: nn.Module) -> None:
    """Give timm's convolution-normalisation pairs the checkpoint's names, ``c`` and ``bn``."""
    for name, child in module.named_children():
        if isinstance(child, ConvNorm):
            setattr(module, name, nn.Sequential(OrderedDict(c=child.conv, bn=child.bn)))
        else:
            _rename_conv_norms(child)
