"""Ids of a configuration: none that nothing reads, as a misspelt one on the command line would be."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow, ReferenceResolver
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS, ID_SEP_KEY

from topolora_monai.adapters.config import METHODS, AdaptationConfig
from topolora_monai.engines.recipe import caller
from topolora_monai.errors import ConfigError
from topolora_monai.losses import LOSS_TERMS

__all__ = ["MOVED", "check_ids"]

_TRAINING = "train.yaml"
_CONFIG = "adaptation#config"

MOVED: Mapping[str, str] = {
    **{
        f"{method}_{field.name}": f"{_CONFIG}#{method}#{field.name}"
        for method, (_, settings) in METHODS.items()
        for field in dataclasses.fields(settings)
    },
    **{
        field.name: f"{_CONFIG}#{field.name}"
        for field in dataclasses.fields(AdaptationConfig)
        if field.name != "preset"
    },
    **{f"{term}_weight": f"topology_loss#weights#{term}" for term in LOSS_TERMS},
    "structure_weighted": "topology_loss#weights#structure_weighted",
    "cldice_ramp": "topology_loss#ramps#cldice",
    "skeleton_method": "topology_loss#skeleton",
    "skeleton_iterations": "topology_loss#iterations",
    "matching_loss": "loss#loss#matching",
    **{
        name: f"data#{name}"
        for name in ("split_scheme", "annotator", "folds", "fold", "group_pattern", "allow_partial")
    },
    **{name: f"scaling#{name}" for name in ("pixel_values", "percentiles", "value_range", "bits")},
    **{name: f"tracker#{name}" for name in ("trackers", "mlflow_uri")},
    **{name: f"model#{name}" for name in ("fit", "mask_tokens", "in_channels", "out_channels")},
    **{name: f"lr_scheduler#{name}" for name in ("schedule", "warmup_fraction")},
    **{name: f"train#{name}" for name in ("cache_rate", "cache_dir")},
    "activation_checkpointing": "network_def#activation_checkpointing",
    "weight_decay": "optimizer#weight_decay",
    "overlap": "validate#inferer#inferer#overlap",
    "elastic_magnitude": "train#elastic#magnitude_range",
    "speckle_looks": "train#speckle#looks",
    "calibrate": "validate#calibrate",
    "protocol": "config_file \"['train.yaml','published.yaml']\"",
}
"""What was an id of its own in ``train.yaml``, and how it is given now."""

_READ_BY_MONAI = {ConfigParser.meta_key, *DEFAULT_MLFLOW_SETTINGS["configs"]}


def check_ids(file: str = _TRAINING) -> None:
    """Refuse ids that nothing reads; to be called by a configuration, in its ``initialize``.

    Looked at are top-level ids and those of plain mappings among them; a part checks its own. Known are those of the
    bundle's file, which one may leave unread by overriding what reads them, those that anything in the configuration
    refers to, and lists of expressions, which can be run.

    Args:
        file: the configuration's name, which lies beside the workflow's first file; where it does not, ids that have
            moved are still refused.

    Raises:
        ConfigError: for the first other id; says how it is spelt now, or names the closest.
    """
    workflow: ConfigWorkflow = caller(ConfigWorkflow)
    config: dict[str, Any] = workflow.parser.get()
    path = workflow.config_root_path / file
    stated = (
        ConfigParser.load_config_file(path) if path.is_file() else {k: v for k, v in config.items() if k not in MOVED}
    )
    read = {part for name in _references(config) for part in _prefixes(name)}
    for name, known in _unstated(config, stated):
        if name in read or name in _READ_BY_MONAI:
            continue
        if name in MOVED and file == _TRAINING:
            raise ConfigError(f"{name} is now --{MOVED[name]}", found=f"--{name}", hint="give it by its new name")
        close = difflib.get_close_matches(name, known, n=1)
        raise ConfigError(
            f"nothing reads the setting {name}",
            found=f"--{name}",
            hint=f"did you mean --{close[0]}?" if close else f"{file} has the settings that there are",
        )


def _unstated(config: Mapping[str, Any], stated: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, list[str]]]:
    """Ids that the file does not have and that cannot be run, each with those that it has at that place."""
    for name, content in config.items():
        if name not in stated:
            if not _can_be_run(content):
                yield f"{at}{name}", [f"{at}{other}" for other in stated]
        elif not at and _is_plain_mapping(content) and _is_plain_mapping(stated[name]):
            yield from _unstated(content, stated[name], f"{name}#")


def _is_plain_mapping(content: Any) -> bool:
    return isinstance(content, Mapping) and "_target_" not in content


def _prefixes(reference: str) -> Iterator[str]:
    keys = reference.split(ID_SEP_KEY)
    return ("#".join(keys[: length + 1]) for length in range(len(keys)))


def _references(config: Any) -> Iterator[str]:
    if isinstance(config, Mapping | list):
        for part in config.values() if isinstance(config, Mapping) else config:
            yield from _references(part)
    elif isinstance(config, str):
        yield from ReferenceResolver.match_refs_pattern(ReferenceResolver.normalize_id(config))


def _can_be_run(content: Any) -> bool:
    lines = content if isinstance(content, list) else [content]
    return bool(lines) and all(isinstance(line, str) and line.startswith("$") for line in lines)
