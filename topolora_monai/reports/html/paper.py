"""Sheets of a PDF, and the few ways in which the report writes on them."""

from __future__ import annotations

from collections.abc import Sequence

from fpdf import FPDF
from fpdf.enums import XPos, YPos

from topolora_monai.reports.html.facts import Fact
from topolora_monai.reports.html.scores import NO_SCORE

__all__ = ["GREY", "Paper", "latin"]

GREY = (90, 90, 90)
_LINE, _HEAD_LINE = 5.0, 3.6


class Paper(FPDF):
    """A4 pages with a number each."""

    def __init__(self) -> None:
        super().__init__(format="A4")
        self.set_margin(15)
        self.set_auto_page_break(True, 18)
        self.set_font("Helvetica", size=9)

    def footer(self) -> None:
        """Number the page; called by the library."""
        self.set_y(-12)
        self.set_font("Helvetica", size=8)
        self.set_text_color(*GREY)
        self.cell(0, 5, f"{self.page_no()}", align="C")
        self.set_text_color(0, 0, 0)

    def heading(self, text: str, size: float = 12) -> None:
        """A bold line with some space before it, never alone at the end of a page."""
        self.keep(30)
        self.ln(3)
        self.set_font("Helvetica", "B", size)
        self.multi_cell(0, size * 0.55, latin(text), new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self.ln(1)
        self.set_font("Helvetica", size=9)

    def words(self, text: str) -> None:
        """A paragraph."""
        self.multi_cell(0, _LINE, latin(text), align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def keep(self, height: float) -> None:
        """Start a page if so much does not fit on this one."""
        if self.get_y() + height > self.h - self.b_margin:
            self.add_page()

    def facts(self, labels: Sequence[str], facts: Sequence[Fact]) -> None:
        """A table of long cells with a column for each run."""
        self.set_font("Helvetica", size=8)
        self.set_draw_color(205, 205, 205)
        with self.table(
            col_widths=(1, *[3 / len(labels)] * len(labels)),
            line_height=4,
            padding=0.6,
            text_align="LEFT",
            borders_layout="HORIZONTAL_LINES",
        ) as table:
            table.row(["", *map(latin, labels)])
            for fact in facts:
                table.row([latin(fact.name), *map(latin, fact.values)])

    def rows(self, heads: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[float]) -> None:
        """A table of short cells, the first to the left and all others to the right; its head is repeated."""
        total = sum(widths)
        sizes = [self.epw * width / total for width in widths]
        self._heads(heads, sizes)
        for row in rows:
            if self.get_y() + _LINE > self.h - self.b_margin:
                self.add_page()
                self._heads(heads, sizes)
            self._row(row, sizes)
        self.ln(2)

    def _heads(self, cells: Sequence[str], sizes: Sequence[float]) -> None:
        """Long ones take several lines, all of them end on the last."""
        self.set_font("Helvetica", "B", 7.5)
        self.set_draw_color(205, 205, 205)
        parts = [self._wrapped(cell, size) for cell, size in zip(cells, sizes, strict=True)]
        most = max(map(len, parts))
        for number in range(most):
            border = "B" if number == most - 1 else ""
            for index, (lines, size) in enumerate(zip(parts, sizes, strict=True)):
                text = ([""] * (most - len(lines)) + lines)[number]
                self.cell(size, _HEAD_LINE, text, border=border, align="R" if index else "L")
            self.ln(_HEAD_LINE)

    def _wrapped(self, text: str, width: float) -> list[str]:
        lines: list[str] = [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".strip()
            if self.get_string_width(latin(longer)) <= width - 2:
                lines[-1] = latin(longer)
            else:
                lines.append(self.fitting(word, width))
        return [line for line in lines if line]

    def _row(self, cells: Sequence[str], sizes: Sequence[float]) -> None:
        self.set_font("Helvetica", size=8)
        self.set_draw_color(205, 205, 205)
        for index, (cell, size) in enumerate(zip(cells, sizes, strict=True)):
            self.cell(size, _LINE, self.fitting(cell, size), border="B", align="R" if index else "L")
        self.ln(_LINE)

    def fitting(self, text: str, width: float) -> str:
        """The text, its middle left out if it is too wide."""
        text = latin(text)
        if self.get_string_width(text) <= width - 2:
            return text
        keep = len(text)
        while keep > 2 and self.get_string_width(text[: keep // 2] + "..." + text[-(keep // 2) :]) > width - 2:
            keep -= 1
        return text[: keep // 2] + "..." + text[-(keep // 2) :]


def latin(text: str) -> str:
    """What the built-in fonts can write; other characters by their number, so that names stay apart."""
    return text.replace(NO_SCORE, "-").encode("latin-1", "backslashreplace").decode("latin-1")
