"""U-Net, DeepLabV3+ and SegFormer by segmentation_models_pytorch; DynUNet by MONAI."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from topolora_monai.extras import import_extra
from topolora_monai.networks.baselines.encoder_weights import IMAGENET, fetching, load_encoder

__all__ = ["build_dynunet", "build_smp"]


def build_smp(
    architecture: str, encoder_name: str, encoder_weights: str | None, in_channels: int, out_channels: int
) -> nn.Module:
    """Build a network of segmentation_models_pytorch.

    Args:
        architecture: ``"unet"``, ``"deeplabv3plus"`` or ``"segformer"``.
        encoder_name: as the library calls it.
        encoder_weights: path of a file, ``"imagenet"``, or None for random initialisation. Pretrained first
            layers are fitted to other numbers of channels as the library does it.
        in_channels: channels of the image.
        out_channels: number of classes.

    Raises:
        ConfigError: if the library is missing or the published weights cannot be had.
        CheckpointError: if the file does not hold this encoder.
    """
    smp = import_extra("segmentation_models_pytorch", "baselines", "this network")
    published = IMAGENET if encoder_weights == IMAGENET else None
    with fetching(encoder_name):
        network = smp.create_model(architecture, encoder_name, encoder_weights=published, classes=out_channels)
    if encoder_weights not in (None, IMAGENET):
        load_encoder(network.encoder, encoder_weights)
    network.encoder.set_in_channels(in_channels, pretrained=encoder_weights is not None)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Sequential) and len(module) > 2 and isinstance(module[0], nn.AdaptiveAvgPool2d):
            network.set_submodule(f"{name}.2", _PooledBatchNorm(cast(nn.BatchNorm2d, module[2]).num_features))
    return cast(nn.Module, network)


def build_dynunet(in_channels: int, out_channels: int) -> nn.Module:
    """Build MONAI's DynUNet with six resolutions, as nnU-Net plans it for 2-D patches of this size."""
    strides = (1, 2, 2, 2, 2, 2)
    network = DynUNet(
        spatial_dims=2,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=(3,) * len(strides),
        strides=strides,
        upsample_kernel_size=strides[1:],
    )
    return cast(nn.Module, network)


class _PooledBatchNorm(nn.BatchNorm2d):
    """BatchNorm after global pooling, where a batch of one image has a single value a channel to normalise."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)
