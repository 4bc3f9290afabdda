"""What a preset costs on a base: the facts of a method that need no training to know."""

from __future__ import annotations

from typing import NamedTuple

import torch

from topolora_monai.adapters.adapt import prepare
from topolora_monai.adapters.config import PRESETS, preset_config
from topolora_monai.adapters.files import adapter_state
from topolora_monai.networks import build_network

__all__ = ["PresetSummary", "summarize_preset"]


class PresetSummary(NamedTuple):
    """A preset on one base.

    Args:
        preset: its name.
        trains: what trains, in words.
        paper: arXiv number, or empty.
        trainable: number of parameters that train.
        file_bytes: tensors of its adapter file; the header adds a few kB.
        mergeable: ``"fully"``, ``"partly"`` or ``"no"``.
    """

    preset: str
    trains: str
    paper: str
    trainable: int
    file_bytes: int
    mergeable: str


def summarize_preset(preset: str, network_name: str) -> PresetSummary:
    """Count a preset on a base, without memory for its weights.

    Raises:
        ConfigError: for an unknown name, or a base that the preset does not fit.

    Example:
        >>> summary = summarize_preset("lora", "vit_tiny_test")
        >>> summary.file_bytes == 4 * summary.trainable, summary.mergeable
        (True, 'fully')
    """
    config = preset_config(preset)
    with torch.device("meta"):
        network = build_network(network_name)
        prepare(network, config)
    trainable = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    file_bytes = sum(tensor.nbytes for tensor in adapter_state(network).values())
    trains, paper, _ = PRESETS[preset]
    return PresetSummary(preset, trains, paper, trainable, file_bytes, config.mergeable)
