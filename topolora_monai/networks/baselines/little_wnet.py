"""Little W-Net: two small U-Nets in sequence (Galdran et al., Scientific Reports 2022, arXiv 2009.01907)."""

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from topolora_monai.networks.shared import KeepsOutput


class LittleWNet(KeepsOutput[Tensor]):
    """A second small U-Net that sees the image together with the first one's logits; (B, C, H, W) to (B, K, H, W).

    H and W are multiples of 4. With three channels in and one out it has 68,482 parameters, the 68 thousand of the
    paper. There both stages are trained against the same target: in training the first stage's logits are kept.

    Example:
        >>> sum(p.numel() for p in LittleWNet().parameters())
        68482
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 1) -> None:
        super().__init__()
        self.first = LittleUNet(in_channels, out_channels)
        self.second = LittleUNet(in_channels + out_channels, out_channels)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, H, W) of the second stage; H and W are multiples of 4."""
        first = self.first(image)
        self.keep(first)
        return cast(Tensor, self.second(torch.cat([image, first], dim=1)))


class LittleUNet(nn.Module):
    """U-Net with residual blocks and a convolution on each skip connection; (B, C, H, W) to logits (B, K, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        widths = (8, 16, 32)  # of each resolution, each half of the one before
        self.encoder = nn.ModuleList(_ResidualBlock(*pair) for pair in pairwise((in_channels, *widths)))
        self.pool = nn.MaxPool2d(2)
        rising = widths[::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(*pair, 2, stride=2) for pair in pairwise(rising))
        self.bridge = nn.ModuleList(nn.Sequential(*_convolution(width, width)) for width in rising[1:])
        self.decoder = nn.ModuleList(_ResidualBlock(2 * width, width) for width in rising[1:])
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="leaky_relu")
        self.head = nn.Conv2d(widths[0], out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, H, W) of an input (B, C, H, W)."""
        skips: list[Tensor] = []
        for block in self.encoder:
            x = block(self.pool(x) if skips else x)
            skips.append(x)
        for up, bridge, block, skip in zip(self.up, self.bridge, self.decoder, reversed(skips[:-1]), strict=True):
            x = block(torch.cat([up(x), bridge(skip)], dim=1))
        return cast(Tensor, self.head(x))


class _ResidualBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(*_convolution(in_channels, out_channels), *_convolution(out_channels, out_channels))
        self.shortcut = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.block(x) + self.shortcut(x))


def _convolution(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.LeakyReLU(), nn.BatchNorm2d(out_channels)]
