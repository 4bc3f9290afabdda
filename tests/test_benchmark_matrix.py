"""The suite of benchmarks: a small one to its end, killed midway; what its tables say."""

import json
import math
import multiprocessing
import time

import benchmark_matrix as suite
import pytest
import yaml
from filelock import FileLock
from matrix import runs, tables
from matrix.plan import Run, planned, read_matrix, training_options

from tests.conftest import ROOT
from tests.data.fakes import draw
from tests.processes import FORKS, start

TINY = {"network_name": "vit_tiny_test"}
TOY = {
    "seeds": [0],
    "training": {
        **{"image_size": 64, "crop_size": 32, "epochs": 2, "crops_per_image": 2, "precision": "fp32"},
        **{"sampling": "uniform", "batch_size": 2, "learning_rate": 1e-3},  # so that nothing is measured first
        **{"data#allow_partial": True, "model#overlap": 0.0, "topology_loss#iterations": 2, "tracker#trackers": []},
    },
    "evaluating": {"pictures": False, "scores": ["cldice", "betti_0_error", "betti_1_error"], "trackers": []},
    "rows": {
        "broken": {**TINY, "preset": "no such preset", "only_on": ["drive"]},
        "lora": {**TINY, "preset": "lora"},
        "conv_lora": {**TINY, "preset": "conv_lora", "epochs": 8, "title": "Conv-LoRA"},
        "little_wnet": {"network_name": "little_wnet", "budget_minutes": 0.2},
        "elsewhere": {**TINY, "weights": "nowhere/base.pt"},
    },
    "validations": 2,
}
KILLED = "drive_conv_lora_seed0"


def _suite(words):
    """In a process that has the heavy libraries loaded, so that its own need no server to begin from."""
    runs.context = lambda: multiprocessing.get_context("fork")
    suite.main(words)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Two drawn data sets and a matrix; the suite was killed while it trained, and then finished."""
    if not FORKS:
        pytest.skip("this system cannot fork")
    folder = tmp_path_factory.mktemp("toy")
    data = {
        "drive": {"title": "Vessels", "training": {"dataset_name": "drive"}},
        "mortar": {
            "training": {"dataset_name": "topomortar"},
            "parts": {"in": ["indistr"], "out": ["graffiti", "objects"]},
        },
    }
    for name, every in (("drive", 4), ("topomortar", 12)):
        about = next(one for one in data.values() if one["training"]["dataset_name"] == name)
        about["training"]["dataset_dir"] = str(draw(name, folder / name, every))
    (folder / "toy.yaml").write_text(yaml.safe_dump({**TOY, "data": data}, sort_keys=False))
    words = [str(folder / "toy.yaml"), "--output_dir", str(folder / "runs"), "--results", str(folder / "results")]
    process = start(_suite, words)
    run = folder / "runs" / KILLED
    while not (run / "last.pt").exists():
        assert process.is_alive(), "it ended without training what was to be killed"
        time.sleep(0.01)
    process.kill()
    process.join()
    with FileLock(run / ".lock", timeout=60):  # its child has ended as well
        assert not (run / "training.json").exists()
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "results").iterdir()}
    suite.main(words)
    return folder, words, before


def _records(folder):
    return {path.stem: json.loads(path.read_text()) for path in (folder / "results").glob("*.json")}


def test_killed_suite_goes_on_to_the_end(toy):
    folder, _, before = toy
    records = _records(folder)
    finished = {name for name, record in records.items() if "test" in record}
    assert finished == {
        f"{data}_{row}_seed0" for data in ("drive", "mortar") for row in ("lora", "conv_lora", "little_wnet")
    }
    assert before  # finished before the kill, and not repeated after it
    for name, stamp in before.items():
        if name.removesuffix(".json") in finished:
            assert (folder / "results" / name).stat().st_mtime_ns == stamp
    assert "unknown preset" in records["drive_broken_seed0"]["failed"]
    assert records["mortar_elsewhere_seed0"]["missing"] == "weights not to be had: no file nowhere/base.pt"


def test_killed_run_gives_what_one_without_interruption_gives(toy):
    folder, words, _ = toy
    again = str(folder / "again")
    suite.main([words[0], "--output_dir", again, "--results", again, "--only", "drive/conv_lora"])
    fresh, resumed = json.loads((folder / f"again/{KILLED}.json").read_text()), _records(folder)[KILLED]
    for told in ("test", "validation", "per_image", "best_epoch", "trainable"):
        assert fresh[told] == resumed[told]


def test_a_record_says_how_it_was_made(toy):
    folder, *_ = toy
    for record in _records(folder).values():
        assert record["commit"]
        assert record["hardware"]
    record = _records(folder)["drive_little_wnet_seed0"]
    assert record["budget_minutes"] == 0.2
    assert record["processor_seconds"].keys() == {"probe", "training", "evaluating"}
    assert 0 < record["processor_seconds"]["training"] < 60
    told = record["probe"]["settings"]["options"]
    assert f"--epochs {told['epochs']} " in record["command"]
    assert f"--train#sampler#items {told['train#sampler#items']}" in record["command"].replace("'", "")
    assert str(folder / "runs") not in record["command"]
    assert record["seconds_per_image"] > 0
    assert len(record["per_image"]["dice"]) == record["images"]["test"]


def test_tables_are_written(toy, capsys):
    folder, words, _ = toy
    suite.main([*words, "--table_only"])
    page, tex = (folder / "results/table.md").read_text(), (folder / "results/tables.tex").read_text()
    assert "6 of 9 runs are on file" in page
    for title in ("## Vessels", "## mortar, in", "## mortar, out", "| Conv-LoRA | [0]("):
        assert title in page
    for text in (page, tex):
        assert "failed: training ended with status 1: unknown preset" in text
        assert "weights not to be had" in text
    assert page.count("**") // 2 >= 3 * 5  # the best of every column
    assert tex.count(r"\textbf") == page.count("**") // 2 - LEGEND_BOLD
    assert r"conv\_lora" not in tex


LEGEND_BOLD = tables.LEGEND.count("**") // 2


def _record(run, shift=0.0, **changes):
    names = [f"{number:02d}" for number in range(12)]
    dice = [0.7 + 0.01 * number + shift for number in range(12)]
    images = {"name": names, "group": ["a", "b"] * 6, "dice": dice, "cldice": dice, "betti_0_error": [2 - shift] * 12}
    return {
        **run._asdict(),
        **{"test": {"dice": 0.8 + shift}, "per_image": images, "trainable": 1234, "seconds_per_image": 0.5},
        **{"processor_seconds": {"training": 120.0}, "best_epoch": 3, "epochs": 4, "budget_minutes": 2},
        **{"hardware": "a core", "commit": "abc", "command": "python -m monai.bundle run training"},
        **changes,
    }


@pytest.fixture
def measured(tmp_path):
    matrix = {
        **{"name": "made", "seeds": [0], "more_seeds": {"one/good": [1]}, "skip": {"*/never": "too large"}},
        **{"scores": ["dice", "cldice", "betti_0_error"], "validations": 2},
        "data": {"one": {"pooled": True}, "two": {"parts": {"inside": ["a"]}}},
        "rows": {"good": {}, "alike": {}, "bad": {}, "never": {}, "failing": {}},
    }
    shifts = {"good": 0.02, "alike": 0.02, "bad": -0.1}
    records = [_record(run, shifts[run.row]) for run in planned(matrix) if run.row in shifts and run.data == "one"]
    for record in records:
        if record["row"] == "alike":
            record["per_image"]["dice"] = [
                v + (0.01 if n % 2 else -0.0101) for n, v in enumerate(record["per_image"]["dice"])
            ]
        record["test"]["dice"] += 0.01 * record["seed"]
    records.append({**Run("one", "failing", 0)._asdict(), "failed": "training ended: no memory"})
    for record in records:
        (tmp_path / f"{record['data']}_{record['row']}_seed{record['seed']}.json").write_text(json.dumps(record))
    return matrix, tmp_path


def _rows(table):
    return {row[0].text: row for row in table.rows}


def test_best_and_what_is_not_told_apart_from_it_are_marked(measured):
    matrix, folder = measured
    table, _ = tables.Results(matrix, folder).tables()
    rows, dice = _rows(table), list(table.head).index("Dice")
    assert [rows[row][dice].mark for row in ("good", "alike", "bad")] == ["best", "like best", ""]
    assert rows["good"][dice - 1].text == "0.825 ± 0.007"
    assert rows["good"][dice].text.startswith("0.775 ± 0.000 (0.75")
    betti = list(table.head).index("Betti-0 error")
    assert (rows["good"][betti].mark, rows["bad"][betti].mark) == ("best", "")  # of errors the least
    assert "**0.825 ± 0.007**" in tables.markdown(table)
    assert r"\textbf{0.825 $\pm$ 0.007}" in tables.latex(table)


def test_missing_cells_say_why(measured):
    matrix, folder = measured
    one, two = tables.Results(matrix, folder).tables()
    reasons = {row[0].text: row[2].text for row in one.rows}
    assert reasons["never"] == "too large"
    assert reasons["failing"] == "failed: training ended: no memory"
    assert {row[2].text for row in two.rows} == {"not run yet", "too large"}
    assert two.title == "two, inside"


def test_short_table_has_what_was_measured(measured):
    matrix, folder = measured
    table = tables.Results(matrix, folder).short()
    assert list(table.head) == ["network", "trained", "one"]
    assert [row[0].text for row in table.rows] == ["good", "alike", "bad"]
    assert table.rows[0][2] == ("0.825 / 0.775", "best")
    assert tables.Results(matrix, folder / "nothing").short() is None


def test_a_training_fills_its_budget():
    probe = {"step_seconds": 2.0, "validation_seconds": 12.0, "startup_seconds": 20.0, "batch_size": 2, "images": 16}
    options = runs.fitted(probe, budget_minutes=10, validations=10)
    steps = options["epochs"] * options["train#sampler#items"] / 2
    assert options["epochs"] == 10
    assert 560 <= 20 + 2.0 * steps + 10 * 12 <= 600
    assert options["crops_per_image"] * 16 >= options["train#sampler#items"]
    slow = runs.fitted({**probe, "validation_seconds": 100.0}, 10, 10)
    assert slow["epochs"] == 1  # validations take a quarter at most
    with pytest.raises(runs.FailedError, match=r"in 0\.4 minutes: startup 20\.0 s, step 2\.0 s"):
        runs.fitted(probe, 0.4, 10)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{only_on: [three]}", "no data are called"),
        ("{on: {one: {}}}", "True of good is no text"),
        ("", "rows missing"),
    ],
)
def test_wrong_matrix_is_refused(tmp_path, row, said):
    rows = f"{{good: {row}}}" if row else "{}"
    (tmp_path / "wrong.yaml").write_text(f"data: {{one: {{}}}}\nrows: {rows}\nseeds: [0]\n")
    with pytest.raises(SystemExit, match=said):
        read_matrix(tmp_path / "wrong.yaml")


def test_options_of_a_row_for_one_data_set_go_before_its_others(tmp_path):
    (tmp_path / "made.yaml").write_text(
        "data: {one: {training: {size: 1, side: 1}}, two: {}}\n"
        "rows: {good: {title: Good, size: 2, per_data: {one: {size: 3}}}}\nseeds: [0]\n"
    )
    matrix = read_matrix(tmp_path / "made.yaml")
    assert training_options(matrix, Run("one", "good", 4)) == {"size": 3, "side": 1, "seed": 4}
    assert training_options(matrix, Run("two", "good", 4)) == {"size": 2, "seed": 4}


def test_every_matrix_on_file_can_be_planned():
    for path in (ROOT / "scripts/matrices").glob("*.yaml"):
        matrix = read_matrix(path)
        assert list(planned(matrix))
        assert not math.isnan(matrix.get("budget_minutes", 0))
