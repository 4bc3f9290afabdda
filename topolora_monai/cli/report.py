"""``topolora report``: runs as a page to open or print."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the subcommand to a parser."""
    report = commands.add_parser("report", help="an HTML page about runs that were evaluated, to open or print")
    report.add_argument(
        "runs", nargs="+", metavar="RUN", type=Path, help="folder of a run; others are compared with the first"
    )
    report.add_argument("--out", type=Path, required=True, help="folder to write to")
    report.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    from topolora_monai.reports.html import write_report  # noqa: PLC0415 - torch takes seconds

    print(f"written to {write_report(options.runs, options.out)}")
    return 0
