"""Programs in processes of their own, forked from one that has imported the heavy libraries once for all of them."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

HEAVY = [
    *("torch", "torch.utils.tensorboard", "monai.bundle", "monai.engines", "monai.handlers", "ignite.handlers", "peft"),
    *("topolora_monai.annotation", "topolora_monai.cli", "topolora_monai.engines", "topolora_monai.networks.baselines"),
    *("topolora_monai.release", "topolora_monai.reports.html", "rasterio", "nibabel", "fire"),
]
"""What most programs import; one that is not installed is left to them."""

FORKS = hasattr(os, "fork")


def start(target: Callable[..., None], *args: Any) -> BaseProcess:
    """A process that runs a function of a module, to be waited for or killed; it has computed nothing before."""
    context = multiprocessing.get_context("forkserver" if FORKS else "spawn")
    if FORKS:
        context.set_forkserver_preload([*HEAVY, __name__])
    process = context.Process(target=target, args=args)
    process.start()
    return process


def run_module(module: str, *words: str | Path, cwd: str | Path | None = None) -> subprocess.CompletedProcess:
    """What ``python -m module words`` prints and returns, without the seconds that its imports take.

    Folder, streams, hooks and exit status are its own.
    """
    return _finished("-m", module, words, cwd)


def start_module(streams: Path, module: str, *words: str | Path, cwd: str | Path) -> BaseProcess:
    """The same while it runs; what it prints goes to ``out`` and ``err`` in the folder ``streams``."""
    return start(_program, "-m", module, [str(word) for word in words], cwd, dict(os.environ), streams)


def run_code(code: str, *words: str | Path) -> subprocess.CompletedProcess:
    """What ``python -c code words`` prints and returns, in the same way."""
    return _finished("-c", code, words, None)


def run_code_afresh(code: str) -> subprocess.CompletedProcess:
    """The same in an interpreter that has imported nothing before."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def _finished(option: str, what: str, words: tuple, cwd: str | Path | None) -> subprocess.CompletedProcess:
    arguments = [str(word) for word in words]
    if not FORKS:
        command = [sys.executable, option, what, *arguments]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    with tempfile.TemporaryDirectory() as folder:
        process = start(_program, option, what, arguments, cwd or Path.cwd(), dict(os.environ), Path(folder))
        process.join()
        printed = (Path(folder, name).read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess(arguments, process.exitcode, *printed)


def _program(
    option: str, what: str, arguments: list[str], cwd: str | Path, environment: dict[str, str], streams: Path
) -> None:
    multiprocessing.set_start_method(None, force=True)  # the program's own workers start as they always do
    for number, name in enumerate(("out", "err"), start=1):
        os.dup2(os.open(streams / name, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = [what if option == "-m" else option, *arguments]
    if option == "-m":
        sys.path.insert(0, str(Path.cwd()))  # as the interpreter does
    try:
        if option == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit:
        raise
    except BaseException:  # what the interpreter does with it
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
