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
from tests.processes import run_module
from topolora_monai.networks import build_network

README = (ROOT / "README.md").read_text()
SMALL = {"image_size": 64, "crop_size": 32, "epochs": 1, "crops_per_image": 1, "precision": "fp32"}
AFTER_A_RUN = ("release", "report", "compare")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


def test_bundle_commands_run_as_printed(tmp_path):
    """Real options, a random checkpoint in the published format, and a size that fits a test."""
    torch.save(build_network("vit_t").state_dict(), tmp_path / "mobile_sam.pt")
    draw("drive", tmp_path / "DRIVE", every=4)
    bundle_commands = [words for words in commands() if "monai.bundle" in words]
    assert [words[4] for words in bundle_commands] == ["training", "evaluating", "inferring"]
    for printed in bundle_commands:
        words = list(printed)
        known = (
            SMALL | {"data#allow_partial": True} if words[4] == "training" else {"precision": "fp32", "overlap": 0.0}
        )
        words[6] = str(ROOT / words[6])
        done = run_module("monai.bundle", *words[3:], *flatten(known), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/drive/evaluation/summary.json").is_file()
    assert len(list((tmp_path / "masks").glob("*_mask.png"))) == 5
    shutil.copytree(tmp_path / "runs/drive", tmp_path / "runs/other")
    looked_at = [words for words in commands() if words[:2] in (["topolora", what] for what in AFTER_A_RUN)]
    assert [words[1] for words in looked_at] == list(AFTER_A_RUN)
    for words in looked_at:
        done = run_module("topolora_monai.cli", *words[1:], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "vessels/models/model.pt").is_file()
    assert list((tmp_path / "report").glob("*.html"))


def test_make_targets_exist():
    targets = [words[1] for words in commands() if words[0] == "make"]
    assert targets == ["train", "test"]
    for target in targets:
        done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_python_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), {})


PAGES = [
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/data.md", "docs/methods.md", "docs/export.md"),
    *("docs/topology.md", "docs/label.md"),
    "bundles/topolora_sam_segmentation/docs/README.md",
]


@pytest.mark.parametrize("name", PAGES)
def test_links_within_the_repository_lead_somewhere(name):
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", text):
        assert ((ROOT / name).parent / target).exists(), target


def test_params_command():
    printed = re.search(r"`topolora (params [^`]+)`", README).group(1)
    done = run_module("topolora_monai.cli", *shlex.split(printed), "--json")
    assert done.returncode == 0, done.stderr
    assert '"published_trainable": 4929508' in done.stdout
    done = run_module("topolora_monai.cli", "params", "--preset", "topolorra")
    assert done.returncode == 1
    assert "did you mean topolora" in done.stderr
