"""One contract for all baselines: normalisation, padding and sizes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topolora_monai.networks.shared import checked_image

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class BaselineSegmenter(nn.Module):
    """Logits at input size from an image of any size, through a network that wants multiples of its stride.

    The network sees the image at its own scale, normalised by ImageNet's statistics (their average where
    there are not three channels) and extended to the right and below by its last pixels. Sides are at least
    two strides, so that the coarsest features can be normalised.

    Args:
        network: (B, C, H, W) to logits (B, K, h, w); H and W are multiples of ``stride``, h and w may be
            smaller by a common factor.
        base_name: name of the network, which files with its weights are tied to.
        in_channels: number of channels C.
        stride: in pixels.
        pretrained: whether the encoder starts from pretrained weights.

    Example:
        >>> network = BaselineSegmenter(nn.Conv2d(3, 1, 3, padding=1), "convolution", 3, stride=16)
        >>> network(torch.rand(1, 3, 50, 70)).shape
        torch.Size([1, 1, 50, 70])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, base_name: str, in_channels: int, stride: int, pretrained: bool = False
    ) -> None:
        super().__init__()
        self.network = network
        self.base_name = base_name
        self.settings: dict[str, Any] = {}  # of build_network, for whoever has to build it again
        self.in_channels = in_channels
        self.stride = stride
        self.pretrained = pretrained
        mean, std = torch.tensor(_MEAN), torch.tensor(_STD)
        if in_channels != 3:
            mean, std = (values.mean().expand(in_channels).clone() for values in (mean, std))
        self.register_buffer("mean", mean.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, -1, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Segment a batch of images.

        Args:
            image: shape (B, C, H, W), floating point, values in [0, 1].

        Returns:
            Logits of shape (B, K, H, W), float32.

        Raises:
            ConfigError: when the number of channels is not the one the network was built for.
        """
        image = checked_image(image, self.in_channels)
        size = (image.shape[-2], image.shape[-1])
        x = (image.float() - self.mean) / self.std
        height, width = self.padded_size(size)
        x = F.pad(x, (0, width - size[1], 0, height - size[0]), mode="replicate")
        return self.restore(self.network(x), size)

    def padded_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width in pixels that the inner network sees of an image of ``size``."""
        height, width = (max(2, -(-side // self.stride)) * self.stride for side in size)
        return height, width

    def restore(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Bring the inner network's logits (B, K, h, w) to the image's ``size``, in float32."""
        padded = self.padded_size(size)
        logits = logits.float()
        if logits.shape[-2:] != padded:
            logits = F.interpolate(logits, size=padded, mode="bilinear", align_corners=False)
        return logits[..., : size[0], : size[1]]
