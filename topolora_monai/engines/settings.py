"""Settings that are wrong in themselves, or that nothing reads, found before anything is loaded."""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from monai.bundle import ConfigParser, ConfigWorkflow, ReferenceResolver
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS, ID_SEP_KEY

from topolora_monai.adapters.config import FORMER_NAMES, METHODS, AdaptationConfig
from topolora_monai.engines.recipe import caller
from topolora_monai.errors import ConfigError, unknown_choice
from topolora_monai.losses import LOSS_TERMS
from topolora_monai.networks.activation import Activation, check_activation
from topolora_monai.networks.registry import MulticlassHead
from topolora_monai.spec import ThresholdBy

_CONFIG = "adaptation#config"

MOVED: Mapping[str, str] = {
    **{
        f"{method}_{former}": f"{_CONFIG}#{method}#{name}"
        for method, (_, _, settings) in METHODS.items()
        for former, name in {**{name: name for name in settings}, **FORMER_NAMES}.items()
        if name in settings
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
    "overlap": "model#overlap",
    "elastic_magnitude": "train#elastic#magnitude_range",
    "speckle_looks": "train#speckle#looks",
    "calibrate": "validate#calibrate",
    "protocol": "config_file \"['train.yaml','published.yaml']\"",
}
"""What was an id of its own in ``train.yaml``, and how it is given now."""

_READ_BY_MONAI = {ConfigParser.meta_key, *DEFAULT_MLFLOW_SETTINGS["configs"]}


def check_ids(file: str = "train.yaml") -> None:
    """Refuse ids that nothing reads; to be called by a configuration, in its ``initialize``.

    Looked at are top-level ids and those of plain mappings among them; a part checks its own. Known are those of the
    bundle's file, which one may leave unread by overriding what reads them, those that anything in the configuration
    refers to, and lists of expressions, which can be run.

    Args:
        file: the configuration's name, which lies beside the workflow's first file; where it does not, ids of
            ``train.yaml`` that have moved are still refused.

    Raises:
        ConfigError: for the first other id; says how it is spelt now, or names the closest. Also for a value in place
            of a part.
    """
    workflow: ConfigWorkflow = caller(ConfigWorkflow)
    config: dict[str, Any] = workflow.parser.get()
    path = workflow.config_root_path / file
    moved = MOVED if file == "train.yaml" else {}
    stated = (
        ConfigParser.load_config_file(path) if path.is_file() else {k: v for k, v in config.items() if k not in moved}
    )
    for name, part in stated.items():
        if isinstance(part, Mapping) and isinstance(config.get(name), bool | int | float):
            raise ConfigError(
                f"{name} is a part, not a value",
                found=f"--{name} {config[name]}",
                hint=f"give its settings, as --{name}#...",
            )
    read = {part for name in _references(config) for part in _prefixes(name)}
    for name, known in _unstated(config, stated):
        if name in read or name in _READ_BY_MONAI:
            continue
        if name in moved:
            raise ConfigError(f"{name} is now --{moved[name]}", found=f"--{name}", hint="give it by its new name")
        close = difflib.get_close_matches(name, known, n=1)
        raise ConfigError(
            f"nothing reads the setting {name}",
            found=f"--{name}",
            hint=f"did you mean --{close[0]}?" if close else f"{file} has the settings that there are",
        )


def check_settings(**positive: float) -> None:
    """Check that a recipe's numbers, by their names on the command line, are greater than 0.

    Raises:
        ConfigError: for the first that is not.

    Example:
        >>> check_settings(epochs=3, learning_rate=1e-4)
    """
    for name, value in positive.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ConfigError(
                f"{name} must be greater than 0", found=repr(value), hint=f"give --{name} a positive number"
            )


def check_threshold_by(name: str) -> str:
    """What a threshold is best for: ``"dice"`` or ``"cldice"``.

    Raises:
        ConfigError: for another name.

    Example:
        >>> check_threshold_by("cldice")
        'cldice'
    """
    if name not in get_args(ThresholdBy):
        raise unknown_choice("threshold_by", name, get_args(ThresholdBy))
    return name


def check_classes(
    classes: Sequence[str],
    out_channels: int,
    activation: Activation = "sigmoid",
    multiclass_head: MulticlassHead = "per_class",
) -> None:
    """Make sure that a network has an output for each of the data's classes, of which the first is the background.

    Raises:
        ConfigError: if the numbers differ, the names are not told apart, or head and activation do not fit.

    Example:
        >>> check_classes(["background", "cup", "window"], 2, "softmax", "token_set")
    """
    check_activation(activation)
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise ConfigError(
            "classes are not told apart", expected="the background and at least one other name", found=list(classes)
        )
    if out_channels != len(classes) - 1:
        raise ConfigError(
            "the network has another number of classes than the data",
            expected=f"out_channels {len(classes) - 1}, for {', '.join(classes[1:])}",
            found=f"out_channels {out_channels}",
            hint="leave out_channels out, and give --classes if the masks hold others than the data set's",
        )
    if multiclass_head == "token_set" and out_channels > 1 and activation != "softmax":
        raise ConfigError(
            "a token set is for classes that exclude one another",
            expected="activation softmax",
            found=f"activation {activation}",
            hint="set multiclass_head per_class for classes that overlap",
        )


def _unstated(config: Mapping[str, Any], stated: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, list[str]]]:
    """Ids that the file does not have and that cannot be run, each with those that it has at that place."""
    for name, content in config.items():
        if name not in stated:
            if not _can_be_run(content):
                yield f"{at}{name}", [f"{at}{other}" for other in stated]
        elif not at and all(isinstance(part, Mapping) and "_target_" not in part for part in (content, stated[name])):
            yield from _unstated(content, stated[name], f"{name}#")


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
