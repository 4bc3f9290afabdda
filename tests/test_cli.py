"""The ``topolora`` command: data sets."""

import errno
import json
import os

import numpy as np
import pytest
from PIL import Image

from tests.data.fakes import draw
from topolora_monai.cli import main
from topolora_monai.data import BENCHMARKS, Folder, check_items


@pytest.fixture
def root(tmp_path):
    return draw("drive", tmp_path / "DRIVE", size=(64, 72))


def test_list_names_every_data_set(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["data", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(BENCHMARKS)
    row = next(line for line in lines if line.startswith("kvasir_seg"))
    assert "1000" in row
    assert "download" in row
    assert "by hand" in next(line for line in lines if line.startswith("drive"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_info_tells_splits_terms_and_citation(name, capsys):
    assert main(["data", "info", name]) == 0
    shown = capsys.readouterr().out
    facts = BENCHMARKS[name].facts
    for text in (facts.title, facts.licence, facts.citation, facts.access, *facts.counts):
        assert text in shown


def test_unknown_name(capsys):
    assert main(["data", "info", "drvie"]) == 1
    assert "did you mean drive" in capsys.readouterr().err


def test_verify_passes_and_fails(root, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["data", "verify", "drive", str(root)]) == 0
    shown = capsys.readouterr().out
    assert "drive: passed" in shown
    assert any(line.split()[:3] == ["training", "16", "72x64"] for line in shown.splitlines())
    (root / "test/1st_manual/02_manual1.gif").write_bytes(b"GIF89a")
    assert main(["data", "verify", "drive", str(root)]) == 1
    shown = capsys.readouterr().out
    assert "drive: FAILED" in shown
    assert "02_manual1.gif" in shown
    (root / "test/1st_manual/02_manual1.gif").unlink()
    assert main(["data", "verify", "drive", str(root)]) == 1
    assert "image without mask: 02" in capsys.readouterr().err


def test_verify_says_when_it_saw_a_part(root, capsys):
    for kind in ("images", "1st_manual", "2nd_manual", "mask"):
        for path in list((root / "test" / kind).glob("0*")):
            path.unlink()
    assert main(["data", "verify", "drive", str(root)]) == 1
    assert "--allow_partial" in capsys.readouterr().err
    assert main(["data", "verify", "drive", str(root), "--allow_partial"]) == 0
    assert "drive (a part: 31 of 40 images): passed" in capsys.readouterr().out


def test_notes_are_cut_unless_asked_for(tmp_path, capsys):
    root = draw("sl_ssdd", tmp_path, every=19, size=(32, 32))
    for path in sorted((root / "train").iterdir())[:30]:
        Image.fromarray(np.full((32, 32), 255, np.uint8)).save(path)
    arguments = ["data", "verify", "sl_ssdd", str(root), "--allow_partial"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert shown.count("note in") == 20
    assert "and 10 more notes" in shown
    assert main([*arguments, "--all_notes"]) == 0
    assert capsys.readouterr().out.count("note in") == 30


def test_prepared_list_is_a_folder_of_the_same_images(root, tmp_path, capsys):
    out = tmp_path / "lists/drive.json"
    assert main(["data", "prepare", "drive", str(root), "--out", str(out)]) == 0
    assert "16 training, 4 validation, 20 test" in capsys.readouterr().out
    content = json.loads(out.read_text())
    assert content["dataset"] == "drive"
    assert content["labels"] == ["background", "vessel"]
    data = Folder(out)
    assert [len(data.items(split)) for split in ("training", "validation", "test")] == [16, 4, 20]
    check_items(data.items("test"))
    assert data.items("test")[3]["fov"].endswith("04_test_mask.gif")


def test_preview_draws_outlines(root, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    assert main(["data", "preview", "drive", str(root), "--split", "test", "--count", "6", "--out", str(out)]) == 0
    assert "6 of 20 test images" in capsys.readouterr().out
    sheet = np.asarray(Image.open(out))
    assert ((sheet == (255, 176, 0)).all(-1).sum()) > 6 * 50
    assert main(["data", "preview", "drive", str(root), "--count", "0", "--out", str(out)]) == 1


def test_download_of_a_closed_set_says_where_to_ask(tmp_path, capsys):
    assert main(["data", "download", "drive", str(tmp_path / "new")]) == 1
    assert "drive.grand-challenge.org" in capsys.readouterr().err


def test_unwritable_output(root, tmp_path, capsys):
    (tmp_path / "file").touch()
    for command in ("prepare", "preview"):
        assert main(["data", command, "drive", str(root), "--out", str(tmp_path / "file/out")]) == 1
        assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["prepare", "preview"])
def test_full_disk_is_one_sentence(root, tmp_path, capsys, monkeypatch, command):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "out.png"
    out.write_text("older")
    monkeypatch.setattr("os.replace", full)
    assert main(["data", command, "drive", str(root), "--out", str(out)]) == 1
    assert "free some space, or choose another --out" in capsys.readouterr().err
    assert out.read_text() == "older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["DRIVE", "out.png"]
