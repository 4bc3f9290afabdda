"""Settings on the command line as MONAI takes them, and their list as the configuration itself has it."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

_GRAPH = "the graph"
"""Title of the part of a configuration that holds no settings of a run."""
_MEASURED, _BY_THE_DATA = "$@plan.", "by the data"
"""How the default begins of what a plan of the data gives, and what is shown for it."""
_AUTOMATIC = "automatic"
"""What is shown for a default that only the configuration can compute."""
_WIDTH, _INDENT = 110, 26


class Setting(NamedTuple):
    """A top-level id of a configuration.

    Args:
        name: what follows the two hyphens.
        default: as the file has it.
        meaning: its comment; empty if it has none.
    """

    name: str
    default: str
    meaning: str


def split_words(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Part words into those that stand alone and settings, whose values are read as ``python -m monai.bundle`` does.

    Args:
        words: ``--ID VALUE`` and ``--ID=VALUE``; without a value an id is switched on. Any others stand alone.

    Example:
        >>> split_words(["drive", "DRIVE", "--epochs", "3", "--adaptation#config#lora#rank=16", "--resume"])
        (['drive', 'DRIVE'], {'epochs': 3, 'adaptation#config#lora#rank': 16, 'resume': True})
    """
    from fire.parser import DefaultParseValue  # noqa: PLC0415 - needed by runs alone

    alone: list[str] = []
    settings: dict[str, Any] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("--"):
            alone.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        if not equals and left and not left[0].startswith("--"):
            equals, value = "=", left.pop(0)
        settings[name] = DefaultParseValue(value) if equals else True
    return alone, settings


def settings_of(config: Path) -> dict[str, list[Setting]]:
    """What one says in a sentence: the ids before a configuration's graph, by the titles they stand under there.

    Args:
        config: a YAML file whose parts begin with ``# ---- TITLE``.
    """
    text = config.read_text(encoding="utf-8")
    lines = text.splitlines()
    root = yaml.compose(text)
    ids: list[tuple[yaml.Node, yaml.Node]] = [] if root is None else root.value
    starts = [key.start_mark.line for key, _ in ids] + [len(lines)]
    found: dict[str, list[Setting]] = {}
    title = None
    line = 0
    for (key, value), start, end in zip(ids, starts, starts[1:], strict=False):
        for passed in lines[line:start]:
            match = re.fullmatch(r"# ---- (.*)", passed)
            title = match.group(1).partition(":")[0] if match else title
        line = start
        if title == _GRAPH:
            break
        if title is not None:
            found.setdefault(title, []).append(Setting(key.value, _default(value), _comment(lines[start:end])))
    return found


def _default(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return ",".join(str(part.value) for part in node.value)
    text = str(node.value)
    if not text.startswith("$"):
        return "" if text == "null" else text.removeprefix("@")
    if text.startswith(_MEASURED):
        return _BY_THE_DATA
    if re.search(r"\w\.\w|\bif @\w+ and\b|[(\[]", text):  # computed by what only the configuration knows
        return _AUTOMATIC
    return " ".join(text[1:].replace("@", "").split())


def _comment(lines: Iterable[str]) -> str:
    found: list[str] = []
    for line in lines:
        match = re.search(r"(?:^|\s)# (.*)$", line)
        if match is None or match.group(1).startswith("----"):
            if found:
                break
            continue
        found.append(match.group(1))
    return " ".join(found)


def settings_help(config: Path) -> str:
    """The same as text for the terminal."""
    parts = []
    for title, settings in settings_of(config).items():
        parts.append(f"{title}:")
        plain = [setting.name for setting in settings if setting[1:] == (_AUTOMATIC, "")]
        for setting in (setting for setting in settings if setting.name not in plain):
            said = setting.meaning + (f" [{setting.default}]" if setting.default else "")
            head = f"  --{setting.name}".ljust(_INDENT - 1) + " "
            indent = " " * _INDENT
            parts.append(textwrap.fill(said.strip(), _WIDTH, initial_indent=head, subsequent_indent=indent))
        if plain:
            names = " ".join(f"--{name}" for name in plain)
            parts.append(textwrap.fill(names, _WIDTH, initial_indent="  ", subsequent_indent="  "))
    return "\n".join(parts)
