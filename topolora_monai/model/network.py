"""The network of a trained model: a base with its adapter, or merged from a released bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from topolora_monai.adapters import AdaptationConfig, adapt, base_weights, load_adapter, merge, read_spec
from topolora_monai.adapters.files import build_as_stored
from topolora_monai.errors import CheckpointError, ConfigError, first_line
from topolora_monai.networks import build_network
from topolora_monai.spec import ModelSpec

__all__ = ["MODEL_FILE", "WEIGHTS_FILE", "adapted_network", "bundle_spec", "load_model", "merged_network"]

MODEL_FILE = "models/model.json"
"""Where a released bundle keeps what its model is; its configuration reads it from there, text and all."""
WEIGHTS_FILE = "models/model.pt"
"""Where it keeps the merged network."""


def adapted_network(adapter: str | Path, weights: str | Path | None = None, merged: bool = True) -> nn.Module:
    """What an adapter file makes of its base, in evaluation mode.

    Args:
        adapter: an adapter file.
        weights: the base checkpoint that it was trained on; None takes :func:`~topolora_monai.adapters.base_weights`.
        merged: fold into the base what can be folded. Dropout is gone then.

    Raises:
        AdapterFileError: if the adapter is damaged or does not belong to ``weights``.
        CheckpointError: if ``weights`` cannot be used.
    """
    used = base_weights(adapter) if weights is None else weights
    base = build_as_stored(read_spec(adapter), build_network, adapter, weights=used)
    network = load_adapter(base, adapter).network
    return (merge(network) if merged else network).requires_grad_(False).eval()


def bundle_spec(folder: str | Path) -> ModelSpec:
    """What a released bundle says of its model.

    Raises:
        ConfigError: if the folder holds no released bundle.
        AdapterFileError: if its description is damaged.
    """
    path = Path(folder) / MODEL_FILE
    if not path.is_file():
        raise ConfigError(
            "not a released bundle", path=folder, expected=MODEL_FILE, hint="`topolora release` makes one"
        )
    return read_spec(path)


def merged_network(spec: ModelSpec, **network: Any) -> nn.Module:
    """Build what is left after adapting a network and merging what can be merged, with random weights.

    Args:
        spec: of the model.
        **network: arguments of :func:`~topolora_monai.networks.build_network` in place of the model's own.

    Example:
        >>> settings = {"preset": "lora", "lora": {"targets": ["mlp"]}, "train_decoder": True}
        >>> base = {"network_name": "vit_tiny_test", "base_sha256": 64 * "0", "image_size": 64}
        >>> spec = ModelSpec(**base, adaptation=settings, package_version="1.0")
        >>> any("lora" in name for name in merged_network(spec).state_dict())
        False
    """
    adapted = adapt(build_network(**spec.network_settings | network), AdaptationConfig.from_dict(dict(spec.adaptation)))
    return merge(adapted.network).requires_grad_(False).eval()


def load_model(network: nn.Module, path: str | Path) -> nn.Module:
    """Load a released bundle's ``models/model.pt`` strictly; nothing in it is executed.

    Raises:
        CheckpointError: if the file is missing, damaged, or of another network.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except Exception as error:  # torch.load has no error of its own
        raise CheckpointError(
            "the bundle's model cannot be loaded",
            path=path,
            found=first_line(error),
            hint="copy the whole bundle again; run it in its folder, or give --bundle_root",
        ) from error
    return network
