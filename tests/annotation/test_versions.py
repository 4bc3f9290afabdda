"""Nothing is lost: not by roll-back, not by writers side by side, not when a process is killed anywhere."""

import signal
import threading

import pytest

from tests.processes import run_code
from topolora_monai.annotation import AdapterVersions
from topolora_monai.errors import AdapterFileError, DataError

# Dies with the n-th call of anything that changes the disk while a version is added, before the call or after it.
CHILD = """
import os, pathlib, shutil, signal, sys
from topolora_monai.annotation.versions import AdapterVersions

def killing(function, stop, after):
    def run(*arguments, **options):
        global calls
        calls += 1
        mine = calls == stop
        if mine and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **options)
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return run

folder, adapter = sys.argv[1:]
for after in (False, True):
    for stop in range(1, 40):
        place = pathlib.Path(folder) / f"{'after' if after else 'before'}_{stop}"
        place.parent.mkdir(exist_ok=True)
        AdapterVersions(place).add(adapter, "first author")
        child = os.fork()
        if not child:
            history, calls = AdapterVersions(place), 0
            for owner, name in ((shutil, "copyfile"), (os, "replace"), (os, "fsync"), (pathlib.Path, "mkdir"),
                                (pathlib.Path, "write_text")):
                setattr(owner, name, killing(getattr(owner, name), stop, after))
            history.add(adapter, "child", parent=1)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        print(place.name, os.WTERMSIG(status) if os.WIFSIGNALED(status) else "finished", flush=True)
        if not os.WIFSIGNALED(status):
            break
"""


@pytest.fixture
def history(tmp_path, adapter):
    history = AdapterVersions(tmp_path / "history")
    history.add(adapter, "first author", "start", scores={"dice": 0.8})
    return history


def test_versions_are_numbered_and_described(history, adapter):
    second = history.add(adapter, "b", "more labels", parent=1, scores={"dice": 0.9})
    assert [version.number for version in history.history()] == [1, 2]
    assert (second.author, second.note, second.parent, second.scores) == ("b", "more labels", 1, {"dice": 0.9})
    assert history.current() == second
    assert second.path.read_bytes() == adapter.read_bytes()
    assert AdapterVersions(history.folder).current() == second


def test_roll_back_is_one_more_entry(history, adapter):
    history.add(adapter, "b")
    history.roll_back(1, "c", "worse in clinic")
    assert history.current().number == 1
    assert [(entry.number, entry.action, entry.author) for entry in history.log()] == [
        (1, "add", "first author"), (2, "add", "b"), (1, "roll back", "c"),
    ]  # fmt: skip
    assert [version.number for version in history.history()] == [1, 2]
    assert history.add(adapter, "d").number == 3


def test_what_is_no_adapter_is_refused(history, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(AdapterFileError):
        history.add(tmp_path / "x.safetensors", "a")
    with pytest.raises(DataError, match="1"):
        history.roll_back(7, "a")
    assert history.current().number == 1


def test_empty_folder_has_no_current_version(tmp_path):
    assert AdapterVersions(tmp_path / "new").current() is None
    assert AdapterVersions(tmp_path / "new").log() == []


def test_torn_line_of_the_log_is_passed_over(history, adapter):
    with (history.folder / "log.jsonl").open("a") as log:
        log.write('{"number": 2, "ti')
    history.add(adapter, "b")
    assert [entry.number for entry in history.log()] == [1, 2]


def test_writers_take_turns(history, adapter):
    threads = [threading.Thread(target=history.add, args=(adapter, str(n))) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(version.author for version in history.history()) == [*"012345", "first author"]
    assert len(history.log()) == 7
    assert history.log()[-1].number == history.current().number


def test_survives_sigkill_anywhere(tmp_path, adapter):
    done = run_code(CHILD, tmp_path / "places", adapter)
    assert done.returncode == 0, done.stderr
    outcomes = dict(line.split() for line in done.stdout.splitlines())
    assert list(outcomes.values()).count("finished") == 2
    killed = [name for name, how in outcomes.items() if how == str(int(signal.SIGKILL))]
    assert len(killed) >= 20  # ten steps, before and after each
    seen = []
    for name in killed:
        history = AdapterVersions(tmp_path / "places" / name)
        current = history.current()
        seen.append(current.number)
        assert current.path.read_bytes() == adapter.read_bytes()
        assert history.log()[-1].number == current.number
        following = history.add(adapter, "next")
        assert history.current() == following
        assert following.number == len(history.history())
        assert [entry.number for entry in history.log()] == [1, *([2] if current.number == 2 else []), following.number]
        assert not list(history.folder.glob(".part-*"))
    assert set(seen) == {1, 2}
