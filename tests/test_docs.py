"""Commands that the pages in docs/ print, and where the results on file come from."""

import json
import re
import shlex

import pytest

from tests.bundles.helpers import BUNDLE, SMALL, flatten
from tests.conftest import ROOT
from tests.data.fakes import draw
from tests.processes import run_module
from topolora_monai.cli import main

DATA = (ROOT / "docs/data.md").read_text()
PLANNING = (ROOT / "docs/planning.md").read_text()
METHODS = (ROOT / "docs/methods.md").read_text()
TOPOLOGY = (ROOT / "docs/topology.md").read_text()


def printed_commands(page: str) -> list[list[str]]:
    text = "".join(re.findall(r"```bash\n(.*?)```", page, flags=re.DOTALL)).replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line.strip()]


def test_data_commands_run_as_printed(tmp_path, monkeypatch, capsys):
    draw("drive", tmp_path / "DRIVE")
    monkeypatch.chdir(tmp_path)
    assert len(printed_commands(DATA)) == 5
    for words in printed_commands(DATA):
        assert words[0] == "topolora"
        assert main(words[1:]) == 0, capsys.readouterr()
    assert (tmp_path / "preview.png").is_file()
    assert (tmp_path / "drive.json").is_file()


def test_planning_commands_run_as_printed(tmp_path, monkeypatch, capsys):
    draw("drive", tmp_path / "DRIVE")
    monkeypatch.chdir(tmp_path)
    for words in printed_commands(PLANNING):
        assert words[:2] == ["topolora", "plan"]
        assert main(words[1:]) == 0
    assert capsys.readouterr().out.endswith((tmp_path / "plan.yaml").read_text())


def test_method_commands_run_as_printed(tmp_path, fake_drive):
    *counting, training = printed_commands(METHODS)
    assert len(counting) == 2
    for words in counting:
        assert words[0] == "topolora"
        assert main(words[1:]) == 0
    small = SMALL | {"epochs": 1, "network_name": training[training.index("--network_name") + 1]}
    small |= {"dataset_name": "drive", "dataset_dir": fake_drive, "data#allow_partial": True}
    assert training[:3] == ["python", "-m", "monai.bundle"]
    done = run_module("monai.bundle", *training[3:], *flatten(small), "--output_dir", tmp_path / "run", cwd=BUNDLE)
    assert done.returncode == 0, done.stderr
    adaptation = json.loads((tmp_path / "run/training.json").read_text())["adaptation"]
    assert adaptation["lora"]["first_block"] == -4
    assert adaptation["lora"]["use_dora"] is True
    assert adaptation["decoder_lora"] is not None
    assert adaptation["train_decoder"] is False


def test_topology_commands_run_as_printed(tmp_path, fake_drive):
    *workflows, report = printed_commands(TOPOLOGY)
    assert [words[4] for words in workflows] == ["training", "evaluating", "inferring"]
    placed = {"RUN": str(tmp_path / "run"), "MASKS": str(tmp_path / "masks"), "REPORT": str(tmp_path / "report")}
    for words in [*workflows, report]:
        for at, word in enumerate(words):
            name, slash, rest = word.partition("/")
            words[at] = placed.get(name, name) + slash + rest
    for words, more in zip(
        workflows,
        (SMALL | {"dataset_name": "drive", "dataset_dir": fake_drive, "data#allow_partial": True},
         {"dataset_dir": fake_drive, "precision": "fp32"}, {"precision": "fp32"}), strict=True,
    ):  # fmt: skip
        done = run_module("monai.bundle", *words[3:], *flatten(more), cwd=BUNDLE)
        assert done.returncode == 0, done.stderr
    assert list((tmp_path / "masks").glob("*_uncertainty.png"))
    assert main(report[1:]) == 0
    assert "risk" in next((tmp_path / "report").glob("*.html")).read_text().lower()


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*.json")), ids=lambda path: path.stem)
def test_results_say_where_they_come_from(path):
    text = path.read_text()
    assert not re.search(r"(?<![\w.])/(root|home|work|tmp|mnt)/", text)
    assert '"commit"' in text
    assert '"hardware"' in text
