"""A light convolutional branch at the image's own resolution, which refines the mask decoder's logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

_LOGIT_RANGE = 4.0  # beyond which more certainty is no further information


class DetailBranch(nn.Module):
    """Refine logits by what the image shows between the pixels of the decoder's map: ``logits + f(image, ...)``.

    A small U-Net over three scales, the image's own, half and a quarter of it, fed by the image, by the upscaled
    embedding of the mask decoder (projected to fewer channels), and by its logits. So the encoder may see an image at
    less zoom than thin structures would need. Norms are over the channels of each pixel, so that nothing depends on
    the batch or on what lies far away. The last convolution starts at zero, so a new branch is an exact no-op.

    Args:
        out_channels: number of classes K.
        embedding_channels: of the decoder's upscaled embedding.
        guides: channels that this is projected to.
        widths: channels at the image's own resolution, at half and at a quarter.

    Example:
        >>> branch = DetailBranch(2)
        >>> image, upscaled, logits = torch.rand(1, 3, 9, 7), torch.rand(1, 32, 4, 4), torch.rand(1, 2, 9, 7)
        >>> torch.equal(branch(image, F.interpolate(branch.guide(upscaled), size=(9, 7)), logits), logits)
        True
        >>> 100_000 < sum(p.numel() for p in branch.parameters()) < 150_000
        True
    """

    def __init__(
        self,
        out_channels: int,
        embedding_channels: int = 32,
        guides: int = 8,
        widths: Sequence[int] = (16, 32, 64),
    ) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.guide = nn.Sequential(LayerNorm2d(embedding_channels), nn.Conv2d(embedding_channels, guides, 1))
        self.fine = nn.Sequential(nn.Conv2d(3 + guides + out_channels, fine, 3, padding=1), nn.GELU())
        self.middle = _block(fine, middle, stride=2)
        self.coarse = _block(middle, coarse, stride=2)
        self.at_coarse = nn.Sequential(_block(coarse, coarse), _block(coarse, coarse))
        self.to_middle, self.at_middle = nn.Conv2d(coarse, middle, 1), _block(middle, middle)
        self.to_fine = nn.Conv2d(middle, fine, 1)
        self.at_fine = nn.Sequential(nn.Conv2d(fine, fine, 3, padding=1), nn.GELU())
        self.last = nn.Conv2d(fine, out_channels, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor, guides: Tensor, logits: Tensor) -> Tensor:
        """Refined logits.

        Args:
            image: normalised, shape (B, 3, H, W), H and W from 1.
            guides: what :attr:`guide` makes of the upscaled embedding, brought to the image's size, (B, guides, H, W).
            logits: of the mask decoder at the image's size, (B, K, H, W).
        """
        fine = self.fine(torch.cat([image, guides, torch.tanh(logits / _LOGIT_RANGE)], dim=1))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        coarse = coarse + self.at_coarse(coarse)
        middle = self.at_middle(middle + _upsampled(self.to_middle(coarse), middle))
        fine = self.at_fine(fine + _upsampled(self.to_fine(middle), fine))
        refined: Tensor = logits + self.last(fine)
        return refined


def _block(channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 3, stride, padding=1, bias=False), LayerNorm2d(out_channels), nn.GELU()
    )


def _upsampled(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
