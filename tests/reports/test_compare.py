"""``topolora compare`` and ``topolora report`` on the command line."""

import json

import numpy as np
import pytest

from tests.reports.fake_runs import write_fake_run
from topolora_monai.cli import main


@pytest.fixture
def runs(tmp_path):
    first = write_fake_run(tmp_path / "plain", list("abcdefgh"), pictures=False)
    second = write_fake_run(tmp_path / "[red]topology", list("bcdefghi"), seed=5, pictures=False)
    return str(tmp_path / "plain"), str(tmp_path / "[red]topology"), first, second


def values(rows, score):
    return {row["name"]: float(row[score]) for row in rows}


class TestCompare:
    def test_json_has_means_of_each_and_paired_differences(self, runs, capsys):
        assert main(["compare", *runs[:2], "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        first, second = values(runs[2], "cldice"), values(runs[3], "cldice")
        told = printed["runs"]["plain"]["scores"]["cldice"]
        assert told["mean"] == pytest.approx(np.mean(list(first.values())))
        assert told["low"] < told["mean"] < told["high"]
        (comparison,) = printed["comparisons"]
        assert (comparison["images"], comparison["left_out"]) == (7, 2)
        difference = next(one for one in comparison["differences"] if one["score"] == "cldice")
        changes = [second[name] - first[name] for name in first if name in second]
        assert difference["difference"]["mean"] == pytest.approx(np.mean(changes))
        assert difference["better"] == sum(change > 0 for change in changes)

    def test_terminal_shows_the_same_numbers(self, runs, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "160")
        assert main(["compare", *runs[:2]]) == 0
        printed = capsys.readouterr().out
        first, second = values(runs[2], "dice"), values(runs[3], "dice")
        change = np.mean([second[name] - first[name] for name in first if name in second])
        assert f"{change:+.4f}" in printed
        assert f"{np.mean(list(first.values())):.4f}" in printed
        assert "[red]topology minus plain" in printed
        assert "on the 7 images that both scored; 2 left out" in printed

    def test_further_scores_have_names_and_a_direction(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "160")
        for number, name in enumerate(("first", "second")):
            rows = write_fake_run(tmp_path / name, list("abc"), seed=number, pictures=False, further=True)
        assert main(["compare", str(tmp_path / "first"), str(tmp_path / "second")]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        mean = np.mean([float(row["hd95"]) for row in rows])
        found = [line for line in lines if "HD95" in line]
        assert [line[line.index("HD95") + 1] for line in found] == ["low"] * 3
        assert f"{mean:.4f}" in found[1]
        assert ["Boundary", "F1", "high"] in [line[:3] for line in lines]

    def test_one_run_alone_is_shown(self, runs, capsys):
        assert main(["compare", runs[0], "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["comparisons"] == []

    def test_runs_without_a_common_image(self, tmp_path, capsys):
        for name in "ab":
            write_fake_run(tmp_path / name, [name], pictures=False)
        assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
        assert "share no image" in capsys.readouterr().out
        assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["comparisons"][0]["differences"][0]["p_value"] is None
        assert main(["report", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "out")]) == 0
        assert "share no image" in (tmp_path / "out/report.html").read_text(encoding="utf-8")

    def test_error_says_what_to_do(self, tmp_path, capsys):
        assert main(["compare", str(tmp_path)]) == 1
        assert "score it first" in capsys.readouterr().err


def test_report_command_names_what_it_wrote(runs, tmp_path, capsys):
    assert main(["report", *runs[:2], "--out", str(tmp_path / "out")]) == 0
    assert str(tmp_path / "out/report.html") in capsys.readouterr().out
    text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    change = np.mean([values(runs[3], "dice")[n] - values(runs[2], "dice")[n] for n in "bcdefgh"])
    assert f'<td class="n strong">{change:+.4f}</td>' in text
    assert '<span class="differs">differs</span>' in text  # the seeds
