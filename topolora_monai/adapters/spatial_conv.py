"""TopoLoRA-SAM's spatial convolution adapter on the image embedding."""

from typing import Literal

from timm.layers import LayerNorm2d
from torch import Tensor, nn

Normalization = Literal["layer", "batch"]


class SpatialConvAdapter(nn.Module):
    """Residual depth-wise convolution block: ``x + PW2(GELU(norm(PW1(DW3x3(x)))))`` (arXiv 2601.02273).

    The last convolution starts at zero, so a new adapter is an exact no-op. The published BatchNorm is
    trained on single images there; the default here normalises each pixel over its channels, with as many
    parameters.

    Args:
        channels: channels of the embedding.
        normalization: ``"layer"`` or ``"batch"``.

    Example:
        >>> import torch
        >>> x = torch.rand(1, 256, 4, 4)
        >>> torch.equal(SpatialConvAdapter(256)(x), x)
        True
    """

    def __init__(self, channels: int, normalization: Normalization = "layer") -> None:
        super().__init__()
        norm = nn.BatchNorm2d(channels) if normalization == "batch" else LayerNorm2d(channels)
        last = nn.Conv2d(channels, channels, 1, bias=False)
        nn.init.zeros_(last.weight)
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            norm,
            nn.GELU(),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Refine an embedding; (B, channels, h, w) in and out."""
        refined: Tensor = self.block(x)
        return x + refined
