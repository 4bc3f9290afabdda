"""Keeps a worker busy, and another one at hand where a case broke it."""

import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator

from tests.conftest import ROOT
from tests.corpus.cases import Verdict

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
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()

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
        process = self._running()
        assert process.stdin is not None
        process.stdin.write(json.dumps(name) + "\n")
        process.stdin.flush()
        try:
            answer = self._lines.get(timeout=self.seconds)
        except queue.Empty:
            self._stop()
            return Verdict("HANG", f"no answer in {self.seconds:g} s")
        if not answer:
            status = process.wait()
            self._stop()
            return Verdict("CRASH", f"the process ended with {status}")
        verdict = Verdict(*json.loads(answer))
        if verdict.outcome == "MEMORY":
            self._stop()  # the peak of a process never falls
        return verdict

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._lines = queue.SimpleQueue()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.corpus.worker", self._folder.name],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", cwd=ROOT,
            )  # fmt: skip
            threading.Thread(target=_pass_on, args=(self._process.stdout, self._lines), daemon=True).start()
            assert self._lines.get(timeout=_START) == "ready\n", "the worker does not start"
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()
            self._process = None


def _pass_on(stream, lines: "queue.SimpleQueue[str]") -> None:
    """Lines of a process, and an empty one at its end."""
    try:
        for line in stream:
            lines.put(line)
    except ValueError:  # closed meanwhile
        pass
    lines.put("")
