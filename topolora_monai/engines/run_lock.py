"""One process at a time in a folder of results."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import platform
import time
from pathlib import Path

import ignite.distributed as idist
from filelock import FileLock, Timeout

from topolora_monai.engines.output import command_line
from topolora_monai.errors import OutputError
from topolora_monai.io.json_files import write_json

__all__ = ["lock_output", "unlock_output"]

_LOCK = ".lock"
_OWNER = ".running.json"
_held: dict[Path, FileLock] = {}


def lock_output(folder: str | Path) -> None:
    """Keep a folder for this process until :func:`unlock_output`, or its end however it ends.

    The lock is the operating system's, so a killed process leaves none. Of several processes of one run the first
    takes it for all. A process may take a folder twice. Where a file system knows no locks, none is held.

    Raises:
        OutputError: if another process has it; names that one.
    """
    folder = Path(folder).resolve()
    if folder in _held or idist.get_rank() != 0:
        return
    lock = FileLock(folder / _LOCK, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(
            "another process is writing to this folder",
            path=folder,
            found=_owner(folder),
            hint="wait until it has finished or stop it, or choose another --output_dir",
        ) from error
    except (NotImplementedError, OSError):
        return
    _held[folder] = lock
    atexit.register(unlock_output, folder)
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    owner = {"process": os.getpid(), "host": platform.node(), "started": started, "command": command_line()}
    with contextlib.suppress(OSError):  # only for a message
        write_json(owner, folder / _OWNER)


def unlock_output(folder: str | Path) -> None:
    """Let others have a folder; one that this process does not hold is left alone."""
    folder = Path(folder).resolve()
    lock = _held.pop(folder, None)
    if lock is not None:
        with contextlib.suppress(OSError):
            (folder / _OWNER).unlink()
        lock.release()  # the empty file stays: another process may have opened it by now


def _owner(folder: Path) -> str:
    try:
        owner = json.loads((folder / _OWNER).read_text(encoding="utf-8"))
        return f"process {owner['process']} on {owner['host']} since {owner['started']}: {owner['command']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has only just started
        return "a process that does not say which"
