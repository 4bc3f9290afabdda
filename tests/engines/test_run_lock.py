"""One process at a time writes to a folder, and whoever comes second learns who that is."""

import multiprocessing
import os
import signal

import pytest

from tests.processes import start
from topolora_monai.engines import lock_output, unlock_output
from topolora_monai.errors import OutputError


def hold(folder, held):
    lock_output(folder)
    held.send(True)
    signal.pause()


@pytest.fixture
def other(tmp_path):
    held, tells = multiprocessing.Pipe(duplex=False)
    process = start(hold, tmp_path, tells)
    assert held.recv()
    yield process
    process.kill()
    process.join()


def test_the_other_process_is_named_and_a_killed_one_does_not_block(other, tmp_path):
    with pytest.raises(OutputError, match="another process is writing") as error:
        lock_output(tmp_path)
    assert f"process {other.pid} on " in str(error.value)
    (tmp_path / ".running.json").write_text("{")
    with pytest.raises(OutputError, match="does not say which"):
        lock_output(tmp_path)
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    lock_output(tmp_path)
    unlock_output(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_the_same_process_may_take_it_twice(tmp_path):
    lock_output(tmp_path)
    lock_output(tmp_path / ".")
    unlock_output(tmp_path)
    unlock_output(tmp_path)


def test_only_the_first_of_several_processes_locks(other, tmp_path, monkeypatch):
    monkeypatch.setattr("topolora_monai.engines.output.idist.get_rank", lambda: 1)
    lock_output(tmp_path)


def test_file_systems_without_locks(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise NotImplementedError

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    lock_output(tmp_path)
