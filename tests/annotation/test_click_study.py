"""The script of the click study on a drawn data set."""

import importlib.util
import json
import sys

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.data.fakes import draw
from topolora_monai.annotation import AnnotationSegmenter
from topolora_monai.data import open_dataset
from topolora_monai.transforms import LoadItem

NAMES = ["Image_05L", "Image_14R"]


@pytest.fixture
def run(monkeypatch, tmp_path, adapter):
    """Runs the script on a drawn CHASE_DB1; gives what it writes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    draw("chase_db1", tmp_path / "CHASE_DB1")
    specification = importlib.util.spec_from_file_location("click_study", ROOT / "scripts/click_study.py")
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)

    def run(*words):
        told = ["--plain", adapter, "--dataset", "chase_db1", "--dataset_dir", tmp_path / "CHASE_DB1", *words]
        monkeypatch.setattr(sys, "argv", ["click_study.py", *map(str, told), "--json", str(tmp_path / "study.json")])
        script.main()
        return json.loads((tmp_path / "study.json").read_text())

    return run


def test_courses_of_named_images(run, tmp_path, adapter, capsys):
    words = ("--names", *NAMES, "--precision", "fp32", "--sam_size", 64)
    first = run(*words, "--methods", "plain_rule", "sam")
    result = run(*words, "--methods", "plain_rule", "wires", "plain_asked", "bridges")
    assert capsys.readouterr().out.count(f"plain_rule {NAMES[0]}") == 1  # not done again
    assert result["images"]["plain_rule"] == first["images"]["plain_rule"]
    assert set(result["images"]) == {"plain_rule", "sam", "wires", "plain_asked", "bridges"}
    for method, courses in result["images"].items():
        assert list(courses) == NAMES
        assert all(len(one[name]) == 11 for one in courses.values() for name in ("dice", "cldice", "betti_0_error"))
        dice = np.array([one["dice"] for one in courses.values()])
        assert result["summary"][method]["dice"] == pytest.approx(dice.mean(axis=0).tolist())
    assert all(one["dice"][0] == 0 for one in result["images"]["sam"].values())  # from an empty mask
    wires = result["summary"]["wires"]
    assert wires["cldice"][10] > wires["cldice"][0]
    assert wires["cldice"][1] == wires["cldice"][0]  # a wire takes two clicks

    data = open_dataset("chase_db1", tmp_path / "CHASE_DB1")
    item = next(item for item in data.items("test") if item["name"] == NAMES[0])
    loaded = LoadItem(3, label_values=data.label_values)(item)
    segmenter = AnnotationSegmenter({"adapted": adapter}, precision="fp32", overlap=0.25)
    found = (segmenter.automatic(item["image"])[0] >= 0.5) & (loaded["fov"][0] > 0)
    true = (loaded["label"][0] > 0) & (loaded["fov"][0] > 0)
    expected = float(2 * (found & true).sum() / (found.sum() + true.sum()))
    assert result["images"]["plain_rule"][NAMES[0]]["dice"][0] == pytest.approx(expected)


def test_another_adapter_needs_another_file(run, tmp_path):
    (tmp_path / "study.json").write_text('{"settings": {"dataset": "drive"}, "images": {}}')
    with pytest.raises(SystemExit, match=r"study.json is of other settings: \{'dataset': 'drive'\}"):
        run("--names", *NAMES)


def test_unknown_image(run):
    with pytest.raises(SystemExit, match="no test image is called Image_01L; there are Image_05L"):
        run("--names", "Image_01L")
