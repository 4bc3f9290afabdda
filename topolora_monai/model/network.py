"""The network of a trained model: a base with its adapter, or merged from a released bundle."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from topolora_monai.adapters import AdaptationConfig, adapt, base_weights, load_adapter, merge, read_spec
from topolora_monai.adapters.files import build_as_stored
from topolora_monai.errors import CheckpointError, ConfigError, first_line
from topolora_monai.networks import build_network
from topolora_monai.spec import ModelSpec

MODEL_FILE = "models/model.json"
"""Where a released bundle keeps what its model is; its configuration reads it from there, text and all."""
WEIGHTS_FILE = "models/model.pt"
"""Where it keeps the merged network."""


def adapted_network(
    adapter: str | Path, weights: str | Path | None = None, merged: bool = True, **network: Any
) -> nn.Module:
    """What an adapter file makes of its base, in evaluation mode.

    Args:
        adapter: an adapter file.
        weights: the base checkpoint that it was trained on; None takes :func:`~topolora_monai.adapters.base_weights`.
        merged: fold into the base what can be folded. Dropout is gone then.
        **network: arguments of :func:`~topolora_monai.networks.build_network` in place of the model's own.

    Raises:
        AdapterFileError, CheckpointError: if the adapter or ``weights`` cannot be used, or they do not belong together.
    """
    used = base_weights(adapter) if weights is None else weights
    base = build_as_stored(read_spec(adapter), adapter, weights=used, **network)
    adapted = load_adapter(base, adapter).network
    return (merge(adapted) if merged else adapted).requires_grad_(False).eval()


def bundle_spec(folder: str | Path) -> ModelSpec:
    """What a released bundle says of its model.

    A ``ConfigError`` or ``AdapterFileError`` if the folder holds no released bundle, or a damaged one.
    """
    path = Path(folder) / MODEL_FILE
    if not path.is_file():
        raise ConfigError(
            "not a released bundle", path=folder, expected=MODEL_FILE, hint="`topolora release` makes one"
        )
    return read_spec(path)


def merged_network(spec: ModelSpec) -> nn.Module:
    """Build what is left of a model's network once what can be merged is, with random weights.

    ``torch.jit.script``, which MONAI's ``ckpt_export`` calls where no other way is asked for, traces it for tiles of
    ``spec.crop_size``.

    Example:
        >>> settings = {"preset": "lora", "lora": {"targets": ["mlp"]}, "train_decoder": True}
        >>> base = {"network_name": "vit_tiny_test", "base_sha256": 64 * "0", "image_size": 64}
        >>> spec = ModelSpec(**base, adaptation=settings, package_version="1.0")
        >>> any("lora" in name for name in merged_network(spec).state_dict())
        False
    """
    adapted = adapt(build_network(**spec.network_settings), AdaptationConfig.from_dict(dict(spec.adaptation)))
    merged = merge(adapted.network).requires_grad_(False).eval()
    tile = (1, spec.in_channels, spec.crop_size, spec.crop_size)
    object.__setattr__(merged, "__prepare_scriptable__", partial(_traced, merged, tile))  # as torch.jit calls its hook
    return merged


def _traced(network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    traced = torch.jit.trace(network, torch.rand(shape, device=next(network.parameters()).device))
    return nn.Sequential(traced)  # torch.jit goes on to script it, which a traced network alone refuses


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
