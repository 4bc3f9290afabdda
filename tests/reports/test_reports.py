"""The evaluation report: numbers by hand, files on disk, colours in the picture."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from topolora_monai.cli import main
from topolora_monai.reports import EvaluationReport, SplitScores, comparison_figure, write_summary
from topolora_monai.reports.html import open_runs, write_report


def engine(probability, label, fov, name="scan"):
    target = {"label": label[None], "fov": fov[None]}
    output = [{"pred": probability[None], "label": target, "image": torch.rand(3, *label.shape)}]
    return SimpleNamespace(state=SimpleNamespace(output=output, batch=[{"name": name}]))


@pytest.fixture
def scored(tmp_path):
    label, fov = torch.zeros(20, 30), torch.ones(20, 30)
    label[10, 5:25] = 1
    fov[:, 28:] = 0
    probability = 0.6 * label
    probability[10, 20:25] = 0.3  # five missed at 0.5, all found at 0.25
    probability[3, 5:9] = 0.9  # four false
    probability[:, 28:] = 1.0  # not scored
    validation = SplitScores()
    validation._collect(engine(probability, label, fov))
    report = EvaluationReport(tmp_path / "evaluation", validation.threshold)
    report._start()
    report._score(engine(probability, label, fov))
    report._write()
    return tmp_path, report, validation


def test_scores_by_hand(scored):
    _, report, validation = scored
    assert report.threshold == validation.threshold() < 0.31
    summary = report.summary()
    assert summary["recall"] == 1
    assert summary["precision"] == pytest.approx(20 / 24)
    assert summary["dice_at_half"] == pytest.approx(2 * 15 / (15 + 4 + 20))
    assert summary["cldice"] < 1


def test_table_pictures_and_summary(scored, capsys):
    folder, report, validation = scored
    with (folder / "evaluation/per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["name"] == "scan"
    assert float(rows[0]["dice"]) == pytest.approx(report.summary()["dice"], abs=1e-5)
    assert (folder / "evaluation/pictures/scan.png").stat().st_size > 500
    (folder / "training.json").write_text(json.dumps({"seed": 3, "validation": {}}))
    described = {"dataset": "drive", "partial": "8 of 40 images"}
    write_summary(folder, report, validation, described)
    assert "of a part, 8 of 40 images" in capsys.readouterr().out
    written = json.loads((folder / "evaluation/summary.json").read_text())
    assert written["seed"] == 3
    assert written["evaluated_on"] == described
    assert written["test"].keys() == {
        "dice", "iou", "precision", "recall", "auc", "cldice", "threshold", "dice_at_half", "ece", "brier",
    }  # fmt: skip
    assert written["validation"]["dice"] == validation.summary()["dice"]


NAMES = ("=HYPERLINK(1)", "+a", "-0.5", "@b", "'=c", "plain", "a, b")


@pytest.fixture
def odd(tmp_path):
    """A run with odd names and, on images without foreground, scores that are not defined."""
    report = EvaluationReport(tmp_path / "evaluation", lambda: 0.5, pictures=False)
    report._start()
    for name in NAMES:
        report._score(engine(torch.zeros(8, 9), torch.zeros(8, 9), torch.ones(8, 9), name))
    report._write()
    write_summary(tmp_path, report, SplitScores(), {"dataset": "folder"})
    return tmp_path, report


def test_no_name_is_a_formula_and_readers_get_the_true_one(odd):
    folder, _ = odd
    with (folder / "evaluation/per_image.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert [row[0] for row in rows] == ["'=HYPERLINK(1)", "'+a", "'-0.5", "'@b", "''=c", "plain", "a, b"]
    for cell in (cell for row in rows for cell in row[1:] if cell):
        float(cell)
    assert open_runs([folder])[0].names == NAMES


def test_scores_that_are_not_defined_are_null_and_read_as_such(odd, capsys):
    folder, report = odd
    undefined = [name for name, value in report.summary().items() if np.isnan(value)]
    assert undefined
    text = (folder / "evaluation/summary.json").read_text()
    test = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))["test"]
    assert [name for name, value in test.items() if value is None] == undefined
    (run,) = open_runs([folder])
    assert run.record["test"] == test
    assert main(["compare", str(folder), "--json"]) == 0
    json.loads(capsys.readouterr().out.splitlines()[-1], parse_constant=lambda _: pytest.fail("no JSON"))
    write_report([folder], folder / "report")
    assert (folder / "report/report.html").stat().st_size > 1000
    assert not list((folder / "report").glob(".*"))


def test_threshold_is_half_before_any_image():
    assert SplitScores().threshold() == 0.5


def test_colours_show_every_kind_of_pixel():
    truth, prediction, fov = (np.zeros((40, 60), bool) for _ in range(3))
    truth[10:20, 10:30], prediction[10:20, 20:40], fov[:, :50] = True, True, True
    figure = comparison_figure(np.zeros((1, 40, 60), np.float32), truth, prediction, fov, "caption")
    left, top = figure.width - 60 - 10, 62
    colours = {
        "missed": figure.getpixel((left + 15, top + 15)),
        "right": figure.getpixel((left + 25, top + 15)),
        "false": figure.getpixel((left + 35, top + 15)),
        "background": figure.getpixel((left + 5, top + 5)),
        "outside": figure.getpixel((left + 55, top + 5)),
    }
    assert len(set(colours.values())) == 5
    assert colours["false"] == (213, 94, 0)
