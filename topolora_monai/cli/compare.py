"""``topolora compare``: scores of runs and their paired differences, in the terminal."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topolora_monai.cli.tables import new_table, show_table

if TYPE_CHECKING:
    from topolora_monai.reports.html import Comparison, Run

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the subcommand to a parser."""
    compare = commands.add_parser("compare", help="scores of evaluated runs with intervals and paired differences")
    compare.add_argument(
        "runs", nargs="+", metavar="RUN", type=Path, help="folder of a run; others are compared with the first"
    )
    compare.add_argument("--json", action="store_true", help="print one JSON object")
    compare.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    from topolora_monai.io.json_files import json_text  # noqa: PLC0415 - torch takes seconds
    from topolora_monai.reports.html import compare_runs, open_runs  # noqa: PLC0415

    runs = open_runs(options.runs)
    comparisons = compare_runs(runs)
    if options.json:
        print(json_text(_record(runs, comparisons)))
        return 0
    _show_scores(runs)
    for comparison in comparisons:
        _show_comparison(comparison)
    return 0


def _record(runs: Sequence[Run], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    from topolora_monai.reports.html import mean_interval  # noqa: PLC0415

    return {
        "runs": {
            run.label: {
                "folder": str(run.folder),
                "images": len(run.names),
                "scores": {score: dataclasses.asdict(mean_interval(values)) for score, values in run.scores.items()},
            }
            for run in runs
        },
        "comparisons": [
            {
                "first": one.first,
                "second": one.second,
                "images": len(one.names),
                "left_out": one.left_out,
                "differences": [dataclasses.asdict(difference) for difference in one.differences],
            }
            for one in comparisons
        ],
    }


def _show_scores(runs: Sequence[Run]) -> None:
    from rich.markup import escape  # noqa: PLC0415 - takes time to import

    from topolora_monai.reports.html import best_value, mean_interval, score_title  # noqa: PLC0415

    numbers = ["mean", "95 % interval", "images"]
    table = new_table("run", "score", "best", *numbers, numbers=numbers)
    for run in runs:
        for place, (score, values) in enumerate(run.scores.items()):
            of = mean_interval(values)
            label = "" if place else escape(run.label)
            interval = "-" if math.isnan(of.low) else f"{of.low:.4f} to {of.high:.4f}"
            title = escape(score_title(score))
            table.add_row(label, title, best_value(score), f"{of.mean:.4f}", interval, str(of.count))
    show_table(table)


def _show_comparison(comparison: Comparison) -> None:
    from rich.markup import escape  # noqa: PLC0415

    from topolora_monai.reports.html import best_value, score_title  # noqa: PLC0415

    print(f"\n{comparison.second} minus {comparison.first}, image by image")
    if not comparison.names:
        print("these two share no image: nothing can be compared")
        return
    if comparison.left_out:
        print(f"on the {len(comparison.names)} images that both scored; {comparison.left_out} left out")
    numbers = ["first", "second", "difference", "95 % interval", "p", "better", "worse"]
    table = new_table("score", "best", *numbers, numbers=numbers)
    for one in comparison.differences:
        low, high = one.difference.low, one.difference.high
        interval = "-" if math.isnan(low) else f"{low:+.4f} to {high:+.4f}"
        p_value = "-" if math.isnan(one.p_value) else "<0.0001" if one.p_value < 1e-4 else f"{one.p_value:.4f}"
        means = (f"{one.first:.4f}", f"{one.second:.4f}", f"{one.difference.mean:+.4f}")
        title = escape(score_title(one.score))
        table.add_row(title, best_value(one.score), *means, interval, p_value, str(one.better), str(one.worse))
    show_table(table)
    print("p: Wilcoxon's signed-rank test, two-sided, not corrected for the number of scores")
