"""Files written whole by several processes, remains of killed ones, and errors a person can act on."""

import errno
import os
import textwrap
import threading

import pytest

from tests.processes import run_code
from topolora_monai.errors import OutputError
from topolora_monai.io import atomic
from topolora_monai.io.atomic import atomic_write, folder_beside, remove_leftovers, writing

KILLED = textwrap.dedent(
    """
    import os, sys
    from topolora_monai.io.atomic import atomic_write, folder_beside
    with atomic_write(sys.argv[1]) as file, folder_beside(sys.argv[1]) as folder:
        file.write_text("half")
        (folder / "half").write_text("half")
        os._exit(9)
    """
)


def killed_while_writing(path):
    assert run_code(KILLED, path).returncode == 9


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestWrite:
    def test_an_error_leaves_the_older_file_and_nothing_else(self, tmp_path):
        file = tmp_path / "a"
        file.write_text("old")
        with pytest.raises(KeyError), atomic_write(file) as beside:
            beside.write_text("half")
            raise KeyError
        assert file.read_text() == "old"
        assert names(tmp_path) == ["a"]

    def test_two_writers_of_one_file_do_not_meet(self, tmp_path):
        with atomic_write(tmp_path / "a") as first, atomic_write(tmp_path / "a") as second:
            first.write_text("first")
            second.write_text("second")
        assert (tmp_path / "a").read_text() == "first"  # renamed last
        assert names(tmp_path) == ["a"]

    def test_many_threads_leave_one_whole_file(self, tmp_path):
        def write(text):
            for _ in range(20):
                with atomic_write(tmp_path / "a") as beside:
                    beside.write_text(text * 1000)

        threads = [threading.Thread(target=write, args=(text,)) for text in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        content = (tmp_path / "a").read_text()
        assert content in {text * 1000 for text in "abcd"}
        assert names(tmp_path) == ["a"]

    def test_a_name_as_long_as_names_may_be(self, tmp_path):
        file = tmp_path / ("n" * 255)
        with atomic_write(file) as beside:
            beside.write_text("x")
        assert file.read_text() == "x"

    @pytest.mark.parametrize(
        ("number", "advice"),
        [
            (errno.ENOSPC, "free some space, or choose another --out"),
            (errno.EROFS, "make the folder writable, or choose another --out"),
            (errno.ENOENT, "check that the folder exists, or choose another --out"),
        ],
    )
    def test_errors_say_what_to_do(self, tmp_path, number, advice):
        with (
            pytest.raises(OutputError) as error,
            atomic_write(tmp_path / "a", "the table", instead="choose another --out"),
        ):
            raise OSError(number, os.strerror(number))
        assert f"cannot write the table: {tmp_path / 'a'}" in str(error.value)
        assert os.strerror(number) in str(error.value)
        assert advice in str(error.value)

    def test_a_file_in_the_place_of_the_folder(self, tmp_path):
        (tmp_path / "file").touch()
        with (
            pytest.raises(OutputError, match="cannot write a picture"),
            atomic_write(tmp_path / "file" / "a", "a picture") as beside,
        ):
            beside.write_text("x")

    def test_other_errors_pass(self, tmp_path):
        with pytest.raises(ValueError, match="mine"), writing(tmp_path, "it"):
            raise ValueError("mine")


class TestLeftovers:
    def test_those_of_a_killed_process_go_at_the_next_start(self, tmp_path):
        killed_while_writing(tmp_path / "a")
        assert len(names(tmp_path)) == 2
        with atomic_write(tmp_path / "b") as beside:
            beside.write_text("x")
        assert names(tmp_path) == ["b"]

    def test_those_of_a_living_process_stay(self, tmp_path):
        with atomic_write(tmp_path / "a") as file, folder_beside(tmp_path / "a") as folder:
            file.write_text("half")
            (folder / "half").touch()
            remove_leftovers(tmp_path)
            assert file.exists()
            assert (folder / "half").exists()
            file.write_text("whole")
        assert names(tmp_path) == ["a"]

    def test_those_of_another_machine_go_after_a_day(self, tmp_path, monkeypatch):
        killed_while_writing(tmp_path / "a")
        monkeypatch.setattr(atomic, "_machine", lambda: "0" * 6)
        remove_leftovers(tmp_path)
        assert len(names(tmp_path)) == 2
        for path in tmp_path.iterdir():
            os.utime(path, (0, 0))
        remove_leftovers(tmp_path)
        assert names(tmp_path) == []

    def test_files_of_others_stay(self, tmp_path):
        for name in (".part-of-mine", ".part-ab3_x9yz", "part-000000-1-00000000", ".a.part"):
            (tmp_path / name).touch()
            os.utime(tmp_path / name, (0, 0))
        remove_leftovers(tmp_path)
        assert len(names(tmp_path)) == 4
