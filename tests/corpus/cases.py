"""One broken input, and the verdicts on what became of it."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

Write = Callable[[Path], Any]
"""Writes one file at a path."""

Must = Literal["refuse", "read", "refuse or read", "survive"]


@dataclass(frozen=True)
class Case:
    """One input.

    Args:
        name: ``KIND/WHAT``, the same in every run.
        make: writes the input, and what belongs to it, into an empty folder; returns the file that an error names.
        ways: names of functions in :mod:`tests.corpus.ways` that it goes through.
        must: ``refuse`` with an error of the package that names the file; ``read`` the right values; ``refuse or
            read`` where a checksum tells damage; ``survive`` where nothing does: refused, or values in range.
        right: the right values, as a way gives them back; None where a way gives none.
        short: belongs to the part that the test suite runs.
        also: texts of which an error may name one instead, such as the file that a list leads to.
    """

    name: str
    make: Callable[[Path], Path]
    ways: tuple[str, ...]
    must: Must
    right: np.ndarray | None = None
    short: bool = False
    also: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return self.name.partition("/")[0]


@dataclass(frozen=True)
class Verdict:
    """What became of a case: ``refused`` and ``read`` are as it should be, everything else is a fault."""

    outcome: str
    detail: str = ""

    @property
    def sound(self) -> bool:
        return self.outcome in ("refused", "read")


FAULTS = {
    "CRASH": "an error that is none of the package's, or the process died",
    "HANG": "no answer in time",
    "MEMORY": "more memory than allowed",
    "DISK": "more written than allowed, or outside of its folder",
    "RAN": "code of the file was run",
    "SILENT": "accepted, or read with other values",
    "UNNAMED": "refused without naming the file",
    "WRONGLY": "refused though it is sound",
}
"""Outcomes that are not sound."""


def written(content: bytes) -> Write:
    """A file of these bytes."""
    return lambda path: path.write_bytes(content)


def cut(write: Write, share: float) -> Write:
    """The first part of a file."""

    def broken(path: Path) -> None:
        write(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return broken


def flipped(write: Write, seed: int, within: tuple[float, float] = (0.0, 1.0)) -> Write:
    """A file with one bit turned, somewhere in a part of it."""

    def broken(path: Path) -> None:
        write(path)
        content = bytearray(path.read_bytes())
        low, high = (int(len(content) * share) for share in within)
        bit = random.Random(seed).randrange(8 * low, 8 * high)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)

    return broken


def garbled(write: Write, seed: int, share: float = 0.5, size: int = 64) -> Write:
    """A file with some bytes in its middle replaced by noise."""

    def broken(path: Path) -> None:
        write(path)
        content = bytearray(path.read_bytes())
        start = int(len(content) * share)
        noise = random.Random(seed).randbytes(min(size, len(content) - start))
        content[start : start + len(noise)] = noise
        path.write_bytes(content)

    return broken


def replaced(write: Write, old: bytes, new: bytes) -> Write:
    """A file with the first occurrence of some bytes replaced by others."""

    def broken(path: Path) -> None:
        write(path)
        content = path.read_bytes()
        assert old in content, f"{path.name} has no {old!r}"
        path.write_bytes(content.replace(old, new, 1))

    return broken


def patched(write: Write, offset: int, new: bytes) -> Write:
    """A file with bytes at an offset replaced by others."""

    def broken(path: Path) -> None:
        write(path)
        content = bytearray(path.read_bytes())
        content[offset : offset + len(new)] = new
        path.write_bytes(content)

    return broken


def sparse(size: int) -> Write:
    """A file that claims a size and takes no room."""

    def hole(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(size)

    return hole
