"""The HTML report: numbers of the run's files, safe text, nothing outside the folder."""

import base64
import hashlib
import html
import json
import math
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.reports.fake_runs import SIZE, masks, write_fake_run
from topolora_monai.errors import DataError, OutputError
from topolora_monai.metrics import ThresholdCurve
from topolora_monai.reports import EvaluationReport, curve_points, find_layers, write_layers
from topolora_monai.reports.colours import ERROR_COLOURS
from topolora_monai.reports.html import compare_runs, mean_interval, open_runs, write_report
from topolora_monai.reports.html.charts import nice_ticks
from topolora_monai.reports.html.pictures import topology_errors
from topolora_monai.reports.html.scores import lower_is_better, score_title

NASTY = ["<script>window.hacked=1</script>", '"><img src=x onerror="window.hacked=1">', "&amp; [red] $(x) ünï 血管"]


class Page(HTMLParser):
    """Tables as lists of cells, by their id, and every address the page names."""

    def __init__(self, path):
        super().__init__()
        self.tables, self.addresses, self.scripts = {}, [], []
        self.cell = self.table = self.script = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.addresses += [found[key] for key in ("src", "href") if found.get(key)]
        if tag == "table":
            self.table = self.tables.setdefault(found.get("id") or f"table {len(self.tables)}", [])
        elif tag == "tr":
            self.table.append([])
        elif tag in ("td", "th"):
            self.cell = ""
        elif tag == "script":
            self.script = ""

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.table[-1].append(" ".join(self.cell.split()))
            self.cell = None
        elif tag == "script":
            self.scripts.append(self.script)
            self.script = None

    def handle_data(self, text):
        if self.cell is not None:
            self.cell += text
        if self.script is not None:
            self.script += text


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    rows = write_fake_run(folder / "run", ["a", "b", "c10", "c9"], tensorboard=True)
    page = write_report([folder / "run"], folder / "out")
    return SimpleNamespace(folder=folder, rows=rows, path=page, page=Page(page), text=page.read_text(encoding="utf-8"))


class TestPage:
    def test_table_of_images_has_the_numbers_of_the_csv(self, one):
        head, *rows = one.page.tables["table"]
        assert head == ["Image", "Dice", "clDice", "Betti-0 error", "Broken links", "False links", "False parts"]
        assert rows == [
            [
                row["name"],
                f"{float(row['dice']):.4f}",
                f"{float(row['cldice']):.4f}",
                row["betti_0_error"],
                "1",
                "0",
                "1",
            ]
            for row in one.rows
        ]

    def test_summary_has_pooled_score_mean_and_extremes(self, one):
        rows = {row[0]: row for row in one.page.tables["summary"][1:]}
        values = [float(row["dice"]) for row in one.rows]
        assert rows["Dice"][1:4] == ["high", "0.8123", f"{np.mean(values):.4f}"]
        assert rows["Dice"][5:] == [f"{min(values):.4f}", f"{max(values):.4f}", "4"]
        assert rows["clDice"][2] == "\u2013"  # not in summary.json
        assert rows["Betti-0 error"][1] == "low"

    def test_facts_are_told_in_words(self, one):
        facts = {row[0]: row[1] for row in one.page.tables["facts"][1:]}
        assert facts["Training time"] == "1 h 2 min"
        assert facts["Trainable parameters"] == "4,115,328"
        assert facts["Code"] == "abc123"
        assert facts["Threshold"] == "0.4"
        assert facts["Validation"] == "Dice 0.8"
        assert "Temperature" not in facts  # not known of runs from before there was one
        settings = {row[0]: row[1] for row in one.page.tables["settings"][1:]}
        assert settings == {"adaptation.lora.rank": "16"}

    def test_training_curve_is_drawn_and_described(self, one):
        assert "run: 2 at step 1, 0.5 at 4" in one.text
        assert one.text.count('class="chart"') == 3  # the curve, precision-recall, reliability
        assert "test/dice" not in one.text  # a score, no curve

    def test_gallery_has_the_worst_first(self, one):
        order = [int(number) for number in re.findall(r'<li data-image="(\d+)"', one.text)]
        values = [float(row["cldice"]) for row in one.rows]
        assert order == sorted(range(4), key=values.__getitem__)

    def test_everything_it_names_is_in_its_folder(self, one):
        files = [address for address in one.page.addresses if not address.startswith(("#", "data:"))]
        assert all((one.path.parent / file).is_file() for file in files)
        assert not re.search(r"https?://|//cdn|@import|url\(", one.text)
        data = json.loads(one.page.scripts[0])
        paths = [*data["images"][3]["files"].values(), *data["images"][3]["classes"][0]["files"].values()]
        assert {path.rsplit("/", 1)[1] for path in paths} == {
            "input.png", "truth.png", "prediction.png", "probability.png", "errors.png", "marks.svg"
        }  # fmt: skip
        assert all((one.path.parent / path).is_file() for path in paths)

    def test_policy_lets_its_own_script_run_and_no_other(self, one):
        digest = base64.b64encode(hashlib.sha256(one.page.scripts[1].encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}';" in one.text
        assert "default-src 'none'" in one.text
        assert not re.search(r"<[^>]+\son\w+=", one.text)

    def test_every_column_head_and_picture_is_named(self, one):
        assert len(re.findall(r"<th(?! scope)[ >]", one.text)) == 0
        assert len(re.findall(r"<img(?![^>]*\balt=)", one.text)) == 0
        assert one.text.count('aria-sort="none"') == len(one.page.tables["table"][0])

    def test_answer_comes_first_and_what_is_folded_last(self, one):
        assert re.findall(r'<section id="(\w+)"', one.text) == [
            "answer", "scores", "viewer", "worst", "images", "quality", "about"
        ]  # fmt: skip
        assert one.text.index('class="answer"') < one.text.index("<table")
        assert one.text.rindex("<details>") > one.text.rindex("<figure>")

    def test_best_typical_and_worst_image_with_their_errors(self, one):
        shown = re.findall(r'class="card-name">(.*?): (\w+)</span>.*?<img src="(.*?)".*?<img src="(.*?)"', one.text)[:3]
        ranked = sorted(range(4), key=lambda row: float(one.rows[row]["cldice"]))
        assert shown == [
            (what, one.rows[row]["name"], *(f"report_files/0/{row:04d}/{name}" for name in ("errors.png", "marks.svg")))
            for what, row in (("Best", ranked[3]), ("Typical (median)", ranked[2]), ("Worst", ranked[0]))
        ]


def answers(tmp_path, *runs):
    """What a report of runs opens with; each is its scores by image and what its summary says."""
    for number, (scores, record) in enumerate(runs):
        evaluation = tmp_path / f"run{number}" / "evaluation"
        evaluation.mkdir(parents=True)
        rows = [",".join([f"im{row}", *map(str, of)]) for row, of in enumerate(zip(*scores.values(), strict=True))]
        (evaluation / "per_image.csv").write_text("\n".join([",".join(["name", *scores]), *rows]))
        (evaluation / "summary.json").write_text(json.dumps(record))
    folders = [tmp_path / f"run{number}" for number in range(len(runs))]
    text = write_report(folders, tmp_path / "out").read_text(encoding="utf-8")
    return [html.unescape(found) for found in re.findall(r'class="answer">(.*?)</p>', text)]


TRAINED = {"network_name": "vit_t", "preset": "topolora", "dataset": "drive", "images": {"training": 16}}
SIX = {"dice": [0.7, 0.71, 0.72, 0.73, 0.74, 0.76]}


class TestAnswer:
    def test_of_a_run_with_pictures(self, one):
        values = np.array([float(row["cldice"]) for row in one.rows])
        interval = mean_interval(values)
        (sentence,) = re.findall(r'class="answer">(.*?)</p>', one.text)
        assert sentence == (
            f"vit_t, trained on drive, reaches clDice {values.mean():.3f} (95 % interval {interval.low:.3f} to"
            f" {interval.high:.3f}) on average over only 4 test images; what goes wrong most is broken links,"
            " 1.0 an image."
        )

    @pytest.mark.parametrize(
        ("scores", "record", "sentence"),
        [
            ({"dice": [0.5]}, TRAINED, "vit_t, adapted by topolora on 16 images of drive, reaches Dice 0.500 on only 1"
             " test image."),
            ({"dice": [0.5, "nan"]}, TRAINED | {"evaluated_on": {"dataset": "stare", "partial": "2 of 9 images"}},
             "vit_t, adapted by topolora on 16 images of drive, reaches Dice 0.500 on only 1 of 2 test images of a part"
             " of stare (2 of 9 images)."),
            ({"dice": ["nan"]}, {}, "This model has no score on its 1 test image."),
            ({"hd95": [12.0] * 6}, {"network_name": "unet_resnet34", "preset": "full", "dataset": "folder"},
             "unet_resnet34, trained in full on a folder, reaches HD95 12.0 (95 % interval 12.0 to 12.0) on average"
             " over 6 test images."),
            ({"dice": [0.5], "dice_cup": [0.7], "dice_disc": [0.3]}, {"test": {"classes": {"cup": {}, "disc": {}}}},
             "This model, trained to find “cup” and “disc”, reaches Dice 0.500 (mean of 2 classes) on only 1 test"
             " image; the weakest class is “disc”, Dice 0.300."),
        ],
    )  # fmt: skip
    def test_of_a_run_by_what_is_known(self, tmp_path, scores, record, sentence):
        assert answers(tmp_path, (scores, record)) == [sentence]

    @pytest.mark.parametrize(
        ("change", "start", "end"),
        [
            (0.02, "run1 is better than run0: Dice 0.747 against 0.727 (difference +0.020, ", "(p 0.031)."),
            (-0.02, "run1 is worse than run0: Dice 0.707 against", "more than chance by the paired test (p 0.031)."),
            (0.0, "Whether run1 or run0 is better is open", "too few images differ for the paired test to tell."),
        ],
    )
    def test_of_two_runs(self, tmp_path, change, start, end):
        further = {"dice": [value + change * (1 + row / 1e4) for row, value in enumerate(SIX["dice"])]}
        (sentence,) = answers(tmp_path, (SIX, {}), (further, {}))
        assert sentence.startswith(start)
        assert sentence.endswith(end)

    def test_of_two_runs_that_scores_disagree_about(self, tmp_path):
        first, second = ({"dice": [row / 9 + one / 50 for row in range(8)], "cldice": of} for one, of in
                         ((1, [0.5, 0.6] * 4), (2, [0.5, 0.6, 0.6, 0.5] * 2)))  # fmt: skip
        (sentence,) = answers(tmp_path, (first, {}), (second, {}))
        assert sentence.startswith("Whether run1 or run0 is better is open: clDice 0.550 against 0.550")
        assert sentence.endswith("differ for the paired test to tell; by Dice run1 is better.")


@pytest.fixture(scope="module")
def further(tmp_path_factory):
    """A run with further scores beside one from before there were any."""
    folder = tmp_path_factory.mktemp("further")
    rows = write_fake_run(folder / "new", ["a", "b", "c"], further=True)
    write_fake_run(folder / "old", ["a", "b", "c"], seed=1)
    path = write_report([folder / "new", folder / "old"], folder / "out")
    return SimpleNamespace(rows=rows, path=path, page=Page(path), text=path.read_text(encoding="utf-8"))


class TestFurtherScores:
    def test_summary_says_which_way_is_better(self, further):
        best = {row[1]: row[2] for row in further.page.tables["summary"][1:]}
        low = {title for title, way in best.items() if way == "low"}
        assert low == {
            "Betti-0 error", "Betti-1 error", "Betti-0 error in patches", "Betti matching error", "HD95", "ASSD",
            "MAE", "BER", "Calibration error", "Brier score", "Broken links", "False links", "False parts",
        }  # fmt: skip
        assert {"Dice", "clDice", "Boundary F1", "S-measure", "Weighted F-measure", "Recall"} <= set(best) - low

    def test_interval_of_a_further_score(self, further):
        rows = {row[1]: row for row in further.page.tables["summary"][1:] if row[0] == "new"}
        interval = mean_interval(np.array([float(row["hd95"]) for row in further.rows]))
        assert rows["HD95"][5] == f"{interval.low:.4f} to {interval.high:.4f}"

    def test_older_run_has_dashes_for_them(self, further):
        head, *rows = further.page.tables["table"]
        place = head.index("HD95")
        assert [row[place] for row in rows if row[1] == "old"] == ["\u2013"] * 3
        assert [row[place] for row in rows if row[1] == "new"] == [f"{float(r['hd95']):.4f}" for r in further.rows]

    def test_few_columns_are_shown_at_first_and_all_can_be_chosen(self, further):
        head = further.page.tables["table"][0]
        style = re.search(r'<style id="hidden-columns">(.*?)</style>', further.text)[1]
        hidden = {head[int(place) - 1] for place in re.findall(r"nth-child\((\d+)\)", style)}
        assert hidden == {
            "Betti-0 error in patches", "Betti matching error", "ASSD", "S-measure", "Weighted F-measure", "MAE", "BER",
            "Calibration error", "Brier score",
        }  # fmt: skip
        choice = further.text[further.text.index('id="columns"') :].split("</details>")[0]
        assert choice.count('type="checkbox"') == len(head) - 2
        assert choice.count(" checked") == len(head) - 2 - len(hidden)

    def test_risk_is_drawn_and_its_area_told(self, further):
        assert "Risk and coverage" in further.text
        assert "new: area 0.0321" in further.text
        rows = {row[0]: row[1:] for table in further.page.tables.values() for row in table if row}
        assert rows["Area under risk-coverage (low is good)"] == ["0.0321", ""]

    def test_temperature_and_what_chose_the_threshold(self, further):
        facts = {row[0].removesuffix(" differs"): row[1:] for row in further.page.tables["facts"][1:]}
        assert facts["Temperature"] == ["1.25", ""]
        assert facts["Threshold chosen by"] == ["clDice", ""]

    def test_few_scores_need_no_choice(self, one):
        assert 'id="columns"' not in one.text


@pytest.mark.parametrize(
    ("score", "title", "lower"),
    [
        ("dice", "Dice", False),
        ("dice_at_half", "Dice at 0.5", False),
        ("dice_error", "Dice, error", False),  # of a class called so
        ("hd95_thin_vessel", "HD95, thin_vessel", True),
        ("betti_0_patch_error", "Betti-0 error in patches", True),
        ("betti0_error", "betti0 error", True),  # not known, but it says so
        ("something", "something", False),
    ],
)
def test_names_of_scores(score, title, lower):
    assert (score_title(score), lower_is_better(score)) == (title, lower)


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nasty")
    write_fake_run(folder / "<b>bold<" / "run", NASTY)
    write_fake_run(folder / "other" / "run", NASTY, seed=1)
    path = write_report([folder / "<b>bold<" / "run", folder / "other" / "run"], folder / "out")
    return path, path.read_text(encoding="utf-8")


class TestUntrustedText:
    def test_names_are_text_wherever_they_stand(self, nasty):
        path, text = nasty
        assert "<script>window" not in text
        assert "<img src=x" not in text
        assert "<b>" not in text
        page = Page(path)
        assert [row[0] for row in page.tables["table"][1:4]] == NASTY
        assert [image["name"] for image in json.loads(page.scripts[0])["images"]] == NASTY * 2
        assert len(page.scripts) == 2

    def test_runs_of_one_name_are_told_apart(self, nasty):
        assert json.loads(Page(nasty[0]).scripts[0])["runs"] == ["<b>bold</run", "other/run"]

    def test_files_have_names_of_the_report_s_own(self, nasty):
        files = [p.relative_to(nasty[0].parent).as_posix() for p in nasty[0].parent.rglob("*.png")]
        assert files
        assert all(re.fullmatch(r"report_files/[01]/000[012]/[a-z]+\.png", file) for file in files)

    def test_names_do_not_lead_out_of_the_run(self, tmp_path):
        write_fake_run(tmp_path / "run", ["a", "../../../secret"], pictures=False)
        write_layers(tmp_path / "secret", np.zeros((1, 4, 4), np.float32), *[np.ones((1, 4, 4), bool)] * 2,
                     np.ones((1, 4, 4), np.float32), np.ones((4, 4), bool))  # fmt: skip
        (run,) = open_runs([tmp_path / "run"])
        assert run.layers("../../../secret").input is None
        assert run.figure("../../../secret/input") is None


class TestFolder:
    def test_older_report_is_replaced_and_nothing_half_written_stays(self, tmp_path):
        write_fake_run(tmp_path / "first", ["a", "b"])
        write_fake_run(tmp_path / "second", ["c"])
        write_report([tmp_path / "first"], tmp_path / "out")
        write_report([tmp_path / "second"], tmp_path / "out")
        assert [path.name for path in (tmp_path / "out/report_files/0").iterdir()] == ["0000"]
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "report_files"]

    def test_report_that_fails_leaves_the_older_one(self, tmp_path):
        write_fake_run(tmp_path / "run", ["a"])
        page = write_report([tmp_path / "run"], tmp_path / "out")
        before = page.read_text(encoding="utf-8")
        (tmp_path / "run/evaluation/images/a/truth.png").write_bytes(b"broken")
        with pytest.raises(DataError, match=r"truth\.png"):
            write_report([tmp_path / "run"], tmp_path / "out")
        assert page.read_text(encoding="utf-8") == before
        assert (tmp_path / "out/report_files/0/0000/truth.png").is_file()
        assert not list((tmp_path / "out").glob(".*"))

    def test_files_of_others_are_not_touched(self, tmp_path):
        write_fake_run(tmp_path / "run", ["a"])
        (tmp_path / "out/report_files").mkdir(parents=True)
        (tmp_path / "out/report_files/mine.txt").write_text("mine")
        with pytest.raises(OutputError, match="of no report"):
            write_report([tmp_path / "run"], tmp_path / "out")
        assert (tmp_path / "out/report_files/mine.txt").read_text() == "mine"

    def test_out_may_not_be_a_file(self, tmp_path):
        write_fake_run(tmp_path / "run", ["a"])
        with pytest.raises(OutputError, match="is a file"):
            write_report([tmp_path / "run"], tmp_path / "run/training.json")


class TestRuns:
    def test_run_that_was_not_evaluated(self, tmp_path):
        with pytest.raises(DataError, match="not been evaluated"):
            open_runs([tmp_path])

    @pytest.mark.parametrize(
        ("file", "content"),
        [
            ("per_image.csv", "name,dice\na,high\n"),
            ("per_image.csv", "name,dice\n"),
            ("per_image.csv", "dice\n0.5\n"),
            ("per_image.csv", "name,dice\na\n"),
            ("per_image.csv", "name,dice\na,0.5\na,0.6\n"),
            ("summary.json", "{"),
            ("summary.json", "[]"),
            ("curves.json", '{"format": 2}'),
        ],
    )
    def test_damaged_file_is_named(self, tmp_path, file, content):
        write_fake_run(tmp_path / "run", ["a"], pictures=False)
        (tmp_path / "run/evaluation" / file).write_text(content)
        with pytest.raises(DataError, match=re.escape(file)):
            open_runs([tmp_path / "run"])

    def test_run_given_twice(self, tmp_path):
        write_fake_run(tmp_path / "run", ["a"], pictures=False)
        with pytest.raises(DataError, match="twice"):
            open_runs([tmp_path / "run", tmp_path / "run/../run"])

    def test_scores_that_are_not_defined_are_missing_not_zero(self, tmp_path):
        write_fake_run(tmp_path / "run", ["a", "b"], pictures=False)
        (tmp_path / "run/evaluation/per_image.csv").write_text("name,dice,empty\na,nan,nan\nb,0.5,\n")
        (run,) = open_runs([tmp_path / "run"])
        assert list(run.scores) == ["dice"]
        page = write_report([tmp_path / "run"], tmp_path / "out")
        assert Page(page).tables["table"][1] == ["a", "\u2013"]
        assert mean_interval(run.scores["dice"]).mean == 0.5

    def test_run_of_before_the_layers_shows_its_figures(self, tmp_path):
        write_fake_run(tmp_path / "run", ["a"], pictures=False)
        (tmp_path / "run/evaluation/curves.json").unlink()
        (tmp_path / "run/evaluation/pictures").mkdir()
        Image.new("RGB", (80, 20), "red").save(tmp_path / "run/evaluation/pictures/a.png")
        page = Page(write_report([tmp_path / "run"], tmp_path / "out"))
        files = json.loads(page.scripts[0])["images"][0]["files"]
        assert files == {"figure": "report_files/0/0000/figure.png"}
        assert page.tables["table"][0] == ["Image", "Dice", "clDice", "Betti-0 error"]


class TestPictures:
    def test_error_map_and_marks(self, one):
        folder = one.path.parent / "report_files/0/0000"
        truth, prediction = masks()
        fov = np.ones((SIZE, SIZE), bool)
        fov[:, :1] = False
        shown = np.asarray(Image.open(folder / "errors.png").convert("RGB"))
        for name, where in {
            "true positive": truth & prediction,
            "false positive": ~truth & prediction,
            "false negative": truth & ~prediction,
            "true negative": ~truth & ~prediction,
        }.items():
            assert (shown[where[0] & fov] == ERROR_COLOURS[name]).all(), name
        assert (shown[~fov] == ERROR_COLOURS["not scored"]).all()
        marks = (folder / "marks.svg").read_text()
        assert 'cx="16" cy="10.5"' in marks  # the middle of the gap, at the pixels' centres
        assert marks.count("<circle") == 2  # dark below bright
        assert marks.count("<polygon") == 2

    def test_probability_is_coloured_by_value(self, one):
        shown = np.asarray(Image.open(one.path.parent / "report_files/0/0000/probability.png"))
        stored = np.asarray(Image.open(one.folder / "run/evaluation/images/a/probability.png"))
        assert (shown == stored).all()  # numbers of the palette
        assert set(np.unique(stored)) == {0, 204}

    def test_sizes_that_differ_are_refused(self, tmp_path):
        write_fake_run(tmp_path / "run", ["a"])
        Image.new("L", (5, 5)).save(tmp_path / "run/evaluation/images/a/uncertainty.png")
        with pytest.raises(DataError, match="differ in size"):
            write_report([tmp_path / "run"], tmp_path / "out")

    def test_uncertainty_is_shown_where_there_is_some(self, tmp_path):
        write_fake_run(tmp_path / "run", ["a"])
        Image.new("L", (SIZE, SIZE), 9).save(tmp_path / "run/evaluation/images/a/uncertainty.png")
        page = Page(write_report([tmp_path / "run"], tmp_path / "out"))
        assert json.loads(page.scripts[0])["images"][0]["classes"][0]["files"]["uncertainty"]

    def test_several_classes_have_their_own_layers(self, tmp_path):
        write_fake_run(tmp_path / "run", ["a"], pictures=False)
        summary = tmp_path / "run/evaluation/summary.json"
        summary.write_text(json.dumps({"test": {"classes": {"cup": {"dice": 0.5}, "disc": {"dice": 0.6}}}}))
        truth, prediction = (np.concatenate([mask, mask[:, ::-1]]) for mask in masks())
        prediction[1] = truth[1]
        write_layers(tmp_path / "run/evaluation/images/a", np.zeros((1, SIZE, SIZE), np.float32), truth, prediction,
                     prediction.astype(np.float32), np.ones((SIZE, SIZE), bool))  # fmt: skip
        data = json.loads(Page(write_report([tmp_path / "run"], tmp_path / "out")).scripts[0])
        assert data["classes"] == [["cup", "disc"]]
        assert [one["counts"] for one in data["images"][0]["classes"]] == [[1, 0, 1], [0, 0, 0]]


def test_false_part_is_outlined_around_its_pixels():
    truth, prediction = masks()
    (outline,) = topology_errors(prediction[0], truth[0]).false_components
    rows, columns = np.array(outline).T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (23.5, 26.5, 19.5, 23.5)


class TestStatistics:
    def test_interval_is_that_of_theory_for_a_large_sample(self):
        values = np.random.default_rng(3).normal(0.8, 0.1, 400)
        interval = mean_interval(np.append(values, np.nan))
        half = 1.96 * values.std() / 20
        assert interval.count == 400
        assert interval.low == pytest.approx(values.mean() - half, abs=half * 0.06)
        assert interval.high == pytest.approx(values.mean() + half, abs=half * 0.06)

    def test_signed_rank_test_of_six_gains_by_hand(self, tmp_path):
        names = list("abcdef")
        for folder, gain in (("first", 0.0), ("second", 0.01)):
            write_fake_run(tmp_path / folder, names, pictures=False, shift=gain)
        (one,) = compare_runs(open_runs([tmp_path / "first", tmp_path / "second"]))
        by_name = {difference.score: difference for difference in one.differences}
        dice = by_name["dice"]
        assert (dice.better, dice.worse) == (6, 0)
        assert dice.difference.mean == pytest.approx(0.01, abs=1e-6)
        assert by_name["cldice"].p_value == 1.0  # equal
        assert dice.p_value == pytest.approx(2 / 64, abs=0.02)

    def test_fewer_errors_are_better(self, tmp_path):
        for folder, errors in (("first", (5, 9)), ("second", (3, 9))):
            write_fake_run(tmp_path / folder, ["a", "b"], pictures=False)
            rows = "".join(f"{name},{number}\n" for name, number in zip("ab", errors, strict=True))
            (tmp_path / folder / "evaluation/per_image.csv").write_text("name,betti_0_error\n" + rows)
        (one,) = compare_runs(open_runs([tmp_path / "first", tmp_path / "second"]))
        assert (one.differences[0].better, one.differences[0].worse) == (1, 0)
        assert one.differences[0].difference.mean == -1.0

    def test_only_shared_images_are_compared(self, tmp_path):
        write_fake_run(tmp_path / "first", ["a", "b", "c"], pictures=False)
        write_fake_run(tmp_path / "second", ["c", "x", "a"], seed=1, pictures=False)
        first, second = open_runs([tmp_path / "first", tmp_path / "second"])
        (one,) = compare_runs([first, second])
        assert (one.names, one.left_out) == (("a", "c"), 2)
        expected = second.scores["dice"][[2, 0]] - first.scores["dice"][[0, 2]]
        assert one.each["dice"] == pytest.approx(expected)


class TestCurves:
    def test_points_agree_with_a_count_of_every_pixel(self):
        random = np.random.default_rng(0)
        probability = random.permutation(65536)[:3000] / 65536  # as exact as they are counted
        truth = random.random(3000) < probability**2
        curve = ThresholdCurve()
        curve.add(torch.tensor(probability), torch.tensor(truth, dtype=torch.float32))
        points = curve_points(curve)
        for threshold, precision, recall in zip(*points["precision_recall"].values(), strict=True):
            answered = probability >= threshold
            assert recall == pytest.approx((answered & truth).sum() / truth.sum(), abs=1e-12)
            assert precision is None or precision == pytest.approx(truth[answered].mean(), abs=1e-12)
        order = np.argsort(-probability)
        found = truth[order].cumsum() / np.arange(1, 3001)
        assert points["average_precision"] == pytest.approx(found[truth[order]].mean(), abs=1e-6)
        assert points["brier"] == pytest.approx(((probability - truth) ** 2).mean(), abs=2e-5)
        bins = np.minimum((probability * 15).astype(int), 14)
        gaps = [abs(truth[bins == k].mean() - probability[bins == k].mean()) * (bins == k).mean() for k in range(15)]
        assert points["expected_calibration_error"] == pytest.approx(sum(gaps), abs=2e-5)

    def test_nothing_to_count_is_none(self):
        points = curve_points(ThresholdCurve())
        assert points["average_precision"] is points["brier"] is None
        assert points["reliability"]["frequency"] == [None] * 15


def test_evaluation_leaves_what_the_report_needs(tmp_path):
    truth, prediction = masks()
    label, fov = torch.tensor(truth, dtype=torch.float32), torch.ones(1, SIZE, SIZE)
    probability = torch.tensor(prediction, dtype=torch.float32) * 0.9
    output = [{"pred": probability, "label": {"label": label, "fov": fov}, "image": torch.rand(3, SIZE, SIZE)}]
    report = EvaluationReport(tmp_path / "evaluation", lambda: 0.5)
    report._start()
    report._score(SimpleNamespace(state=SimpleNamespace(output=output, batch=[{"name": "scan"}])))
    report._write()
    layers = find_layers(tmp_path / "evaluation/images/scan")
    assert (np.asarray(Image.open(layers.classes[0].prediction)) > 127).tolist() == prediction[0].tolist()
    assert np.asarray(Image.open(layers.classes[0].probability)).max() == round(0.9 * 255)
    assert layers.fov is None
    curves = json.loads((tmp_path / "evaluation/curves.json").read_text())
    assert curves["threshold"] == 0.5
    assert curves["classes"]["foreground"]["positives"] == truth.sum()
    page = write_report([tmp_path], tmp_path / "out")
    assert Page(page).tables["table"][1][0] == "scan"


@pytest.mark.parametrize("span", [(0, 1), (-0.013, 0.004), (1, 768), (0.5, 0.5004), (0, 1e7)])
def test_ticks_are_few_and_inside(span):
    ticks = nice_ticks(*span)
    assert 3 <= len(ticks) <= 8
    assert span[0] - 1e-12 <= ticks[0] < ticks[-1] <= span[1] + 1e-12
    assert not any(math.isnan(tick) for tick in ticks)
