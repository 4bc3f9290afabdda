"""The process that breaks in place of the tests: takes names of cases, gives back verdicts."""

import contextlib
import errno
import importlib
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from tests.corpus import ways
from tests.corpus.cases import Case, Verdict
from tests.corpus.checkpoints import SENTINEL

MEMORY = 3 << 30
"""Address space that a case may take beyond that of the process, in bytes."""
RESIDENT = 2 << 30
"""Memory in use, beyond that before, from which on a verdict is MEMORY whatever was answered."""
DISK = 1 << 29
"""Size that no written file may exceed."""

_MODULES = ("images", "lists", "adapters", "archives", "checkpoints")


@lru_cache(maxsize=1)
def all_cases() -> dict[str, Case]:
    """Every case by its name."""
    found: dict[str, Case] = {}
    for module in _MODULES:
        for case in importlib.import_module(f"tests.corpus.{module}").cases():
            assert case.name not in found, f"two cases are named {case.name}"
            found[case.name] = case
    return found


def judge(case: Case, folder: Path) -> Verdict:
    """Make a case in an empty folder and send it all its ways; the first fault counts."""
    file = case.make(folder)
    verdicts = [_judge_way(case, way, file, folder) for way in case.ways]
    faults = [verdict for verdict in verdicts if not verdict.sound]
    return faults[0] if faults else verdicts[0]


def _judge_way(case: Case, way: str, file: Path, folder: Path) -> Verdict:
    out = folder / f"out-{way}"
    out.mkdir()
    before = _peak_resident()
    try:
        with _limited():
            verdict = _answer(case, getattr(ways, way), file, out)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    grown = _peak_resident() - before
    if grown > RESIDENT:
        verdict = Verdict("MEMORY", f"{grown >> 20} MiB more in use, then {verdict.outcome} {verdict.detail}")
    if any(path.name == SENTINEL for path in (*folder.rglob(SENTINEL), *Path.cwd().glob(SENTINEL))):
        verdict = Verdict("RAN", verdict.detail)
    return Verdict(verdict.outcome, f"{way}: {verdict.detail}")


def _answer(case: Case, way, file: Path, out: Path) -> Verdict:
    from topolora_monai.errors import TopoLoRAError

    try:
        values = way(file, out)
    except TopoLoRAError as error:
        return _refusal(case, error, file)
    except AssertionError as error:
        return Verdict("SILENT" if case.must != "read" else "WRONGLY", _line(error))
    except Exception as error:
        kinds = {MemoryError: "MEMORY", ways.LeftBehindError: "DISK"}
        return Verdict(kinds.get(type(error), "CRASH"), _place(error))
    if case.must == "refuse":
        return Verdict("SILENT", "accepted")
    if case.must != "survive" and case.right is not None and values is not None and not _equal(values, case.right):
        return Verdict("SILENT", f"read with other values, shape {values.shape}")
    return Verdict("read")


def _refusal(case: Case, error: Exception, file: Path) -> Verdict:
    if os.strerror(errno.EFBIG) in str(error):
        return Verdict("DISK", _line(error))
    if case.must == "read":
        return Verdict("WRONGLY", _line(error))
    if not any(name in str(error) for name in (str(file), file.name, *case.also)):
        return Verdict("UNNAMED", _line(error))
    if "Traceback" in str(error):
        return Verdict("CRASH", _line(error))
    return Verdict("refused", _line(error))


def _equal(values: np.ndarray, right: np.ndarray) -> bool:
    if values.shape[0] != right.shape[0] or values.shape[-2:] != right.shape[-2:]:
        return False
    return bool(np.allclose(values, np.broadcast_to(right, values.shape), atol=1e-5))


def _line(error: BaseException) -> str:
    return " | ".join(line.strip() for line in str(error).splitlines() if line.strip())[:400]


def _place(error: Exception) -> str:
    """The error, and the line of the package that it passed last."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "topolora_monai" in Path(frame.filename).parts] or frames
    return f"{type(error).__name__}: {_line(error)} ({Path(own[-1].filename).name}:{own[-1].lineno})"[:400]


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Less memory and disk while the package works, where the system keeps such limits."""
    if sys.platform != "linux":
        yield
        return
    import resource

    limits = {resource.RLIMIT_AS: _address_space() + MEMORY, resource.RLIMIT_FSIZE: DISK}
    before = {kind: resource.getrlimit(kind) for kind in limits}
    try:
        for kind, limit in limits.items():
            resource.setrlimit(kind, (limit, before[kind][1]))
        yield
    finally:
        for kind, limit in before.items():
            resource.setrlimit(kind, limit)


def _address_space() -> int:
    import psutil

    return int(psutil.Process().memory_info().vms)


def _peak_resident() -> int:
    try:
        import resource  # POSIX alone
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def _warm_up() -> None:
    """Import all that the ways use, so that a time limit is one of the package's work."""
    import itk
    import rasterio

    import topolora_monai.cli
    import topolora_monai.engines
    import topolora_monai.release

    del itk, rasterio, topolora_monai
    _be_a_small_machine()


def _be_a_small_machine() -> None:
    """Have the package believe that it runs in a container, since memory is its only limit for a user's own files."""
    try:
        from topolora_monai.io import memory
    except ImportError:
        return
    stated = Path("memory.max").absolute()
    stated.write_text(str(RESIDENT))
    memory._CGROUP = stated


def serve(base: str, connection: Connection) -> None:
    """Answer until nothing more is asked, in a folder of its own."""
    silence = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # libraries speak below Python
        os.dup2(silence, descriptor)
    import torch

    torch.set_num_threads(1)
    os.chdir(base)
    _warm_up()
    connection.send("ready")
    while True:
        try:
            name = connection.recv()
        except EOFError:
            return
        folder = Path(tempfile.mkdtemp(dir=base))
        try:
            verdict = judge(all_cases()[name], folder)
        except Exception:
            verdict = Verdict("CRASH", f"in making it: {traceback.format_exc()[-300:]}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            Path(base, SENTINEL).unlink(missing_ok=True)
        connection.send(verdict)
