"""Baselines by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from topolora_monai.errors import ConfigError, unknown_choice
from topolora_monai.networks.baselines.convolutional import build_dynunet, build_smp
from topolora_monai.networks.baselines.little_wnet import LittleWNet
from topolora_monai.networks.baselines.mask2former import build_mask2former
from topolora_monai.networks.baselines.segmenter import BaselineSegmenter

__all__ = ["BASELINE_NAMES", "build_baseline"]


def build_baseline(
    network_name: str,
    *,
    encoder_weights: str | Path | None = None,
    in_channels: int = 3,
    out_channels: int = 1,
    seed: int = 0,
) -> BaselineSegmenter:
    """Build a baseline by name, with random weights or a pretrained encoder.

    Args:
        network_name: one of :data:`BASELINE_NAMES`.
        encoder_weights: path of a safetensors or PyTorch file of the encoder; ``"imagenet"`` for the weights
            its library publishes, from the library's cache or server; None keeps seeded random weights. The
            network's ``pretrained`` says which it was.
        in_channels: channels of the images.
        out_channels: number of classes K; 1 for foreground against background.
        seed: of the random weights; the global generator is left untouched.

    Returns:
        The segmenter, in evaluation mode, on the CPU, in float32.

    Raises:
        ConfigError: for an unknown name, impossible channels, a missing library, or weights that there are
            none of or cannot be had.
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


_WITH_ENCODER: dict[str, Callable[[str | None, int, int], nn.Module]] = {
    "unet_resnet34": partial(build_smp, "unet", "resnet34"),
    "deeplabv3plus_resnet50": partial(build_smp, "deeplabv3plus", "resnet50"),
    "segformer_b0": partial(build_smp, "segformer", "mit_b0"),
    "segformer_b2": partial(build_smp, "segformer", "mit_b2"),
    "mask2former_swin_t": build_mask2former,
}
_WITHOUT_ENCODER: dict[str, Callable[[int, int], nn.Module]] = {
    "dynunet": build_dynunet,
    "little_wnet": LittleWNet,
}

BASELINE_NAMES: tuple[str, ...] = (*_WITH_ENCODER, *_WITHOUT_ENCODER)
"""Names that :func:`build_baseline` knows."""
