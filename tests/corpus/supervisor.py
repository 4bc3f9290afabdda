"""Keeps a worker busy, and another one at hand where a case broke it."""

import multiprocessing
import tempfile
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from tests.corpus.cases import Verdict
from tests.corpus.worker import serve
from tests.processes import start

SECONDS = 20.0
"""Time that a case may take, all its ways together."""
_START = 120.0


class Supervisor:
    """One worker process after the other; a case that hangs or kills one costs no other case.

    Args:
        seconds: time limit of a case.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._folder = tempfile.TemporaryDirectory(prefix="corpus-")
        self._worker: tuple[BaseProcess, Connection] | None = None

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._folder.cleanup()

    def run(self, names: Iterable[str]) -> Iterator[tuple[str, Verdict]]:
        """Verdict of each case, as soon as it is there."""
        for name in names:
            yield name, self.judge(name)

    def judge(self, name: str) -> Verdict:
        """Verdict of one case."""
        process, connection = self._running()
        connection.send(name)
        if not connection.poll(self.seconds):
            self._stop()
            return Verdict("HANG", f"no answer in {self.seconds:g} s")
        try:
            verdict: Verdict = connection.recv()
        except EOFError:
            process.join()
            self._stop()
            return Verdict("CRASH", f"the process ended with {process.exitcode}")
        if verdict.outcome == "MEMORY":
            self._stop()  # the peak of a process never falls
        return verdict

    def _running(self) -> tuple[BaseProcess, Connection]:
        if self._worker is None:
            ours, its = multiprocessing.Pipe()
            self._worker = start(serve, self._folder.name, its), ours
            its.close()
            assert ours.poll(_START), "the worker does not start"
            ours.recv()
        return self._worker

    def _stop(self) -> None:
        if self._worker is not None:
            process, connection = self._worker
            process.kill()
            process.join()
            connection.close()
            self._worker = None
