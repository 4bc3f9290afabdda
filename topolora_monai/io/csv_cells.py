"""Texts in CSV that spreadsheets take for texts: none begins as a formula does, and each is read back as it was."""

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def cell_of(text: str) -> str:
    """The text, with an apostrophe before it if a spreadsheet would compute it.

    For names and other texts; numbers, which may be negative, are written as they are.

    Example:
        >>> cell_of("=1+1.png"), cell_of("scan-1"), text_of(cell_of("-a"))
        ("'=1+1.png", 'scan-1', '-a')
    """
    return f"'{text}" if _FORMULA.match(text) else text


def text_of(cell: str) -> str:
    """What :func:`cell_of` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
