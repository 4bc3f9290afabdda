"""Errors a person can act on: what was found, what was expected, where, and the way out."""

import difflib
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "INTERRUPTED",
    "AdapterFileError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "OutputError",
    "TopoLoRAError",
    "first_line",
    "unknown_choice",
]

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 and the signal's number, as shells have it."""


class TopoLoRAError(Exception):
    """Base of the package's errors.

    Args:
        message: what went wrong, in one sentence.
        path: the file or folder concerned.
        expected: what would have been right.
        found: what was there instead.
        hint: what to do about it.

    Example:
        >>> print(TopoLoRAError("mask has the wrong size", path="a.png", expected="565x584", found="100x100"))
        mask has the wrong size: a.png
          expected: 565x584
          found:    100x100
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | Path | None = None,
        expected: object | None = None,
        found: object | None = None,
        hint: str | None = None,
    ) -> None:
        lines = [f"{message}: {path}" if path is not None else message]
        lines += [f"  expected: {expected}"] if expected is not None else []
        lines += [f"  found:    {found}"] if found is not None else []
        lines += [f"  to do:    {hint}"] if hint is not None else []
        super().__init__("\n".join(lines))


class DataError(TopoLoRAError):
    """An image, mask, folder or list that cannot be used as it is."""


class CheckpointError(TopoLoRAError):
    """A base checkpoint that is damaged, unsafe, or of another network."""


class AdapterFileError(TopoLoRAError):
    """An adapter file that is damaged or does not belong to the network at hand."""


class ConfigError(TopoLoRAError, ValueError):
    """A setting whose value is not possible."""


class OutputError(TopoLoRAError):
    """A place that results cannot be written to."""


def first_line(error: Exception) -> str:
    r"""What an error of a library says first; its kind where it says nothing.

    Example:
        >>> first_line(ValueError("no header\n  at byte 3")), first_line(EOFError())
        ('no header', 'EOFError')
    """
    return next((line for line in map(str.strip, str(error).splitlines()) if line), type(error).__name__)


def unknown_choice(setting: str, found: str, known: Iterable[str]) -> ConfigError:
    """Error for a name that is not one of the known ones; suggests the closest.

    Example:
        >>> print(unknown_choice("preset", "topolorra", ["topolora", "full"]))
        unknown preset
          expected: topolora, full
          found:    'topolorra'
          to do:    did you mean topolora?
    """
    names = list(known)
    close = difflib.get_close_matches(str(found), names, n=1)
    return ConfigError(
        f"unknown {setting}",
        expected=", ".join(names),
        found=repr(found),
        hint=f"did you mean {close[0]}?" if close else "choose one of the names above",
    )
