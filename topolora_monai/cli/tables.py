"""Tables in the terminal, all of one look."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["new_table", "show_table"]


def new_table(*columns: str, numbers: Collection[str] = ()) -> Table:
    """A table without frame; columns named in ``numbers`` are aligned to the right."""
    from rich.table import Table  # noqa: PLC0415 - takes time to import

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column in numbers else "left")
    return table


def show_table(table: Table) -> None:
    """Print it, as wide as the terminal."""
    from rich.console import Console  # noqa: PLC0415

    Console(soft_wrap=False).print(table)
