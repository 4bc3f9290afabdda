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
        told = ["--adapter", adapter, "--dataset", "chase_db1", "--dataset_dir", tmp_path / "CHASE_DB1", *words]
        monkeypatch.setattr(sys, "argv", ["click_study.py", *map(str, told), "--json", str(tmp_path / "study.json")])
        script.main()
        return json.loads((tmp_path / "study.json").read_text())

    return run


def test_courses_of_named_images(run, tmp_path, adapter):
    result = run("--names", *NAMES, "--precision", "fp32")
    assert result["images"] == NAMES
    assert [len(course) for course in result["dice_per_image"]["adapted"]] == [11, 11]
    for count in ("0", "10"):
        courses = np.array(result["dice_per_image"]["adapted"])
        assert result["dice"]["adapted"][count] == pytest.approx(courses[:, int(count)].mean())

    data = open_dataset("chase_db1", tmp_path / "CHASE_DB1")
    item = next(item for item in data.items("test") if item["name"] == NAMES[0])
    loaded = LoadItem(3, label_values=data.label_values)(item)
    segmenter = AnnotationSegmenter(
        {
            "adapted": adapter,
        },
        precision="fp32",
    )
    found = (segmenter.automatic(item["image"])[0] >= 0.5) & (loaded["fov"][0] > 0)
    true = (loaded["label"][0] > 0) & (loaded["fov"][0] > 0)
    expected = float(2 * (found & true).sum() / (found.sum() + true.sum()))
    assert result["dice_per_image"]["adapted"][0][0] == pytest.approx(expected)
    assert result["dice_per_image"]["base"][0][0] != pytest.approx(expected)


def test_unknown_image(run):
    with pytest.raises(SystemExit, match="no test image is called Image_01L; there are Image_05L"):
        run("--names", "Image_01L")
