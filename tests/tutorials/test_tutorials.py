"""The tutorials run from their first block to their last, in an empty folder, on drawn images.

Blocks run as printed but for what stands in this module: training is that of ``vit_tiny_test``, small and short, and
without a checkpoint; what needs an installation of its own is left out and named.
"""

import json
from pathlib import Path

import pytest

from tests.bundles.helpers import SMALL, flatten
from tests.conftest import ROOT
from tests.pages import replaced, run_page

TRAINING = SMALL | {"epochs": 1, "crop_size": 64}  # few tiles of what is validated and scored
SCORING = {"precision": "fp32", "overlap": 0.0}
CHECKPOINT = {"--network_name": None, "--weights": None}
"""Of networks that are downloaded; what trains is ``vit_tiny_test`` with random weights."""


def smaller(words: list[str]) -> list[str] | None:
    """What is run in place of a printed command."""
    if words[0] == "make" or words[0].startswith(".venv-label/"):
        print(f"not run: {' '.join(words)} (sets up or needs the annotation server, which make label-test tests)")
        return None
    words = replaced(words, CHECKPOINT)
    if {"train", "training"} & set(words):
        return [*words, *flatten(TRAINING)]
    if {"evaluate", "evaluating", "predict"} & set(words):
        return [*words, *flatten(SCORING)]
    return words


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a tutorial in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda name: run_page(f"docs/tutorials/{name}.md", tmp_path, smaller)


def test_train(run):
    run("train")
    summary = json.loads(Path("runs/vessels/evaluation/summary.json").read_text())
    assert "cldice" in json.dumps(summary)
    assert Path("preview.png").is_file()
    assert list(Path("report").glob("*.html"))
    assert len(list(Path("masks").glob("*_mask.png"))) == 12
    assert Path("vessels-bundle/models/model.pt").is_file()


def test_predict(run):
    assert run("predict")["prediction"].mask.any()


def test_extend(run):
    run("extend")
    assert Path("runs/thickness/adapter.safetensors").is_file()
    record = json.loads(Path("runs/leaves/evaluation/summary.json").read_text())
    assert "leaves" in json.dumps(record)


def test_annotate(run, capsys):
    names = run("annotate")
    assert names["done"].after >= 0
    assert len(names["versions"].history()) >= 1
    assert "not run: make label" in capsys.readouterr().out


def test_every_tutorial_is_run():
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {path.stem for path in (ROOT / "docs/tutorials").glob("*.md")} <= tested
