"""Adapter files as folders of Hugging Face PEFT, which PEFT alone loads onto the base, and back."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from topolora_monai.adapters.adapt import prepare
from topolora_monai.adapters.config import METHODS, PRESETS, AdaptationConfig, preset_config
from topolora_monai.adapters.files import (
    adapter_state,
    build_as_stored,
    check_fit,
    load_adapter,
    read_json_header,
    read_spec,
    settings_as_stored,
    write_adapter,
)
from topolora_monai.adapters.tensor_files import read_tensors
from topolora_monai.errors import AdapterFileError, ConfigError, OutputError, first_line
from topolora_monai.spec import ModelSpec
from topolora_monai.weights.files import write_tensors

_CONFIG, _TENSORS, _MODEL = "adapter_config.json", "adapter_model.safetensors", "model.json"
_PREFIX = "base_model.model."  # of PEFT's wrappers around the base

# What does not change the logits, or follows from the names of the tensors.
_NOT_COMPARED = {
    "peft_version", "auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode",
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save",
}  # fmt: skip


def to_peft(
    adapter: str | Path, out: str | Path, weights: str | Path | None = None, overwrite: bool = False
) -> ModelSpec:
    """Write an adapter file as a folder for ``peft.PeftModel.from_pretrained(base, folder)``.

    The base is ``build_network(**spec.network_settings, weights=...)``. Parts that train whole are PEFT's
    ``modules_to_save``; beside PEFT's two files lies ``model.json``, the spec, which PEFT ignores.

    Args:
        adapter: an adapter file.
        out: the folder, made with its parents.
        weights: checkpoint of the base; None if the adapter was trained on seeded random weights.
        overwrite: write into a folder that is there already.

    Returns:
        What the file says of its model.

    Raises:
        ConfigError: if one folder of PEFT cannot hold what was trained.
        AdapterFileError: if the adapter is damaged or does not belong to ``weights``.
        CheckpointError: if ``weights`` cannot be read.
        OutputError: if ``out`` exists or cannot be written.

    Example:
        >>> import tempfile
        >>> from peft import PeftModel
        >>> from topolora_monai.adapters import adapt, save_adapter
        >>> from topolora_monai.networks import build_network
        >>> folder = Path(tempfile.mkdtemp())
        >>> save_adapter(adapt(build_network("vit_tiny_test"), preset_config("lora_decoder")), folder / "a.safetensors")
        >>> spec = to_peft(folder / "a.safetensors", folder / "peft")
        >>> model = PeftModel.from_pretrained(build_network(**spec.network_settings), folder / "peft")
        >>> model(torch.rand(1, 3, 40, 50)).shape
        torch.Size([1, 1, 40, 50])
        >>> from_peft(folder / "peft", folder / "b.safetensors") == spec
        True
    """
    from topolora_monai.io.atomic import folder_beside, writing  # noqa: PLC0415 - the readers of images take seconds to import
    from topolora_monai.io.json_files import write_json  # noqa: PLC0415

    out = Path(out)
    if out.exists() and not overwrite:
        raise OutputError("folder exists already", path=out, hint="choose another --out, or give --force")
    spec = read_spec(adapter)
    network = build_as_stored(spec, adapter, weights=weights)
    config = _peft_config(network, load_adapter(network, adapter).config, spec)
    tensors = network.state_dict()
    stored = {key: tensors[name] for key, name in _names(network, config).items()}
    with writing(out, "the PEFT folder", "choose another --out"):
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with folder_beside(out) as beside:
            write_tensors(stored, beside / _TENSORS, {"format": "pt"})
            write_json(spec.to_header(), beside / _MODEL)
            write_json(_plain(config), beside / _CONFIG)
            if out.is_dir():
                for file in beside.iterdir():
                    file.replace(out / file.name)
            else:
                beside.rename(out)
    return spec


def from_peft(folder: str | Path, out: str | Path, overwrite: bool = False) -> ModelSpec:
    """Write the adapter file of a folder that :func:`to_peft` made, or PEFT from its model, with ``model.json`` in it.

    Args:
        folder: the folder; nothing in it is run, and pickles are not read.
        out: where to, ending in ``.safetensors``.
        overwrite: replace an older file.

    Returns:
        What the file says of its model.

    Raises:
        ConfigError: if ``out`` has another ending, or one folder of PEFT cannot hold such a model.
        AdapterFileError: if it is no such folder, is damaged, or its configuration or tensors are not those of
            ``model.json``.
        OutputError: if ``out`` exists or cannot be written.
    """
    from topolora_monai.io.atomic import writing  # noqa: PLC0415 - as above

    folder, out = Path(folder), Path(out)
    if out.suffix.lower() != ".safetensors":
        raise ConfigError("an adapter file ends in .safetensors", found=out.name)
    if out.exists() and not overwrite:
        raise OutputError("file exists already", path=out, hint="choose another --out, or give --force")
    _check_files(folder)
    spec = read_spec(folder / _MODEL)
    with torch.device("meta"), settings_as_stored(folder):
        network = build_as_stored(spec, folder)
        adaptation = AdaptationConfig.from_dict(dict(spec.adaptation))
        prepare(network, adaptation)
    config = _peft_config(network, adaptation, spec)
    _check_settings(folder / _CONFIG, config)
    names, wanted = _names(network, config), adapter_state(network)
    state = {names.get(key, key): tensor for key, tensor in read_tensors(folder / _TENSORS, "PEFT adapter").items()}
    idle = set(names.values()) - wanted.keys()  # of a part that is stored whole, what no gradient reaches
    state = {name: tensor for name, tensor in state.items() if name not in idle}
    check_fit(wanted, state, folder / _TENSORS, "PEFT adapter", f"or {_MODEL} is of another base or method")
    with writing(out, "the adapter file", "choose another --out"):
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        write_adapter(state, spec, out)
    return spec


def _peft_config(network: nn.Module, config: AdaptationConfig, spec: ModelSpec) -> PeftConfig:
    """PEFT's configuration of all that trains in an adapted network, named from the network down."""
    several = spec.out_channels > 1 or spec.multiclass_head == "token_set"
    obstacle = _obstacle(config, several)
    if obstacle:
        fitting = ", ".join(name for name in PRESETS if _obstacle(preset_config(name)) is None)
        raise ConfigError(
            "one PEFT folder cannot hold this adapter",
            found=f"preset {config.preset} with {obstacle}",
            hint=f"keep the adapter file, or train one of these presets: {fitting}",
        )
    saved = {"mask_decoder": config.train_decoder, "channel_mixer": spec.in_channels not in (1, 3)}
    first, *others = (method.peft for name in METHODS if (method := getattr(config, name)) is not None)
    patterns = {}
    if others:  # LoRA in encoder and decoder
        patterns = {
            "rank_pattern": {"mask_decoder.*": others[0].r},
            "alpha_pattern": {"mask_decoder.*": others[0].lora_alpha},
        }
    return dataclasses.replace(
        first,
        target_modules=[name for name, module in network.named_modules() if isinstance(module, BaseTunerLayer)],
        modules_to_save=[name for name, trains in saved.items() if trains] or None,
        **patterns,
    )


def _obstacle(config: AdaptationConfig, several_classes: bool = False) -> str | None:
    """What PEFT cannot hold in one folder: it has one method, and other parts are modules of the base."""
    lora, decoder = config.lora and config.lora.peft, config.decoder_lora and config.decoder_lora.peft
    obstacles = {
        "no low-rank update, which such a folder is made of": not (lora or decoder or config.conv_lora),
        "LoRA and Conv-LoRA, two methods of PEFT": config.conv_lora and (lora or decoder),
        "LoRA of two kinds, where r and lora_alpha alone may differ": lora
        and decoder
        and dataclasses.replace(decoder, r=lora.r, lora_alpha=lora.lora_alpha) != lora,
        "the spatial convolution adapter, a module that the base does not have": config.conv_adapter,
        "the detail branch, a module that the base does not have": config.detail_branch,
        "the whole image encoder, which the low-rank updates lie in": config.train_encoder,
        "class tokens of a mask decoder that does not train whole": several_classes and not config.train_decoder,
    }
    return next((what for what, is_there in obstacles.items() if is_there), None)


def _names(network: nn.Module, config: PeftConfig) -> dict[str, str]:
    """Name in the folder to name in the adapted network; PEFT gives its own, handed names in place of tensors."""
    own = {name: name for name in network.state_dict()}
    network.peft_config = {"default": config}  # type: ignore[assignment]
    names: dict[str, Any] = get_peft_model_state_dict(network, own)
    del network.peft_config
    saved = tuple(f"{module}." for module in config.modules_to_save or ())
    return {_PREFIX + key: name for key, name in (names | {one: one for one in own if one.startswith(saved)}).items()}


def _plain(config: PeftConfig) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(config.to_dict(), default=sorted))  # sets become lists
    return plain


def _check_files(folder: Path) -> None:
    missing = [name for name in (_CONFIG, _TENSORS, _MODEL) if not (folder / name).is_file()]
    if not missing:
        return
    pickled = _TENSORS in missing and (folder / "adapter_model.bin").exists()
    hints = {_MODEL: f"copy the {_MODEL} of the folder that it was trained from, which says what the model is"}
    raise AdapterFileError(
        "no PEFT folder of a model of topolora_monai",
        path=folder,
        expected=f"a folder with {_CONFIG}, {_TENSORS} and {_MODEL}",
        found="adapter_model.bin, a pickle" if pickled else f"no {', no '.join(missing)}",
        hint="pickles are not read: store it again by save_pretrained(safe_serialization=True)"
        if pickled
        else hints.get(missing[0], "give the folder that save_pretrained or topolora adapter to-peft wrote"),
    )


def _check_settings(path: Path, wanted: PeftConfig) -> None:
    """Make sure that PEFT's configuration is that of the spec, as tensors do not tell scales."""
    settings = read_json_header(path, "PEFT configuration", "write the folder again")
    try:
        found: Mapping[str, Any] = _plain(PeftConfig.from_peft_type(**settings))
    except (TypeError, ValueError, KeyError, AttributeError, ImportError) as error:
        raise AdapterFileError("PEFT configuration cannot be used", path=path, found=first_line(error)) from error
    pairs = {
        name: (value, found.get(name))
        for name, value in _plain(wanted).items()
        if name not in _NOT_COMPARED and value != found.get(name)
    }
    if pairs:
        raise AdapterFileError(
            f"PEFT configuration is not that of {_MODEL}",
            path=path,
            expected=", ".join(f"{name} {value!r:.50}" for name, (value, _) in pairs.items()),
            found=", ".join(f"{name} {value!r:.50}" for name, (_, value) in pairs.items()),
            hint="train with the settings of the folder that it started from",
        )
