"""The wheel alone is enough: every step from data to a released bundle, in a folder far from the source tree."""

import doctest
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import topolora_monai
from tests.bundles.helpers import SMALL, flatten
from tests.conftest import ROOT

SETUPTOOLS = int(importlib.metadata.version("setuptools").partition(".")[0])
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
SOURCES = ("topolora_monai", "bundles", "pyproject.toml", "setup.py", "README.md", "LICENSE")
EXAMPLE = "\n".join(example.source for example in doctest.DocTestParser().get_examples(topolora_monai.__doc__))
TINY = SMALL | {"epochs": 1, "crop_size": 256}
IMAGE = "../cache/topolora_monai/synthetic_vessels/v1-seed0/test/images/21.png"
COMMANDS = [
    ["topolora", "data", "list"],
    ["topolora", "train", "synthetic_vessels", *flatten(TINY | {"seed": 3})],
    ["topolora", "evaluate", "runs/synthetic_vessels", "--precision", "fp32", "--scores", "[cldice]"],
    ["topolora", "predict", IMAGE, "--adapter", "runs/synthetic_vessels", "--out", "masks"],
    ["topolora", "release", "--run", "runs/synthetic_vessels", "--out", "vessels"],
    ["topolora", "bundle", "recipes"],
    ["monai.bundle", "run", "training", "--config_file", "recipes/configs/train.yaml",
     "--output_dir", "again", *flatten(TINY)],
    ["python", EXAMPLE],
]  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    if SETUPTOOLS < 77:
        pytest.skip(f"needs setuptools 77 to build a wheel without network, found {SETUPTOOLS}")
    folder = tmp_path_factory.mktemp("installed")
    (folder / "source").mkdir()
    for name in SOURCES:  # building leaves files in the tree
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / "source" / name)
    wheel = [*PIP, "wheel", str(folder / "source"), "--no-deps", "--no-build-isolation", "--wheel-dir", "wheels"]
    subprocess.run(wheel, cwd=folder, check=True)
    (built,) = (folder / "wheels").iterdir()
    subprocess.run([*PIP, "install", "--no-deps", "--target", "site", str(built)], cwd=folder, check=True)
    shutil.rmtree(folder / "source")
    shutil.copy(ROOT / "tests/installed_program.py", folder)
    (folder / "away").mkdir()
    (folder / "commands.json").write_text(json.dumps(COMMANDS))
    environment = os.environ | {"PYTHONPATH": str(folder / "site"), "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, str(folder / "installed_program.py"), str(folder / "commands.json")],
        cwd=folder / "away", env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "commands.json").read_text())
    assert Path(found["file"]).is_relative_to(folder / "site")
    return folder / "away", found["results"]


def test_every_command_ends_well(results):
    _, done = results
    assert all(one["status"] == 0 for one in done), done[-1]["printed"]
    assert len(done) == len(COMMANDS)


def test_what_they_leave(results):
    folder, _ = results
    for name in ("runs/synthetic_vessels/adapter.safetensors", "runs/synthetic_vessels/evaluation/summary.json",
                 "masks/21_mask.png", "vessels/models/model.pt", "recipes/LICENSE",
                 "again/adapter.safetensors"):  # fmt: skip
        assert (folder / name).is_file(), name


def test_what_they_say_leads_on(results):
    printed = {" ".join(one["words"][:2]): one["printed"] for one in results[1]}
    assert "topolora evaluate runs/synthetic_vessels" in printed["topolora train"]
    assert "images to learn from" in printed["topolora train"]
    assert "on validation" in printed["topolora train"]
    assert "masks are in masks" in printed["topolora predict"]
    for of in ("topolora train", "topolora evaluate", "topolora predict"):
        assert "INFO" not in printed[of]
        assert "Warning" not in printed[of], printed[of]
    assert "input summary" in printed["monai.bundle run"]
