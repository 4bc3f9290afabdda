"""A run as whoever reads its result is told of it, its errors as a person reads them, its folder for it alone."""

import atexit
import contextlib
import json
import os
import platform
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import ignite.distributed as idist
import torch
from filelock import FileLock, Timeout

import topolora_monai
from topolora_monai.errors import INTERRUPTED, OutputError, TopoLoRAError
from topolora_monai.io.json_files import write_json

_LOCK = ".lock"
_OWNER = ".running.json"
_held: dict[Path, FileLock] = {}
_stop_note: list[str] = []
"""What the message of Ctrl-C adds; one entry or none."""


def provenance() -> dict[str, Any]:
    """How this process was started, on what code and hardware, and the most memory it has taken so far.

    That is the GPU's peak allocation where one is used, else the process's own; 0 where the system does not say.
    """
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _peak_resident_bytes()
    return {"command": command_line(), "commit": _commit(), "hardware": _hardware(), "peak_memory_bytes": peak}


def command_line() -> str:
    """How this process was started, as one would type it."""
    program = Path(sys.argv[0])
    if program.parts[-2:] == ("bundle", "__main__.py"):
        return shlex.join(["python", "-m", "monai.bundle", *sys.argv[1:]])
    if program.stem == "topolora" or program.parts[-2:] == ("cli", "__main__.py"):
        return shlex.join(["topolora", *sys.argv[1:]])
    return shlex.join(["python", *sys.argv])


def _peak_resident_bytes() -> int:
    try:
        import resource  # noqa: PLC0415 - POSIX alone has it
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def speak_plainly() -> None:
    """Show the package's own errors without the traceback of the machinery around them.

    MONAI wraps what goes wrong while it builds a configuration; the innermost error is the one to read.
    Ctrl-C ends with a sentence and status 130. Set ``TOPOLORA_TRACEBACK=1`` to see everything.
    """
    if os.environ.get("TOPOLORA_TRACEBACK") != "1":
        sys.excepthook = _print_plainly


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Raise the package's own error in place of MONAI's that wraps it."""
    try:
        yield
    except Exception as error:
        own = _own(error)
        if own is None or own is error:
            raise
        raise own from own.__cause__


def say_if_stopped(note: str) -> None:
    """What to tell a person who stops this process by Ctrl-C from now on: what is kept, and how to go on."""
    _stop_note[:] = [note]


def stopped() -> str:
    """What a person reads who has stopped this process, with the note of :func:`say_if_stopped`."""
    return "; ".join(["\nstopped", *_stop_note])


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


def _print_plainly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print(stopped(), file=sys.stderr)
        raise SystemExit(INTERRUPTED)
    cause = _own(error)
    if cause is None:
        traceback.print_exception(kind, error, trace)
    else:
        print(f"\nerror: {cause}", file=sys.stderr)


def _own(error: BaseException | None) -> TopoLoRAError | None:
    """The package's error that led to another one."""
    while error is not None and not isinstance(error, TopoLoRAError):
        error = error.__cause__ or error.__context__
    return error


def _commit() -> str:
    """Commit of the source tree, marked when it has uncommitted changes; the version when installed."""
    root = Path(__file__).parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout

    try:
        return git("rev-parse", "HEAD").strip() + ("-dirty" if git("status", "--porcelain", "-uno").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return f"version {topolora_monai.__version__}"


def _hardware() -> str:
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    parts = [f"{processor}, {os.cpu_count()} cores"]
    parts += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return "; ".join([*parts, f"torch {torch.__version__}"])


def _owner(folder: Path) -> str:
    try:
        owner = json.loads((folder / _OWNER).read_text(encoding="utf-8"))
        return f"process {owner['process']} on {owner['host']} since {owner['started']}: {owner['command']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has only just started
        return "a process that does not say which"
