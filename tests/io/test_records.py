"""JSON and CSV that every other program reads as it was meant."""

import csv
import json

import pytest

from topolora_monai.engines import write_json
from topolora_monai.io.csv_cells import cell_of, text_of
from topolora_monai.io.json_files import json_text


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


class TestJson:
    def test_numbers_that_are_not_finite_are_null(self, tmp_path):
        content = {"test": {"cldice": float("nan"), "each": [0.5, float("inf"), (float("-inf"), 1)]}, "name": "ü"}
        write_json(content, tmp_path / "summary.json")
        text = (tmp_path / "summary.json").read_text(encoding="utf-8")
        expected = {"test": {"cldice": None, "each": [0.5, None, [None, 1]]}, "name": "ü"}
        assert json.loads(text, parse_constant=refuse) == expected
        assert json.loads(json_text(content), parse_constant=refuse) == expected

    def test_names_that_are_no_unicode_are_read_back(self, tmp_path):
        name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
        write_json({"name": name}, tmp_path / "a.json")
        assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["name"] == name


class TestCells:
    @pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "'=1", "''-a"])
    def test_no_text_is_a_formula_and_each_is_read_back(self, text, tmp_path):
        with (tmp_path / "a.csv").open("w", newline="") as file:
            csv.writer(file).writerow([cell_of(text)])
        with (tmp_path / "a.csv").open(newline="") as file:
            (cell,) = next(csv.reader(file))
        assert cell.startswith("'")
        assert text_of(cell) == text

    @pytest.mark.parametrize("text", ["scan-1", "a=b", "'quoted'", "", "1e5"])
    def test_other_texts_stay(self, text):
        assert cell_of(text) == text
        assert text_of(text) == text
