"""What the subcommands share."""

import argparse
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int | None], about: str, **defaults: Any
) -> argparse.ArgumentParser:
    """A new subcommand, which runs ``run``; what that returns is the exit status, None for 0."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=about)
    parser.set_defaults(run=run, **defaults)
    return parser


def show_table(columns: Sequence[str], rows: Iterable[Iterable[Any]], numbers: Collection[str] = ()) -> None:
    """Print a table without frame, as wide as the terminal; columns named in ``numbers`` are aligned to the right."""
    from rich.console import Console  # noqa: PLC0415 - takes time to import
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, header_style="bold", pad_edge=False, show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column in numbers else "left")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))  # brackets in a file's text are no mark-up
    Console(soft_wrap=False).print(table)
