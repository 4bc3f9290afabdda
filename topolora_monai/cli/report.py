"""``topolora report``: runs as a page to open and a PDF."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the subcommand to a parser."""
    report = commands.add_parser("report", help="an HTML page and a PDF about runs that were evaluated")
    report.add_argument(
        "runs", nargs="+", metavar="RUN", type=Path, help="folder of a run; others are compared with the first"
    )
    report.add_argument("--out", type=Path, required=True, help="folder to write to")
    report.add_argument("--no-pdf", action="store_true", help="the page alone")
    report.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    from topolora_monai.reports.html import write_report  # noqa: PLC0415 - torch takes seconds

    page = write_report(options.runs, options.out, pdf=not options.no_pdf)
    print(f"written to {page}" + ("" if options.no_pdf else f" and {page.with_suffix('.pdf').name} beside it"))
    return 0
