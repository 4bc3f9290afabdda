"""Versions of an adapter in a folder: nothing is ever deleted, and one is current at any moment."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock

from topolora_monai.adapters import read_spec
from topolora_monai.errors import DataError
from topolora_monai.io.atomic import folder_beside, writing
from topolora_monai.io.json_files import json_text

_ADAPTER, _RECORD, _LOG = "adapter.safetensors", "version.json", "log.jsonl"


@dataclass(frozen=True)
class AdapterVersion:
    """What is known of a version: its number, from 1; when it was added, ISO 8601 in UTC; who or what made it, and why.

    ``parent`` is the number of the version that it was trained from, None for one from elsewhere; ``scores`` are plain
    JSON of whatever was measured.
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
    """An entry of the log: since when, ISO 8601 in UTC, which version was current, and who did that.

    ``action`` is ``"add"`` or ``"roll back"``, ``note`` says why.
    """

    number: int
    time: str
    author: str
    action: str
    note: str = ""


class AdapterVersions:
    """A folder of numbered versions, ``0001/adapter.safetensors`` with ``version.json``, of which one is current.

    The last whole line of ``log.jsonl`` says which. It is written once the version is there, so that a process that is
    killed anywhere leaves the version before current, and at worst a finished version that never was. Several processes
    may write; they take turns by a lock on the folder.

    Args:
        folder: made with the first version.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()

    def add(
        self,
        adapter: str | Path,
        author: str,
        note: str = "",
        parent: int | None = None,
        scores: Mapping[str, Any] | None = None,
        current: bool = True,
    ) -> AdapterVersion:
        """Copy an adapter file into the history and, by default, make it current.

        See :class:`AdapterVersion` for the rest.

        Raises:
            AdapterFileError: if it is damaged or no adapter.
            OutputError: if it cannot be stored; the current version stays.
        """
        read_spec(adapter)
        with self._writing():
            number = max(self._numbers(), default=0) + 1
            record = AdapterVersion(number, _now(), author, note, parent, dict(scores or {}))
            stored = {name: value for name, value in asdict(record).items() if name != "path"}
            place = self.folder / f"{number:04d}"
            with folder_beside(place) as beside:
                shutil.copyfile(adapter, beside / _ADAPTER)
                (beside / _RECORD).write_text(json_text(stored, indent=2) + "\n", encoding="utf-8")
                sync(beside / _ADAPTER)
                sync(beside / _RECORD)
                os.replace(beside, place)
            sync(self.folder)
            if current:
                self._log(VersionChange(number, record.time, author, "add", note))
        return self.version(number)

    def roll_back(self, number: int, author: str, note: str = "") -> AdapterVersion:
        """Make an earlier version, or a later one again, the current; the others stay.

        Raises:
            DataError: if there is no such version, or its files are damaged.
            OutputError: if it cannot be noted; the current version stays.
        """
        version = self.version(number)
        with self._writing():
            self._log(VersionChange(number, _now(), author, "roll back", note))
        return version

    def current(self) -> AdapterVersion | None:
        """The version in use; None before the first.

        Raises:
            DataError: if the folder is damaged.
        """
        log = self.log()
        return self.version(log[-1].number) if log else None

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
            raise _damaged(folder / _RECORD, error) from error
        if not record.path.is_file():
            raise _damaged(record.path, "nothing")
        return record

    def history(self) -> list[AdapterVersion]:
        """All versions in order of number, those that never were current among them."""
        return [self.version(number) for number in self._numbers()]

    def log(self) -> list[VersionChange]:
        """When which version became current, in order of time.

        Raises:
            DataError: if no line of it can be read.
        """
        path = self.folder / _LOG
        lines = path.read_text().splitlines() if path.is_file() else []
        changes = []
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):  # a line that was torn when a process died
                changes.append(VersionChange(**json.loads(line)))
        if lines and not changes:
            raise _damaged(path, lines[0][:80])
        return changes

    def _log(self, change: VersionChange) -> None:
        path = self.folder / _LOG
        torn = path.is_file() and not path.read_bytes().endswith(b"\n")
        with path.open("a") as stream:
            stream.write(("\n" if torn else "") + json.dumps(asdict(change)) + "\n")
        sync(path)
        sync(self.folder)

    def _numbers(self) -> list[int]:
        return sorted(int(path.name) for path in self.folder.glob("*") if re.fullmatch(r"\d{4,}", path.name))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Alone among processes and threads."""
        with writing(self.folder, "versions of the adapter", "choose another folder"):
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock"):
                yield


def sync(path: Path) -> None:
    """Make sure that what was written is on the disk; Windows does so for folders by itself."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damaged(path: Path, found: object) -> DataError:
    return DataError("history of the adapter is damaged", path=path, found=found, hint="roll back to another version")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")
