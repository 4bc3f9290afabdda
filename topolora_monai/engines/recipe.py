"""What shapes a run's result, read off the configuration that makes it, so that no setting can be forgotten."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, TypeVar

from monai.bundle import ConfigParser
from monai.bundle.utils import ID_SEP_KEY

from topolora_monai.errors import ConfigError

__all__ = ["Change", "Recipe", "caller"]

_Kind = TypeVar("_Kind")

Settings = dict[str, dict[str, Any]]
"""By id: its ``text`` in the configuration and, of a top-level id, the plain ``value`` that came of it."""

Change = tuple[Any, Any]
"""A setting before and now."""

_SECTIONS = ("imports", "initialize", "run", "training", "finalize", ConfigParser.meta_key)
"""What MONAI runs, and what it knows about the bundle: no settings."""


class Recipe:
    """Everything a configuration says, files, overlays and overrides together, but for what is named here.

    To be built by that configuration, as a component of it.

    Args:
        elsewhere: ids that say where things are, or how fast they are done; not compared, nor what is in them.
        may_change: top-level ids that a run may be taken up with other values of, since they matter only for the
            epochs to come.

    Raises:
        ConfigError: where no configuration is being resolved.

    Example:
        >>> config = {"epochs": 2, "lr": "$1e-3 * 2", "recipe": {"_target_": "topolora_monai.engines.Recipe"}}
        >>> recipe = ConfigParser(config).get_parsed_content("recipe")
        >>> sorted(recipe.settings())
        ['epochs', 'lr', 'recipe#_target_']
    """

    def __init__(self, elsewhere: Sequence[str] = (), may_change: Sequence[str] = ()) -> None:
        self._parser: ConfigParser = caller(ConfigParser)
        self._left_out = (*(part.replace(ID_SEP_KEY, "#") for part in elsewhere), *_SECTIONS)
        self.may_change = tuple(may_change)

    def settings(self) -> Settings:
        """What is compared; texts, numbers, lists and mappings of these.

        Ask for it once what the configuration describes has been built: values are known only then.
        """
        values = self._parser.ref_resolver.resolved_content
        found: Settings = {}
        for name, text in _leaves(self._parser.get()):
            if not self._is_left_out(name):
                found[name] = {"text": _plain_text(text)}
        for name in self._parser.get():
            if not self._is_left_out(name) and _is_plain(values.get(name, ...)):
                found.setdefault(name, {"text": _plain_text(self._parser[name])})["value"] = _normal(values[name])
        return found

    def _is_left_out(self, name: str) -> bool:
        return any(name == part or name.startswith(f"{part}#") for part in self._left_out)

    def compare(self, before: Settings, now: Settings) -> tuple[dict[str, Change], dict[str, Change]]:
        """Settings that differ: those that must not, and those that may.

        Another text that comes to the same value is the same setting. Values that follow from other settings are not
        named beside them.

        Args:
            before: what :meth:`settings` gave when the run was saved.
            now: what it gives.
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


def caller(kind: type[_Kind]) -> _Kind:
    """What of a kind is at work: MONAI hands the configuration to nobody, so it is looked for among the callers.

    Raises:
        ConfigError: where there is none.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, kind):
            return owner
        frame = frame.f_back
    raise ConfigError("this is part of a configuration", hint="name it in one that MONAI resolves")


def _leaves(config: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every text and number by its id; lists of nothing else, and what is empty, count as one."""
    if isinstance(config, Mapping | list) and config and not _is_plain(config):
        for key, part in config.items() if isinstance(config, Mapping) else enumerate(config):
            yield from _leaves(part, f"{name}#{key}" if name else str(key))
    else:
        yield name, config


def _plain_text(value: Any) -> Any:
    """A part of a configuration as the command line or Python may give it."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if isinstance(value, Mapping):
        return {str(key): _plain_text(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_text(part) for part in value]
    return value if value is None or isinstance(value, bool | int | float | str) else f"{type(value).__name__}"


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, bool | int | float | str)


def _normal(value: Any) -> Any:
    return _plain_text(list(value) if isinstance(value, tuple) else value)
