"""What shapes a run's result, read off the configuration that makes it, so that no setting can be forgotten.

What a model remembers of it is put back there to train the model as before.
"""

import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.utils import ID_SEP_KEY

from topolora_monai.adapters import Adaptation
from topolora_monai.data.registry import SegmentationData
from topolora_monai.errors import ConfigError
from topolora_monai.packaged import recipe_files
from topolora_monai.spec import ModelSpec, TrainingRecipe

_Kind = TypeVar("_Kind")

Settings = dict[str, dict[str, Any]]
"""By id: its ``text`` in the configuration and, of a top-level id, the plain ``value`` that came of it."""

Change = tuple[Any, Any]
"""A setting before and now."""

_SECTIONS = ("imports", "initialize", "run", "training", "finalize", ConfigParser.meta_key)
"""What MONAI runs, and what it knows about the bundle: no settings."""

_IDS = {
    "name": "train#recipe",
    "modality": "modality",
    "elastic_magnitude": "train#elastic#magnitude_range#1",
    "elastic_scale": "train#elastic#scale_range",
    "colour_share": "train#colour#p",
    "blur_share": "train#blur#prob",
    "speckle_looks": "train#speckle#looks",
    "loss_weights": "topology_loss#weights",
    "loss_ramps": "topology_loss#ramps",
    "skeleton": "topology_loss#skeleton",
    "skeleton_iterations": "topology_loss#iterations",
    "loss_smooth": "topology_loss#smooth",
    "matching_loss": "loss#loss#matching",
    "epochs": "epochs",
    "crops_per_image": "crops_per_image",
    "sampling": "sampling",
    "batch_size": "batch_size",
    "accumulation_steps": "accumulation_steps",
    "learning_rate": "learning_rate",
    "weight_decay": "optimizer#weight_decay",
    "schedule": "lr_scheduler#schedule",
    "warmup_fraction": "lr_scheduler#warmup_fraction",
    "max_grad_norm": "max_grad_norm",
    "ema_decay": "train#ema#decay",
    "prompt_share": "train#prompts#share",
    "prompt_rounds": "train#prompts#rounds",
    "prompt_clicks": "train#prompts#clicks",
    "calibrate": "validate#calibrate",
}
"""Where the bundle's ``train.yaml`` has what a model remembers of its training."""
_MODEL_IDS = {
    **{name: name for name in ("image_size", "crop_size", "activation", "multiclass_head", "clahe", "despeckle_looks")},
    **{name: f"model#{name}" for name in ("fit", "mask_tokens", "view_diameter", "thickness")},
    **{name: f"scaling#{name}" for name in ("percentiles", "value_range", "bits")},
    "threshold_by": "threshold_by",
    "overlap": "model#overlap",
}
"""Ids there that a model's entries are put into; numbers, switches and known words alone."""


class Recipe:
    """Everything a configuration says, files, overlays and overrides together, but for what is named here.

    To be built by that configuration, as a component of it.

    Args:
        elsewhere: ids that say where things are, or how fast they are done; not compared, nor what is in them.
        may_change: top-level ids that a run may be taken up with other values of, since they matter only for the
            epochs to come.
        measured: ids whose values come from the data: what refers to one of them counts by its value.

    Raises:
        ConfigError: where no configuration is being resolved.

    Example:
        >>> config = {"epochs": 2, "lr": "$1e-3 * 2", "recipe": {"_target_": "topolora_monai.engines.Recipe"}}
        >>> recipe = ConfigParser(config).get_parsed_content("recipe")
        >>> sorted(recipe.settings())
        ['epochs', 'lr', 'recipe#_target_']
    """

    def __init__(
        self, elsewhere: Sequence[str] = (), may_change: Sequence[str] = (), measured: Sequence[str] = ()
    ) -> None:
        self._parser: ConfigParser = caller(ConfigParser)
        self._left_out = (*(part.replace(ID_SEP_KEY, "#") for part in elsewhere), *_SECTIONS)
        self.may_change = tuple(may_change)
        self._measured = tuple(measured)

    def settings(self) -> Settings:
        """What is compared; texts, numbers, lists and mappings of these.

        Ask for it once what the configuration describes has been built: values are known only then.
        """
        values = self._parser.ref_resolver.resolved_content
        leaves = _leaves(self._parser.get())
        found: Settings = {name: {"text": _plain(text)} for name, text in leaves if not self._is_left_out(name)}
        for name in self._parser.get():
            if not self._is_left_out(name) and _is_plain(values.get(name, ...)):
                found.setdefault(name, {"text": _plain(self._parser[name])})["value"] = _plain(values[name])
                if any(f"@{id_}." in str(self._parser[name]) for id_ in self._measured):
                    found[name]["text"] = found[name]["value"]
        return found

    def remembered(self, processes: int) -> TrainingRecipe:
        """What a model keeps of it, to be trained again by as many processes together."""
        known = {name: id_ for name, id_ in _IDS.items() if id_ in self._parser}
        found = {name: _plain(self._parser.get_parsed_content(id_)) for name, id_ in known.items()}
        return TrainingRecipe.of_settings(found | {"processes": processes})

    def _is_left_out(self, name: str) -> bool:
        return any(name == part or name.startswith(f"{part}#") for part in self._left_out)

    def compare(self, before: Settings, now: Settings) -> tuple[dict[str, Change], dict[str, Change]]:
        """Settings that differ between two results of :meth:`settings`: those that must not, and those that may.

        Another text that comes to the same value is the same setting. Values that follow from other settings are not
        named beside them.
        """
        refused: dict[str, Change] = {}
        allowed: dict[str, Change] = {}
        for name in sorted(before.keys() | now.keys()):
            old, new = before.get(name, {}), now.get(name, {})
            change = (old.get("value", old.get("text")), new.get("value", new.get("text")))
            same_value = "value" in old and "value" in new and old["value"] == new["value"]
            if name.partition("#")[0] in self.may_change:
                if not same_value and change[0] != change[1]:
                    allowed[name] = change
            elif old.get("text") != new.get("text") and not same_value:
                refused[name] = change
        return refused, allowed


def training_workflow(
    spec: ModelSpec, adaptation: Adaptation, data: SegmentationData, **overrides: Any
) -> ConfigWorkflow:
    """The packaged training workflow, not initialised yet, set up to train a model on, as it was trained before.

    Nothing that a file says becomes a part of the configuration but numbers, switches and known words. Where several
    processes trained together, one accumulates as many batches more.

    Args:
        spec: of the model.
        adaptation: its network, which is trained.
        data: to train it on, of the model's channels and classes.
        **overrides: further ids.

    Raises:
        ConfigError: if the package's bundle is not there.
    """
    recipe = spec.recipe or TrainingRecipe(name="topolora" if spec.protocol == "native" else spec.protocol)
    settings = recipe.to_dict()
    settings.setdefault("sampling", "uniform")  # as all were trained before there was a choice
    settings["accumulation_steps"] = (recipe.accumulation_steps or 1) * (recipe.processes or 1)
    pairs: dict[str, Any] = {id_: settings[name] for name, id_ in _IDS.items() if name in settings}
    pairs |= {id_: getattr(spec, name) for name, id_ in _MODEL_IDS.items()}
    pairs |= {"data": data, "adaptation": adaptation}
    pairs |= {"network_name": "$@adaptation.base_name", "preset": "$@adaptation.config.preset"}
    files = recipe_files(*([] if recipe.name == "topolora" else [recipe.name]))
    return ConfigWorkflow(config_file=files, logging_file=False, workflow_type="train", **(pairs | overrides))


def caller(kind: type[_Kind]) -> _Kind:
    """What of a kind is at work: MONAI hands the configuration to nobody, so it is looked for among the callers.

    Raises:
        ConfigError: where there is none.
    """
    for frame, _ in traceback.walk_stack(sys._getframe()):
        owner = frame.f_locals.get("self")
        if isinstance(owner, kind):
            return owner
    raise ConfigError("this is part of a configuration", hint="name it in one that MONAI resolves")


def _leaves(config: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every text and number by its id; lists of nothing else, and what is empty, count as one."""
    if isinstance(config, Mapping | list) and config and not _is_plain(config):
        for key, part in config.items() if isinstance(config, Mapping) else enumerate(config):
            yield from _leaves(part, f"{name}#{key}" if name else str(key))
    else:
        yield name, config


def _plain(value: Any) -> Any:
    """A part of a configuration as the command line or Python may give it, with truth values for their words."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if _is_plain(value) else type(value).__name__


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, bool | int | float | str)
