"""Running what the pages of the documentation print."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import ROOT
from tests.processes import run_module

_BLOCK = re.compile(r"^```(?P<language>\w+)(?P<options>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_TITLE = re.compile(r'title="([^"]+)"')

Substitution = Callable[[list[str]], "list[str] | None"]
"""From the words that a page prints to those that are run; None leaves the command out."""


class Block(NamedTuple):
    """A fenced block; one with a title is the content of that file."""

    language: str
    title: str | None
    text: str
    line: int


def blocks(page: str | Path) -> list[Block]:
    """Fenced blocks of a page, which is a path below the root of the tree, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(
            found["language"],
            title[1] if (title := _TITLE.search(found["options"])) else None,
            found["text"],
            text.count("\n", 0, found.start()) + 2,
        )
        for found in _BLOCK.finditer(text)
    ]


def commands(page: str | Path) -> list[list[str]]:
    """Words of every command that a page prints."""
    return [words for block in blocks(page) if block.language == "bash" for words in split_commands(block.text)]


def split_commands(text: str) -> list[list[str]]:
    """Words of each command of a block; continued lines are one."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(re.sub(r"(^|\s)#\s.*", "", line)))]


def run_command(words: Sequence[str], folder: Path) -> str:
    """Run ``topolora ...`` or ``python -m ...`` in a folder; what it printed."""
    program, *rest = words
    module, arguments = {"topolora": ("topolora_monai.cli", rest), "python": (rest[1], rest[2:])}[program]
    assert program == "topolora" or rest[0] == "-m", words
    done = run_module(module, *arguments, cwd=folder)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


def run_page(page: str, folder: Path, substitute: Substitution) -> dict[str, Any]:
    """Execute every block of a page in order, as a reader would; the names that its Python blocks leave.

    Python blocks share their names, as in a notebook; blocks with a title are saved; those in other languages are
    looked at only by people.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    os.chdir(folder)  # the caller's fixture goes back
    for block in blocks(page):
        if block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            code = "\n" * (block.line - 1) + block.text  # so that errors name the page's lines
            exec(compile(code, page, "exec"), names)
        elif block.language == "bash":
            for words in split_commands(block.text):
                chosen = substitute(words)
                if chosen is not None:
                    run_command(chosen, folder)
    return names


def replaced(words: Sequence[str], options: Mapping[str, str | None]) -> list[str]:
    """Words with the values of options replaced; None takes the option away."""
    kept: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        if word in options:
            value = options[word]
            kept += [] if value is None else [word, value]
            at += 2
        else:
            kept.append(word)
            at += 1
    return kept
