"""Modules run as programs of their own, by a process that has imported the heavy libraries once for all of them."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

HEAVY = [
    *("torch", "torch.utils.tensorboard", "monai.bundle", "monai.engines", "monai.handlers", "ignite.handlers", "peft"),
    *("topolora_monai.annotation", "topolora_monai.cli", "topolora_monai.engines", "topolora_monai.networks.baselines"),
    *("topolora_monai.release", "topolora_monai.reports.html", "rasterio", "nibabel", "fire"),
]
"""What most runs import; one that is not installed is left to the run."""


def run_module(module: str, *words: str | Path, cwd: str | Path | None = None) -> subprocess.CompletedProcess:
    """What ``python -m module words`` prints and returns, without the seconds that its imports take.

    The program has a process to itself, forked from one that has computed nothing: folder, streams, hooks and exit
    status are its own.
    """
    arguments = [str(word) for word in words]
    if not hasattr(os, "fork"):
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*HEAVY, __name__])
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("out", "err")]
        process = context.Process(target=_run, args=(module, arguments, cwd or Path.cwd(), dict(os.environ), streams))
        process.start()
        process.join()
        return subprocess.CompletedProcess(arguments, process.exitcode, *(path.read_text() for path in streams))


def _run(module: str, arguments: list[str], cwd: str | Path, environment: dict[str, str], streams: list[Path]) -> None:
    multiprocessing.set_start_method(None, force=True)  # the program's own workers start as they always do
    for number, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit:
        raise
    except BaseException:  # what the interpreter does with it
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
