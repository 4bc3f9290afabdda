"""SAM's plain ViT image encoder (B, L, H): original parameters, memory-lean computation, any grid."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from segment_anything.modeling.image_encoder import Attention, Block, ImageEncoderViT
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from topolora_monai.networks.attention import fill_windows, relative_position_attention, relative_position_table


class RelativePositionAttention(nn.Module):
    """The parameters of a ``segment_anything`` attention with a fused computation; window size 0 attends globally."""

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
        qkv = self._project(x)
        if self.window_size:
            attended = self._attend(qkv, (self.window_size, self.window_size))[:, :height, :width]
        else:
            attended = self._attend(qkv, (height, width))
        projected: Tensor = self.proj(attended)
        return projected

    def _project(self, x: Tensor) -> Tensor:
        """Queries, keys and values, in windows also of the zero tokens that fill up the last ones."""
        if getattr(self.qkv, "takes_windows", False):  # an adapter that mixes tokens has to know the windows
            windowed: Tensor = self.qkv(x, window=self.window_size)
            return windowed
        qkv: Tensor = self.qkv(x)
        return fill_windows(qkv, x, self.qkv, self.window_size) if self.window_size else qkv

    def _attend(self, qkv: Tensor, window: tuple[int, int]) -> Tensor:
        """Attention within windows that tile the grid; (B, H, W, 3C) to (B, H, W, C)."""
        batch, height, width, channels = qkv.shape
        rows, columns = height // window[0], width // window[1]
        tokens = window[0] * window[1]
        if rows * columns == 1:  # a view of each head; measured, it multiplies faster than a compact copy
            split = qkv.reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        else:
            tiles = qkv.reshape(batch, rows, window[0], columns, window[1], 3, self.num_heads, -1)
            split = tiles.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(3, batch * rows * columns, self.num_heads, tokens, -1)
        query, key, value = split
        table_h = relative_position_table(self.rel_pos_h, window[0])
        table_w = relative_position_table(self.rel_pos_w, window[1])
        out = relative_position_attention(query, key, value, table_h, table_w, window)
        tiles = out.reshape(batch, rows, columns, self.num_heads, *window, -1).permute(0, 1, 4, 2, 5, 3, 6)
        return tiles.reshape(batch, height, width, channels // 3)


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP with residuals, over the layers of a ``segment_anything`` encoder block."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norm1 = block.norm1
        self.attn = RelativePositionAttention(block.attn, block.window_size)
        self.norm2 = block.norm2
        self.mlp = block.mlp

    def forward(self, x: Tensor, recompute_activation: bool = False) -> Tensor:
        """Transform tokens; (B, H, W, C) in and out.

        With ``recompute_activation`` the MLP's widest tensor is computed again in the backward pass.
        """
        x = x + self.attn(self.norm1(x))
        hidden = self.mlp.lin1(self.norm2(x))
        activated = self.mlp.act(hidden)
        if recompute_activation and hidden.requires_grad and not torch.compiler.is_exporting():
            with _recomputed(activated, lambda: self.mlp.act(hidden.detach())):
                return x + self.mlp.lin2(activated)  # type: ignore[no-any-return]
        return x + self.mlp.lin2(activated)  # type: ignore[no-any-return]


def _recomputed(tensor: Tensor, compute: Callable[[], Tensor]) -> saved_tensors_hooks:
    """Let autograd keep a recipe in place of ``tensor`` (and its views of all elements) for the backward pass."""
    address, elements = tensor.untyped_storage().data_ptr(), tensor.numel()

    def pack(saved: Tensor) -> Tensor | torch.Size:
        same = saved.untyped_storage().data_ptr() == address and saved.numel() == elements and saved.is_contiguous()
        return saved.shape if same else saved

    def unpack(kept: Tensor | torch.Size) -> Tensor:
        return compute().view(kept) if isinstance(kept, torch.Size) else kept

    return saved_tensors_hooks(pack, unpack)


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
        """Encode a normalised image; (B, 3, H, W), H and W multiples of 16, to (B, 256, H / 16, W / 16)."""
        x = self.patch_embed(image)
        x = x + _resize_positions(self.pos_embed, (x.shape[1], x.shape[2]))
        for block in self.blocks:
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x, recompute_activation=True)
        embedding: Tensor = self.neck(x.permute(0, 3, 1, 2))
        return embedding


def _resize_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    if positions.shape[1:3] == grid:
        return positions
    resized = F.interpolate(positions.permute(0, 3, 1, 2), size=grid, mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1)
