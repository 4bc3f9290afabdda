"""Commands that the pages in docs/ print, and what they claim of the data sets."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys

import pytest
import yaml

from tests.bundles.helpers import BUNDLE, SMALL, flatten
from tests.conftest import ROOT
from tests.data.fakes import draw
from topolora_monai.cli import main
from topolora_monai.data import BENCHMARKS
from topolora_monai.reports import IMAGE_SCORES

DATA = (ROOT / "docs/data.md").read_text()
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


def test_method_commands_run_as_printed(tmp_path):
    *counting, training = printed_commands(METHODS)
    assert len(counting) == 2
    for words in counting:
        assert words[0] == "topolora"
        assert main(words[1:]) == 0
    small = SMALL | {"epochs": 1, "network_name": training[training.index("--network_name") + 1]}
    words = [sys.executable, *training[1:], *flatten(small), "--output_dir", str(tmp_path / "run")]
    done = subprocess.run(words, cwd=BUNDLE, capture_output=True, text=True, check=False)
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
        done = subprocess.run([sys.executable, *words[1:], *flatten(more)], cwd=BUNDLE, capture_output=True, text=True,
                              check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert list((tmp_path / "masks").glob("*_uncertainty.png"))
    assert main(report[1:]) == 0
    assert "risk" in next((tmp_path / "report").glob("*.html")).read_text().lower()


def test_knobs_and_scores_of_topology_are_those_of_the_bundle():
    losses = set(re.findall(r"`(\w+_weight)`", TOPOLOGY))
    knobs = yaml.safe_load((BUNDLE / "configs/train.yaml").read_text())
    assert losses == {name for name in knobs if name.endswith("_weight")} - {"conv_lora_balance_weight"}
    table = TOPOLOGY.partition("## Scores")[2].partition("Foreground pixels")[0]
    named = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE))))
    assert named >= set(IMAGE_SCORES)


def test_table_of_data_sets_is_that_of_the_package():
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (\d+) \| ([^|]+) \|$", DATA, flags=re.MULTILINE)
    assert [name for name, _, _ in rows] == list(BENCHMARKS)
    for name, images, schemes in rows:
        facts = BENCHMARKS[name].facts
        assert int(images) == sum(next(iter(facts.counts.values())))
        assert re.findall(r"`([^`]+)`", schemes) == list(facts.counts)


def test_what_can_be_downloaded_is_named():
    named = re.search(r"checksum of\n\(([^)]+)\)", DATA).group(1)
    free = [
        name
        for name, kind in BENCHMARKS.items()
        if kind.facts.archives and all(archive.url and archive.sha256 for archive in kind.facts.archives)
    ]
    assert re.findall(r"`(\w+)`", named) == free


@pytest.mark.parametrize("name", ["scene_20000.json", "data_loading_drive.json"])
def test_linked_results_exist(name):
    assert f"../results/{name}" in DATA
    assert (ROOT / "results" / name).is_file()


@pytest.mark.parametrize(("dataset", "column"), [("drive", 0), ("kvasir", 2)])
def test_scores_of_methods_are_those_measured(dataset, column):
    """The runs' file, and what the page prints of it."""
    runs = json.loads((ROOT / f"results/{dataset}_methods.json").read_text())["runs"]
    printed = dict(re.findall(r"^\| `(\w+)` \| ((?:0\.\d{3} \| ){3}0\.\d{3}) \|$", METHODS, flags=re.MULTILINE))
    assert printed.keys() == runs.keys()
    for name, run in runs.items():
        shown = printed[name].split(" | ")[column : column + 2]
        assert shown == [f"{run['test'][key]:.3f}" for key in ("dice", "cldice")]


def test_tables_of_losses_are_those_on_file():
    specification = importlib.util.spec_from_file_location("losses_table", ROOT / "scripts/losses_table.py")
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    results = {name: json.loads(path.read_text()) for name, path in script.RESULTS.items()}
    assert script.page(TOPOLOGY, results) == TOPOLOGY
    for result in results.values():
        settings = [
            (run["epochs"], run["batch_size"], run["crop_size"], run["trainable"]) for run in result["runs"].values()
        ]
        assert len(set(settings)) == 1


def test_default_losses_are_those_that_helped():
    """The default of the topology term is the one the page's conclusion names, and beats plain in every table."""
    default = yaml.safe_load((BUNDLE / "configs/train.yaml").read_text())["cldice_weight"]
    assert default == "$0.5 if @published else 1.0"
    for name in ("drive", "chase_db1"):
        runs = json.loads((ROOT / f"results/{name}_losses.json").read_text())["runs"]
        against = runs["cldice_1.0"]["against_reference"]
        assert against["cldice"]["low"] > 0
        assert against["betti_matching_error"]["high"] < 0


def test_measurements_of_the_label_page_are_those_on_file():
    page = (ROOT / "docs/label.md").read_text()
    clicks = json.loads((ROOT / "results/clicks_chase_db1.json").read_text())["dice"]
    for name, kind in (("adapted", "adapted"), ("base without adapter", "base")):
        row = " | ".join(f"{value:.4f}" for value in clicks[kind].values())
        assert f"| {name} | {row} |" in page
    assert all(clicks["adapted"][count] > value for count, value in clicks["base"].items())

    server = json.loads((ROOT / "results/label_server_vit_t.json").read_text())
    first, memory, clients = server["first_mask_seconds"], server["memory_bytes"], server["clients"]
    words = " ".join(page.split())
    assert (
        f"first mask {min(first):.1f} to {max(first):.1f} s; click {1000 * server['click_seconds']['median']:.0f} ms"
        in words
    )
    together, in_turn = clients["seconds_together"], clients["seconds_in_turn"]
    assert f"take {together:.1f} s where one after the other would take {in_turn:.1f};" in words
    assert f"memory grows by {memory['at_the_end'] / memory['after_warm_up'] - 1:.1%}".replace("%", " %") in words

    retrained = json.loads((ROOT / "results/retraining_drive.json").read_text())
    minutes, seconds = divmod(round(retrained["seconds"]), 60)
    assert f"took {minutes} min {seconds} s on the same cores" in words
    assert "rose from {before:.3f} to {after:.3f}".format(**retrained["dice"]) in words


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*.json")), ids=lambda path: path.stem)
def test_results_say_where_they_come_from(path):
    text = path.read_text()
    assert not re.search(r"(?<![\w.])/(root|home|work|tmp|mnt)/", text)
    assert '"commit"' in text
    assert '"hardware"' in text
