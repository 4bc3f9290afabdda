"""SAM's plain ViT image encoder (B, L, H): original parameters, memory-lean computation, any grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from segment_anything.modeling.image_encoder import Attention, Block, ImageEncoderViT
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from topolora_monai.networks.attention import relative_position_attention, relative_position_table

__all__ = ["VitImageEncoder"]


class RelativePositionAttention(nn.Module):
    """The original block's attention parameters with a fused computation.

    Args:
        attention: a ``segment_anything`` attention module with relative positions; its layers are taken over.
        window_size: side of the attention windows in tokens, 0 for global attention.
    """

    def __init__(self, attention: Attention, window_size: int) -> None:
        super().__init__()
        self.num_heads: int = attention.num_heads
        self.window_size = window_size
        self.qkv = attention.qkv
        self.proj = attention.proj
        self.rel_pos_h = attention.rel_pos_h
        self.rel_pos_w = attention.rel_pos_w

    def forward(self, x: Tensor) -> Tensor:
        """Attend within windows or globally; (B, H, W, C) in and out."""
        height, width = x.shape[1:3]
        qkv = self.qkv(x)
        if self.window_size:
            qkv = self._pad(qkv, x)
            windows, layout = _partition(qkv, self.window_size)
            attended = _unpartition(self._attend(windows), self.window_size, layout)[:, :height, :width]
        else:
            attended = self._attend(qkv)
        projected: Tensor = self.proj(attended)
        return projected

    def _pad(self, qkv: Tensor, x: Tensor) -> Tensor:
        """Fill up to whole windows with what ``qkv`` makes of the original's zero tokens."""
        height, width = qkv.shape[1:3]
        below, right = -height % self.window_size, -width % self.window_size
        if not below and not right:
            return qkv
        filler: Tensor = self.qkv(x.new_zeros(1, 1, 1, x.shape[-1]))
        padded = filler.expand(qkv.shape[0], height + below, width + right, -1).clone()
        padded[:, :height, :width] = qkv
        return padded

    def _attend(self, qkv: Tensor) -> Tensor:
        batch, height, width, channels = qkv.shape
        split = qkv.reshape(batch, height * width, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        table_h = relative_position_table(self.rel_pos_h, height)
        table_w = relative_position_table(self.rel_pos_w, width)
        out = relative_position_attention(split[0], split[1], split[2], table_h, table_w, (height, width))
        return out.transpose(1, 2).reshape(batch, height, width, channels // 3)


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP with residuals, built on an original block's layers.

    Args:
        block: a ``segment_anything`` encoder block; its layers are taken over.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norm1 = block.norm1
        self.attn = RelativePositionAttention(block.attn, block.window_size)
        self.norm2 = block.norm2
        self.mlp = block.mlp

    def forward(self, x: Tensor) -> Tensor:
        """Transform tokens; (B, H, W, C) in and out."""
        x = x + self.attn(self.norm1(x))
        transformed: Tensor = x + self.mlp(self.norm2(x))
        return transformed


class VitImageEncoder(nn.Module):
    """SAM's ViT encoder over the original's own parameters (Kirillov et al., ICCV 2023).

    State-dict keys equal those of ``segment_anything``. Absolute positions are resized bicubically and
    relative ones linearly to the grid at hand; at the built-in grid both are used as they are.

    Args:
        encoder: the original encoder; its layers are taken over, so do not use it further.
        activation_checkpointing: recompute each block in the backward pass instead of keeping its
            activations: less memory for about a third more time.

    Example:
        >>> import torch
        >>> from segment_anything.modeling import ImageEncoderViT
        >>> original = ImageEncoderViT(img_size=64, embed_dim=32, depth=1, num_heads=2, use_rel_pos=True)
        >>> VitImageEncoder(original)(torch.zeros(1, 3, 64, 96)).shape
        torch.Size([1, 256, 4, 6])
    """

    stride = 16

    def __init__(self, encoder: ImageEncoderViT, activation_checkpointing: bool = False) -> None:
        super().__init__()
        self.activation_checkpointing = activation_checkpointing
        self.patch_embed = encoder.patch_embed
        self.pos_embed = encoder.pos_embed
        self.blocks = nn.ModuleList(TransformerBlock(block) for block in encoder.blocks)
        self.neck = encoder.neck

    def forward(self, image: Tensor) -> Tensor:
        """Encode a normalised image.

        Args:
            image: shape (B, 3, H, W), H and W multiples of 16.

        Returns:
            Embedding of shape (B, 256, H / 16, W / 16).
        """
        x = self.patch_embed(image)
        x = x + _resize_positions(self.pos_embed, (x.shape[1], x.shape[2]))
        for block in self.blocks:
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        embedding: Tensor = self.neck(x.permute(0, 3, 1, 2))
        return embedding


def _resize_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    if positions.shape[1:3] == grid:
        return positions
    resized = F.interpolate(positions.permute(0, 3, 1, 2), size=grid, mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1)


def _partition(x: Tensor, size: int) -> tuple[Tensor, tuple[int, int, int]]:
    batch, height, width, channels = x.shape
    rows, columns = height // size, width // size
    windows = x.reshape(batch, rows, size, columns, size, channels).transpose(2, 3)
    return windows.reshape(-1, size, size, channels), (batch, rows, columns)


def _unpartition(windows: Tensor, size: int, layout: tuple[int, int, int]) -> Tensor:
    batch, rows, columns = layout
    x = windows.reshape(batch, rows, columns, size, size, -1).transpose(2, 3)
    return x.reshape(batch, rows * size, columns * size, -1)
