"""What is said before the server starts, and what is tidied up when it does."""

import shutil

import pytest

pytest.importorskip("monailabel", reason="needs MONAI Label: run `make label-test`")

import topolora_monai.label_app.main  # noqa: F401 - sets the defaults before MONAI Label is imported
from topolora_monai.cli import main
from topolora_monai.io import atomic


@pytest.fixture
def start(monkeypatch, capsys):
    """Runs ``topolora label`` up to where the server would start; what it says of an error, None without one."""
    import monailabel.main

    started = []
    monkeypatch.setattr(monailabel.main.Main, "action_start_server", lambda *arguments: started.append(arguments))

    def run(*words):
        status = main(["label", *map(str, words)])
        assert bool(started) == (status == 0)
        return capsys.readouterr().err if status else None

    return run


def test_starts(start, studies, adapter):
    assert start("--studies", studies, "--adapter", f"tuned={adapter}") is None


def test_two_files_of_one_stem(start, studies, adapter):
    shutil.copy(studies / "im1.png", studies / "im1.tif")
    assert "same name but for their endings" in start("--studies", studies, "--adapter", adapter)


def test_no_model(start, studies):
    assert "--adapter" in start("--studies", studies)


def test_adapter_that_is_missing_or_none(start, studies, tmp_path):
    assert "missing.safetensors" in start("--studies", studies, "--adapter", tmp_path / "missing.safetensors")
    (tmp_path / "none.safetensors").write_bytes(b"none")
    assert "none.safetensors" in start("--studies", studies, "--adapter", tmp_path / "none.safetensors")
    words = ["--studies", studies, "--adapter", tmp_path / "none.safetensors", "--weights", "missing.pt"]
    assert "missing.pt" in start(*words)


def test_leftovers_of_killed_servers_go(make_client, studies, mask_file):
    """Wherever the server writes; those of a process that runs stay."""
    from tests.label_app.conftest import upload

    client = make_client()
    assert client.put("/datastore/label?image=im0", **upload(mask_file)).status_code == 200
    places = [studies / place for place in ("", "labels/final", ".topolora/labels/final/im0")]
    places.append(studies.parent / "work/adapters/tuned")
    for place in places:
        for process in (4_194_305, 1):  # of which Linux gives out only the second
            (place / f".part-{atomic._machine()}-{process}-00000000").mkdir()
    with make_client() as again:
        assert again.get("/health").status_code == 200
    left = [path.name for place in places for path in place.glob(".part-*")]
    assert left == [f".part-{atomic._machine()}-1-00000000"] * len(places)
