"""Versions of an adapter in a folder: nothing is ever deleted, and one is current at any moment."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock

from topolora_monai.adapters import read_spec
from topolora_monai.errors import DataError, OutputError
from topolora_monai.io.json_files import json_text

__all__ = ["AdapterVersion", "AdapterVersions", "VersionChange"]

_ADAPTER, _RECORD = "adapter.safetensors", "version.json"
_CURRENT, _LOG, _LOCK = "current", "log.jsonl", ".lock"
_PART = ".part-"


@dataclass(frozen=True)
class AdapterVersion:
    """What is known of a version.

    Args:
        number: from 1.
        time: when it was added, ISO 8601 in UTC.
        author: who or what made it.
        note: why.
        parent: number of the version that it was trained from; None for one from elsewhere.
        scores: validation scores and whatever else was measured.
        path: of the adapter file.
    """

    number: int
    time: str
    author: str
    note: str
    parent: int | None
    scores: dict[str, Any] = field(default_factory=dict)
    path: Path = Path()


@dataclass(frozen=True)
class VersionChange:
    """An entry of the log: from when on which version was current.

    Args:
        number: of the version.
        time: ISO 8601 in UTC.
        author: who changed it.
        action: ``"add"`` or ``"roll back"``.
        note: why.
    """

    number: int
    time: str
    author: str
    action: str
    note: str = ""


class AdapterVersions:
    """A folder of numbered versions, ``0001/adapter.safetensors`` with ``version.json``, of which one is current.

    A version is written beside its place and renamed, and only then made current by another rename; a process that
    is killed anywhere in between leaves the version before current, and at worst a finished version that never was.
    Several processes may write; they take turns by a lock on the folder.

    Args:
        folder: made if need be.

    Raises:
        OutputError: if it cannot be made.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._cannot_write(error) from error

    def add(
        self,
        adapter: str | Path,
        author: str,
        note: str = "",
        parent: int | None = None,
        scores: Mapping[str, Any] | None = None,
    ) -> AdapterVersion:
        """Copy an adapter file into the history and make it current.

        Args:
            adapter: the file, which stays.
            author: who or what made it.
            note: why.
            parent: number of the version that it comes from.
            scores: plain JSON types.

        Raises:
            AdapterFileError: if it is damaged or no adapter.
            OutputError: if it cannot be stored; the current version stays.
        """
        read_spec(adapter)
        try:
            with self._writing():
                number = max(self._numbers(), default=0) + 1
                record = AdapterVersion(number, _now(), author, note, parent, dict(scores or {}))
                beside = self.folder / f"{_PART}{uuid.uuid4().hex}"
                beside.mkdir()
                shutil.copyfile(adapter, beside / _ADAPTER)
                stored = {name: value for name, value in asdict(record).items() if name != "path"}
                (beside / _RECORD).write_text(json_text(stored, indent=2) + "\n", encoding="utf-8")
                for name in (_ADAPTER, _RECORD):
                    _sync(beside / name)
                os.replace(beside, self.folder / f"{number:04d}")
                _sync(self.folder)
                self._make_current(VersionChange(number, record.time, author, "add", note))
        except OSError as error:
            raise self._cannot_write(error) from error
        return self.version(number)

    def roll_back(self, number: int, author: str, note: str = "") -> AdapterVersion:
        """Make an earlier version, or a later one again, the current; the others stay.

        Raises:
            DataError: if there is no such version, or its files are damaged.
            OutputError: if it cannot be noted; the current version stays.
        """
        version = self.version(number)
        try:
            with self._writing():
                self._make_current(VersionChange(number, _now(), author, "roll back", note))
        except OSError as error:
            raise self._cannot_write(error) from error
        return version

    def current(self) -> AdapterVersion | None:
        """The version in use; None before the first.

        Raises:
            DataError: if the folder is damaged.
        """
        change = self._current_change()
        return None if change is None else self.version(change.number)

    def version(self, number: int) -> AdapterVersion:
        """A version by its number.

        Raises:
            DataError: if there is none, or its files are damaged.
        """
        folder = self.folder / f"{number:04d}"
        if not folder.is_dir():
            raise DataError(
                "no such version of the adapter",
                path=self.folder,
                expected=", ".join(map(str, self._numbers())) or "none yet",
                found=number,
            )
        try:
            stored = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
            record = AdapterVersion(**stored, path=folder / _ADAPTER)
        except (OSError, ValueError, TypeError) as error:
            raise self._damaged(folder / _RECORD, error) from error
        if not record.path.is_file():
            raise self._damaged(record.path, "nothing")
        return record

    def history(self) -> list[AdapterVersion]:
        """All versions in order of number, those that never were current among them."""
        return [self.version(number) for number in self._numbers()]

    def log(self) -> list[VersionChange]:
        """When which version became current, in order of time."""
        changes = self._logged()
        latest = self._current_change()
        return changes if latest is None or latest in changes[-1:] else [*changes, latest]

    def _make_current(self, change: VersionChange) -> None:
        """``current`` decides; the log follows, and is made up for here if a process died between the two."""
        missing = self.log()[len(self._logged()) :]
        self._append(missing)
        beside = self.folder / f".{_CURRENT}{_PART}"
        beside.write_text(json.dumps(asdict(change)) + "\n")
        _sync(beside)
        os.replace(beside, self.folder / _CURRENT)
        _sync(self.folder)
        self._append([change])

    def _append(self, changes: list[VersionChange]) -> None:
        if not changes:
            return
        path = self.folder / _LOG
        torn = path.is_file() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
        with path.open("a") as stream:
            stream.write(("\n" if torn else "") + "".join(json.dumps(asdict(change)) + "\n" for change in changes))
            stream.flush()
            os.fsync(stream.fileno())

    def _logged(self) -> list[VersionChange]:
        path = self.folder / _LOG
        lines = path.read_text().splitlines() if path.is_file() else []
        return [change for change in map(_change, lines) if change is not None]

    def _current_change(self) -> VersionChange | None:
        path = self.folder / _CURRENT
        try:
            text = path.read_text()
        except FileNotFoundError:
            return None
        change = _change(text)
        if change is None:
            raise self._damaged(path, text[:80])
        return change

    def _numbers(self) -> list[int]:
        names = (path.name for path in self.folder.iterdir())
        return sorted(int(name) for name in names if re.fullmatch(r"\d{4,}", name))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Alone among processes and threads; leaves no remains of those that died."""
        with FileLock(self.folder / _LOCK):
            for remains in self.folder.glob(f"{_PART}*"):
                shutil.rmtree(remains, ignore_errors=True)
            yield

    def _cannot_write(self, error: OSError) -> OutputError:
        return OutputError(
            "cannot store versions of the adapter",
            path=self.folder,
            found=error.strerror or error,
            hint="free some space, or choose a folder that can be written",
        )

    @staticmethod
    def _damaged(path: Path, found: object) -> DataError:
        return DataError(
            "history of the adapter is damaged", path=path, found=found, hint="roll back to another version"
        )


def _change(line: str) -> VersionChange | None:
    """None for a line that was torn when a process died."""
    try:
        return VersionChange(**json.loads(line))
    except (ValueError, TypeError):
        return None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


def _sync(path: Path) -> None:
    """Make sure that what was written is on the disk; Windows does so for folders by itself."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
