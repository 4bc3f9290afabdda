"""Files and folders that are whole or not there: made beside their place under a name of their own, then renamed."""

import contextlib
import errno
import functools
import hashlib
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from topolora_monai.errors import OutputError

_ABANDONED = 24 * 3600.0
"""Seconds after which what an unknown process left is taken for remains."""

_OURS = re.compile(r"\.part-(?P<machine>[0-9a-f]{6})-(?P<process>\d{1,9})-[0-9a-f]{8}")

_ADVICE = (
    ((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space"),
    ((errno.EROFS, errno.EACCES, errno.EPERM), "make the folder writable"),
    ((errno.ENOENT, errno.ENOTDIR), "check that the folder exists"),
)


@contextlib.contextmanager
def atomic_write(path: str | Path, what: str | None = None, instead: str | None = None) -> Iterator[Path]:
    """A place beside ``path`` to write to; what is there at the end becomes ``path``, and nothing after an error.

    The place has the file's own name, in a folder of its own: writers that look at the name, or store it, meet the
    right one, and several processes may write one file, of which the last one's stays. The first call for a folder in
    a process removes what killed processes have left there.

    Args:
        path: the file; an older one is left as it was until the new one is whole.
        what: what is written, such as ``"a volume"``: an ``OSError`` then becomes an ``OutputError`` that says so.
        instead: what else to do about it, such as ``"choose another --out"``.

    Raises:
        OSError: if it cannot be written, or its folder is not there; with ``what`` an ``OutputError``.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "scores.txt"
        >>> with atomic_write(file) as beside:
        ...     _ = beside.write_text("0.8")
        ...     file.exists()
        False
        >>> file.read_text(), len(list(file.parent.iterdir()))
        ('0.8', 1)
    """
    path = Path(path)
    with writing(path, what, instead) if what else contextlib.nullcontext(), folder_beside(path) as folder:
        yield folder / path.name
        os.replace(folder / path.name, path)


@contextlib.contextmanager
def folder_beside(path: str | Path) -> Iterator[Path]:
    """A new empty folder beside ``path``, to be renamed to it once it is full; removed if it is still there.

    An ``OSError`` if it cannot be made.
    """
    parent = Path(path).parent
    _tidy_once(parent.absolute(), os.getpid())
    folder = parent / f".part-{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def writing(path: Path, what: str, instead: str | None = None) -> Iterator[None]:
    """Turn an ``OSError`` while something is written to ``path`` into an ``OutputError``; see :func:`atomic_write`."""
    try:
        yield
    except OSError as error:
        anything = "check that the folder exists, may be written to and has free space"
        hint = next((advice for numbers, advice in _ADVICE if error.errno in numbers), anything)
        hint += f", or {instead}" if instead else ""
        raise OutputError(f"cannot write {what}", path=path, found=error.strerror or str(error), hint=hint) from error


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed have left in a folder, as the numbers in the names say.

    What those of other machines on the same disk have left goes after a day.
    """
    try:
        found = [ours for entry in os.scandir(folder) if (ours := _OURS.fullmatch(entry.name))]
    except OSError:
        return
    for ours in found:
        if _is_left(folder / ours.string, ours):
            shutil.rmtree(folder / ours.string, ignore_errors=True)


@functools.cache
def _tidy_once(folder: Path, process: int) -> None:
    remove_leftovers(folder)


@functools.cache
def _machine() -> str:
    """What tells the machines, and on Linux the containers, apart whose process numbers mean other processes."""
    try:
        numbers = Path("/proc/self/ns/pid").readlink()
    except OSError:
        numbers = Path()
    return hashlib.sha256(f"{platform.node()} {numbers}".encode()).hexdigest()[:6]


def _is_left(path: Path, ours: re.Match[str]) -> bool:
    if ours["machine"] == _machine() and not _runs(int(ours["process"])):
        return True
    try:
        return time.time() - path.lstat().st_mtime > _ABANDONED
    except OSError:
        return False


def _runs(process: int) -> bool:
    if os.name == "nt":  # where signal 0 would interrupt it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # somebody else's
    return True
