"""The documentation's site, commands that its pages print, and where the results on file come from."""

import importlib
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from matrix.plan import read_matrix
from matrix.tables import write_tables

from tests.bundles.helpers import SMALL, flatten
from tests.conftest import ROOT
from tests.data.fakes import draw
from tests.pages import commands, run_command
from topolora_monai.cli import main

DOCS = ROOT / "docs"
MADE = {"bundle.md", "changelog.md", "contributing.md"}
"""Pages that are made of files elsewhere in the tree."""


def _nav():
    def pages(entry):
        if isinstance(entry, str):
            return [entry]
        children = entry.values() if isinstance(entry, dict) else entry
        return [page for child in children for page in pages(child)]

    return pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])


def test_nav_names_every_page_once():
    pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    assert sorted(_nav()) == sorted([*pages, *MADE])


def test_reference_has_every_public_package():
    packages = {path.parent.name for path in (ROOT / "topolora_monai").glob("*/__init__.py")}
    assert packages - {"cli", "label_app"} == {path.stem for path in (DOCS / "reference").glob("*.md")} - {
        "index",
        "errors",
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built strictly: a warning is an error."""
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip('mkdocs is not installed: pip install "topolora_monai[docs]"')
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_site_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|iframe|source)[^>]*\ssrc=\"([^\"]+)|<link[^>]*\shref=\"([^\"]+)", page.read_text()
        )
        assert not [address for pair in loaded for address in pair if "//" in address], page


def test_site_has_results_and_links_to_them(site):
    assert (site / "results/drive_baselines.json").is_file()
    assert 'href="results/drive_baselines.json"' in (site / "choosing.html").read_text()


def test_reference_has_every_public_function_and_class(site):
    missing = []
    for page in (DOCS / "reference").glob("*.md"):
        anchors = re.findall(r'id="([\w.]+)"', (site / f"reference/{page.stem}.html").read_text())
        ends = {anchor.rpartition(".")[2] for anchor in anchors}
        for name in re.findall(r"^::: (topolora_monai\.\w+)$", page.read_text(), flags=re.MULTILINE):
            package = importlib.import_module(name)
            missing += [
                f"{name}.{public}"
                for public in package.__all__
                if (inspect.isclass(value := getattr(package, public)) or inspect.isfunction(value))
                and public not in ends
            ]
    assert not missing


@pytest.mark.parametrize("page", ["papers", "methods", "topology", "choosing", "tutorials/extend"])
def test_names_in_running_text_exist(page):
    text = re.sub(r"```.*?```", "", (DOCS / f"{page}.md").read_text(), flags=re.DOTALL)
    for name in set(re.findall(r"`(topolora_monai\.[\w.]+)`", text)):
        module, _, last = name.rpartition(".")
        assert hasattr(importlib.import_module(module), last), name


def test_results_are_what_the_runs_on_file_say():
    """`python scripts/benchmark_matrix.py scripts/matrices/suite.yaml --table_only` writes them anew."""
    matrix = read_matrix(ROOT / "scripts/matrices/suite.yaml")
    for path, text in write_tables(matrix, ROOT / "results/suite", ROOT, "scripts/matrices/suite.yaml").items():
        assert path.read_text() == text, path


def test_data_commands_run_as_printed(tmp_path, monkeypatch, capsys):
    draw("drive", tmp_path / "DRIVE")
    monkeypatch.chdir(tmp_path)
    assert len(commands("docs/data.md")) == 5
    for words in commands("docs/data.md"):
        assert words[0] == "topolora"
        assert main(words[1:]) == 0, capsys.readouterr()
    assert (tmp_path / "preview.png").is_file()
    assert (tmp_path / "drive.json").is_file()


def test_planning_commands_run_as_printed(tmp_path, monkeypatch, capsys):
    draw("drive", tmp_path / "DRIVE")
    monkeypatch.chdir(tmp_path)
    for words in commands("docs/planning.md"):
        assert words[:2] == ["topolora", "plan"]
        assert main(words[1:]) == 0
    assert capsys.readouterr().out.endswith((tmp_path / "plan.yaml").read_text())


def test_method_commands_run_as_printed(tmp_path, fake_drive):
    *counting, training = commands("docs/methods.md")
    assert len(counting) == 2
    for words in counting:
        assert words[0] == "topolora"
        assert main(words[1:]) == 0
    small = {name: value for name, value in SMALL.items() if name != "network_name"} | {"epochs": 1}
    small |= {"output_dir": "run", "data#allow_partial": True}
    run_command([*training, *flatten(small)], tmp_path)
    adaptation = json.loads((tmp_path / "run/training.json").read_text())["adaptation"]
    assert adaptation["lora"]["first_block"] == -4
    assert adaptation["lora"]["use_dora"] is True
    assert adaptation["decoder_lora"] is not None
    assert adaptation["train_decoder"] is False


def test_topology_commands_run_as_printed(tmp_path, fake_drive):
    *workflows, report = commands("docs/topology.md")
    assert [words[1] for words in workflows] == ["train", "evaluate", "predict"]
    added = {"train": SMALL | {"data#allow_partial": True}, "evaluate": {"precision": "fp32"}}
    for words in workflows:
        run_command([*words, *flatten(added.get(words[1], {"precision": "fp32"}))], tmp_path)
    assert list((tmp_path / "MASKS").glob("*_uncertainty.png"))
    run_command(report, tmp_path)
    assert "risk" in next((tmp_path / "REPORT").glob("*.html")).read_text().lower()


@pytest.mark.parametrize("path", sorted((ROOT / "results").rglob("*.json")), ids=lambda path: path.stem)
def test_results_say_where_they_come_from(path):
    text = path.read_text()
    assert not re.search(r"(?<![\w.])/(root|home|work|tmp|mnt)/", text)
    assert '"commit"' in text
    assert '"hardware"' in text
