"""The commands and the example that the README prints."""

import re
import shlex
import shutil
import subprocess

import pytest
import torch

from tests.bundles.helpers import flatten
from tests.conftest import ROOT
from tests.data.fakes import draw
from tests.pages import blocks, commands, replaced, run_command
from tests.processes import run_module
from topolora_monai.networks import build_network

SMALL = {"image_size": 64, "crop_size": 32, "epochs": 1, "crops_per_image": 1, "precision": "fp32"}
SCORING = {"precision": "fp32", "overlap": 0.0}


def test_commands_run_as_printed(tmp_path):
    """In order, in an empty folder, with a random checkpoint in the published format and a size that fits a test."""
    torch.save(build_network("vit_t").state_dict(), tmp_path / "mobile_sam.pt")
    _own_images(tmp_path)
    added = {"train": SMALL, "evaluate": SCORING, "predict": SCORING}
    for page in ("README.md", "docs/index.md"):
        for words in commands(page):
            if words[0] == "make" or words[1:3] == ["weights", "fetch"]:  # needs the network
                continue
            if words[1] == "compare":
                shutil.copytree(tmp_path / "runs/vessels", tmp_path / "runs/other")
            run = replaced(words, {"--weights": "mobile_sam.pt"})
            run_command([*run, *flatten(added.get(words[1], {}))], tmp_path)
        assert (tmp_path / "runs/vessels/evaluation/summary.json").is_file()
        assert list((tmp_path / "masks").glob("*_mask.png"))
        assert list((tmp_path / "report").glob("*.html"))
        if page == "README.md":
            assert len(list((tmp_path / "masks").glob("*_mask.png"))) == 2
            assert (tmp_path / "vessels-bundle/models/model.pt").is_file()
            assert (tmp_path / "vessels.safetensors").is_file()
            shutil.rmtree(tmp_path / "runs")
            shutil.rmtree(tmp_path / "report")


def _own_images(folder):
    """What the README and the first page ask their readers for."""
    drive = draw("drive", folder / "DRIVE", every=4)
    for number, image in enumerate(sorted(drive.glob("training/images/*"))):
        for kind, source in (("images", image), ("masks", drive / f"training/1st_manual/{image.name[:2]}_manual1.gif")):
            place = folder / "vessels" / kind / f"{number:02d}{source.suffix}"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, place)
    (folder / "photos").mkdir()
    for image in sorted(drive.glob("test/images/*"))[:2]:
        shutil.copy(image, folder / "photos")
    from PIL import Image

    Image.open(next((folder / "photos").iterdir())).save(folder / "photo.png")


def test_make_targets_exist():
    targets = [words[1] for words in commands("README.md") if words[0] == "make"]
    assert targets == ["train", "test"]
    for target in (*targets, "docs"):
        done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_python_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = (block for block in blocks("README.md") if block.language == "python")
    exec(compile(example.text, "README.md", "exec"), {})


def test_it_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "bundles/topolora_sam_segmentation/docs/README.md"]
PAGES += sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("name", PAGES)
def test_links_within_the_repository_lead_somewhere(name):
    """On a code host; those of the site are checked where it is built."""
    made = {"bundle.md", "changelog.md", "contributing.md"}  # of files elsewhere, for the site
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", text):
        assert target.rpartition("/")[2] in made or ((ROOT / name).parent / target).exists(), target


def test_params_command():
    text = (ROOT / "README.md").read_text()
    printed = re.search(r"`topolora (params [^`]+)`", text).group(1)
    done = run_module("topolora_monai.cli", *shlex.split(printed), "--json")
    assert done.returncode == 0, done.stderr
    assert '"published_trainable": 4929508' in done.stdout
    done = run_module("topolora_monai.cli", "params", "--preset", "topolorra")
    assert done.returncode == 1
    assert "did you mean topolora" in done.stderr
