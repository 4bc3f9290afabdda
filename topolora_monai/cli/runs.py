"""``topolora compare``, ``report``, ``release`` and ``export``: what becomes of runs."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topolora_monai.cli.common import add_command, show_table

if TYPE_CHECKING:
    from topolora_monai.reports.html import Comparison, Run


def add_commands(commands: Any) -> None:
    """Add the subcommands to a parser."""
    weights = "base checkpoint that the run started from; looked for without it"
    compare = add_command(commands, "compare", _compare, "scores of runs with intervals and paired differences")
    compare.add_argument("--json", action="store_true", help="print one JSON object")

    report = add_command(commands, "report", _report, "an HTML page about runs that were evaluated, to open or print")
    report.add_argument("--out", type=Path, required=True, help="folder to write to")
    for parser in (compare, report):
        about = "folder of a run; others are compared with the first"
        parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help=about)

    release = add_command(commands, "release", _release, "freeze a run into a self-contained bundle")
    release.add_argument("--run", type=Path, required=True, dest="run_dir", help="folder of an evaluated run")
    release.add_argument("--out", type=Path, required=True, help="folder of the new bundle")
    release.add_argument("--weights", type=Path, help=weights)
    release.add_argument("--source_bundle", type=Path, help="bundle that the run was made with")
    about = "push the bundle to this repository of Hugging Face, private if it is new, by MONAI's push_to_hf_hub"
    release.add_argument("--push", metavar="OWNER/NAME", help=about)

    about = "write an adapted network for torch.export, ONNX or TorchScript"
    export = add_command(commands, "export", _export, about)
    export.add_argument("--adapter", type=Path, required=True, help="adapter file of a run")
    export.add_argument("--weights", help=weights)
    export.add_argument("--format", required=True, help="pt2, onnx or torchscript")
    export.add_argument("--out", type=Path, required=True, help="file to write: .pt2, .onnx or .ts")
    export.add_argument("--height", type=int, help="of the images the file takes, by default that of the tiles")
    export.add_argument("--width", type=int, help="likewise")
    export.add_argument("--image_size", type=int, help="side that they are enlarged to inside, by default as trained")
    export.add_argument("--probabilities", action="store_true", help="give probabilities instead of logits")
    export.add_argument("--int8", action="store_true", help="weights in 8 bits, for ONNX")


def _report(options: argparse.Namespace) -> None:
    from topolora_monai.reports.html import write_report  # noqa: PLC0415 - torch takes seconds

    print(f"written to {write_report(options.runs, options.out)}")


def _release(options: argparse.Namespace) -> None:
    from topolora_monai.release import release  # noqa: PLC0415

    out = release(options.run_dir, options.out, options.weights, options.source_bundle)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"bundle written to {out} ({size / 1e6:.0f} MB); its card is docs/README.md")
    if options.push:
        print(f"pushed to {_push(out.absolute(), options.push)}")


def _push(bundle: Path, repository: str) -> str:
    from monai.bundle import push_to_hf_hub  # noqa: PLC0415

    from topolora_monai.errors import OutputError, first_line  # noqa: PLC0415

    try:
        return str(push_to_hf_hub(repository, bundle.name, str(bundle.parent)))
    except (OSError, ValueError) as error:  # no token, no connection, no such name
        to = f"--repo {repository} --name {bundle.name} --bundle_dir {bundle.parent}"
        raise OutputError(
            "the bundle is written, but cannot be pushed",
            path=bundle,
            expected="OWNER/NAME, where you may write",
            found=f"{repository}: {first_line(error)}",
            hint=f"sign in by hf auth login, then python -m monai.bundle push_to_hf_hub {to}",
        ) from error


def _export(options: argparse.Namespace) -> None:
    from topolora_monai.errors import ConfigError  # noqa: PLC0415
    from topolora_monai.export import export_adapter  # noqa: PLC0415

    if (options.height is None) != (options.width is None):
        raise ConfigError("--height and --width come together", found="only one of them")
    exported = export_adapter(
        options.adapter,
        options.out,
        options.format,
        options.weights,
        size=None if options.height is None else (options.height, options.width),
        image_size=options.image_size,
        probabilities=options.probabilities,
        int8=options.int8,
    )
    print(
        f"written to {exported.path} ({exported.path.stat().st_size / 1e6:.1f} MB);"
        f" differs from the network by {exported.difference:.1e} of its output's range"
    )


def _compare(options: argparse.Namespace) -> None:
    from topolora_monai.io.json_files import json_text  # noqa: PLC0415
    from topolora_monai.reports.html import compare_runs, open_runs  # noqa: PLC0415

    runs = open_runs(options.runs)
    comparisons = compare_runs(runs)
    if options.json:
        print(json_text(_record(runs, comparisons)))
        return
    _show_scores(runs)
    for comparison in comparisons:
        _show_comparison(comparison)


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
    from topolora_monai.reports.html import best_value, mean_interval, score_title  # noqa: PLC0415

    rows = []
    for run in runs:
        for place, (score, values) in enumerate(run.scores.items()):
            of = mean_interval(values)
            interval = "-" if math.isnan(of.low) else f"{of.low:.4f} to {of.high:.4f}"
            label = "" if place else run.label
            rows.append((label, score_title(score), best_value(score), f"{of.mean:.4f}", interval, of.count))
    numbers = ("mean", "95 % interval", "images")
    show_table(("run", "score", "best", *numbers), rows, numbers)


def _show_comparison(comparison: Comparison) -> None:
    from topolora_monai.reports.html import best_value, score_title  # noqa: PLC0415

    print(f"\n{comparison.second} minus {comparison.first}, image by image")
    if not comparison.names:
        print("these two share no image: nothing can be compared")
        return
    if comparison.left_out:
        print(f"on the {len(comparison.names)} images that both scored; {comparison.left_out} left out")
    rows = []
    for one in comparison.differences:
        low, high = one.difference.low, one.difference.high
        interval = "-" if math.isnan(low) else f"{low:+.4f} to {high:+.4f}"
        p_value = "-" if math.isnan(one.p_value) else "<0.0001" if one.p_value < 1e-4 else f"{one.p_value:.4f}"
        means = (f"{one.first:.4f}", f"{one.second:.4f}", f"{one.difference.mean:+.4f}")
        title = score_title(one.score)
        rows.append((title, best_value(one.score), *means, interval, p_value, one.better, one.worse))
    numbers = ("first", "second", "difference", "95 % interval", "p", "better", "worse")
    show_table(("score", "best", *numbers), rows, numbers)
    print("p: Wilcoxon's signed-rank test, two-sided, not corrected for the number of scores")
