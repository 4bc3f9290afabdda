"""Baselines by name: some by segmentation_models_pytorch, MONAI and transformers, one of our own."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from topolora_monai.errors import ConfigError, unknown_choice
from topolora_monai.extras import import_extra
from topolora_monai.networks.baselines.encoder_weights import IMAGENET, fetching, load_encoder
from topolora_monai.networks.baselines.little_wnet import LittleWNet
from topolora_monai.networks.baselines.mask2former import build_mask2former
from topolora_monai.networks.baselines.segmenter import BaselineSegmenter


def build_baseline(
    network_name: str,
    *,
    encoder_weights: str | Path | None = None,
    in_channels: int = 3,
    out_channels: int = 1,
    seed: int = 0,
) -> BaselineSegmenter:
    """Build a baseline by name, as :func:`~topolora_monai.networks.build_network` does.

    ``encoder_weights`` is the path of a safetensors or PyTorch file of the encoder, ``"imagenet"`` for the weights its
    library publishes, from the library's cache or server, or None for seeded random weights.

    Raises:
        ConfigError: for an unknown name, impossible channels, a missing library, or weights that there are none of or
            cannot be had.
        CheckpointError: for a file that is damaged or of another encoder.

    Example:
        >>> network = build_baseline("little_wnet")
        >>> network(torch.rand(1, 3, 50, 70)).shape, network.pretrained
        (torch.Size([1, 1, 50, 70]), False)
    """
    if network_name not in BASELINE_NAMES:
        raise unknown_choice("network_name", network_name, BASELINE_NAMES)
    if in_channels < 1 or out_channels < 1:
        raise ConfigError("in_channels and out_channels must be positive", found=(in_channels, out_channels))
    weights = None if encoder_weights is None else str(encoder_weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if network_name in _WITH_ENCODER:
            network = _WITH_ENCODER[network_name](weights, in_channels, out_channels)
        elif weights is None:
            network = _WITHOUT_ENCODER[network_name](in_channels, out_channels)
        else:
            raise ConfigError(f"{network_name} has no pretrained encoder", found=weights, hint="set weights to null")
    stride = 4 if network_name == "little_wnet" else 32
    return BaselineSegmenter(network, network_name, in_channels, stride, pretrained=weights is not None).eval()


def _build_smp(
    architecture: str, encoder_name: str, encoder_weights: str | None, in_channels: int, out_channels: int
) -> nn.Module:
    """Build a network of segmentation_models_pytorch, which fits pretrained first layers to other channels."""
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


def _build_dynunet(in_channels: int, out_channels: int) -> nn.Module:
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


_WITH_ENCODER: dict[str, Callable[[str | None, int, int], nn.Module]] = {
    "unet_resnet34": partial(_build_smp, "unet", "resnet34"),
    "deeplabv3plus_resnet50": partial(_build_smp, "deeplabv3plus", "resnet50"),
    "segformer_b0": partial(_build_smp, "segformer", "mit_b0"),
    "segformer_b2": partial(_build_smp, "segformer", "mit_b2"),
    "mask2former_swin_t": build_mask2former,
}
_WITHOUT_ENCODER: dict[str, Callable[[int, int], nn.Module]] = {
    "dynunet": _build_dynunet,
    "little_wnet": LittleWNet,
}

BASELINE_NAMES: tuple[str, ...] = (*_WITH_ENCODER, *_WITHOUT_ENCODER)
"""Names that :func:`build_baseline` knows."""
