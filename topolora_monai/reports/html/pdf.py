"""The report on paper: the same numbers, charts and worst images as a PDF, without a browser."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fpdf import FPDF
from fpdf.enums import XPos, YPos

from topolora_monai.reports.html.charts import DASHES, Chart, Frame, Series
from topolora_monai.reports.html.colours import ERROR_COLOURS, MARK_COLOURS, SERIES_COLOURS
from topolora_monai.reports.html.content import NO_SCORE, Content, Fact, show_score
from topolora_monai.reports.html.statistics import Comparison

__all__ = ["write_pdf"]

_SHOWN_IMAGES = 24
_MOST_COLUMNS = 9  # scores that fit beside a name
_LINE = 5.0
_GREY = (90, 90, 90)


def write_pdf(content: Content, path: str | Path, report: str | Path) -> None:
    """Write the report as a PDF of A4 pages.

    Args:
        content: what it says.
        path: where to.
        report: folder that the pictures' paths are relative to.

    Raises:
        OSError: if it cannot be written; an older file is left as it was.
    """
    path = Path(path)
    paper = _Paper()
    paper.set_title(_latin("Segmentation report: " + ", ".join(content.labels)))
    paper.add_page()
    paper.heading("Segmentation report", 18)
    paper.words(", ".join(content.labels))
    paper.heading("What was trained on what")
    paper.facts(content.labels, content.facts)
    _charts(paper, "Training curves", content.training)
    _summary(paper, content)
    for comparison in content.comparisons:
        _comparison(paper, comparison)
    _charts(paper, "Differences", content.differences)
    _charts(paper, "Probabilities", content.quality)
    if content.calibration:
        paper.facts(content.labels, content.calibration)
    _worst(paper, content, Path(report))
    _table(paper, content)
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_bytes(bytes(paper.output()))
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


class _Paper(FPDF):
    """Pages with a number each, and the few ways in which the report writes on them."""

    def __init__(self) -> None:
        super().__init__(format="A4")
        self.set_margin(15)
        self.set_auto_page_break(True, 18)
        self.set_font("Helvetica", size=9)

    def footer(self) -> None:
        self.set_y(-12)
        self.set_font("Helvetica", size=8)
        self.set_text_color(*_GREY)
        self.cell(0, 5, f"{self.page_no()}", align="C")
        self.set_text_color(0, 0, 0)

    def heading(self, text: str, size: float = 12) -> None:
        self.keep(30)
        self.ln(3)
        self.set_font("Helvetica", "B", size)
        self.multi_cell(0, size * 0.55, _latin(text), new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self.ln(1)
        self.set_font("Helvetica", size=9)

    def words(self, text: str) -> None:
        self.multi_cell(0, _LINE, _latin(text), align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def keep(self, height: float) -> None:
        """Start a page if so much does not fit on this one."""
        if self.get_y() + height > self.h - self.b_margin:
            self.add_page()

    def facts(self, labels: Sequence[str], facts: Sequence[Fact]) -> None:
        self.set_font("Helvetica", size=8)
        self.set_draw_color(205, 205, 205)
        with self.table(
            col_widths=(1, *[3 / len(labels)] * len(labels)),
            line_height=4,
            padding=0.6,
            text_align="LEFT",
            borders_layout="HORIZONTAL_LINES",
        ) as table:
            table.row(["", *map(_latin, labels)])
            for fact in facts:
                table.row([_latin(fact.name), *map(_latin, fact.values)])

    def rows(self, heads: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[float]) -> None:
        """A table of short cells, the first to the left and all others to the right; its head is repeated."""
        total = sum(widths)
        sizes = [self.epw * width / total for width in widths]
        self._row(heads, sizes, "B")
        for row in rows:
            if self.get_y() + _LINE > self.h - self.b_margin:
                self.add_page()
                self._row(heads, sizes, "B")
            self._row(row, sizes, "")
        self.ln(2)

    def _row(self, cells: Sequence[str], sizes: Sequence[float], style: Any) -> None:
        self.set_font("Helvetica", style, 8)
        self.set_draw_color(205, 205, 205)
        for index, (cell, size) in enumerate(zip(cells, sizes, strict=True)):
            self.cell(size, _LINE, self.fitting(cell, size), border="B", align="R" if index else "L")
        self.ln(_LINE)

    def fitting(self, text: str, width: float) -> str:
        """The text, its middle left out if it is too wide."""
        text = _latin(text)
        if self.get_string_width(text) <= width - 2:
            return text
        keep = len(text)
        while keep > 2 and self.get_string_width(text[: keep // 2] + "..." + text[-(keep // 2) :]) > width - 2:
            keep -= 1
        return text[: keep // 2] + "..." + text[-(keep // 2) :]

    def chart(self, chart: Chart, left: float, top: float, width: float, height: float) -> None:
        """Draw a chart in a box."""
        self.set_xy(left, top)
        self.set_font("Helvetica", "B", 8)
        self.cell(width, 4, self.fitting(chart.title, width))
        frame = Frame(chart, (left + 13, top + 6, width - 16, height - 22))
        right, bottom = frame.left + frame.width, frame.top + frame.height
        self.set_font("Helvetica", size=7)
        self.set_line_width(0.1)
        self.set_draw_color(205, 205, 205)
        for tick in frame.x_ticks:
            x, _ = frame.place(tick, frame.y0)
            self.line(x, frame.top, x, bottom)
            self.text(x - self.get_string_width(f"{tick:g}") / 2, bottom + 3.4, f"{tick:g}")
        for tick in frame.y_ticks:
            _, y = frame.place(frame.x0, tick)
            self.line(frame.left, y, right, y)
            self.text(frame.left - 1.2 - self.get_string_width(f"{tick:g}"), y + 0.9, f"{tick:g}")
        self.set_xy(frame.left, bottom + 4)
        self.cell(frame.width, 4, self.fitting(chart.x_label, frame.width), align="C")
        label = self.fitting(chart.y_label, frame.height)
        middle = (frame.top + bottom) / 2 + self.get_string_width(label) / 2
        with self.rotation(90, left + 3, middle):
            self.text(left + 3, middle, label)
        self.set_draw_color(*_GREY)
        if chart.diagonal:
            self.set_dash_pattern(1, 1)
            self.line(*frame.place(frame.x0, frame.x0), *frame.place(frame.x1, frame.x1))
            self.set_dash_pattern()
        for index, one in enumerate(chart.series):
            self._series(one, index, frame)
        self.set_draw_color(*_GREY)
        self.set_line_width(0.2)
        self.rect(frame.left, frame.top, frame.width, frame.height)
        if len(chart.series) > 1:
            self._legend(chart, frame.left, bottom + 9, frame.width)
        self.set_fill_color(255, 255, 255)

    def _series(self, series: Series, index: int, frame: Frame) -> None:
        points = [frame.place(x, y) for x, y in zip(series.x, series.y, strict=True)]
        self._pen(index)
        if series.bars:
            thick = max(0.3, 0.7 * frame.width / max(1, len(points)))
            _, zero = frame.place(frame.x0, 0.0)
            for x, y in points:
                self.rect(x - thick / 2, min(y, zero), thick, abs(y - zero), style="F")
        else:
            self.polyline(points)
            self.set_dash_pattern()
            if series.dots:
                for x, y in points:
                    self.circle(x, y, 0.7, style="F")
        self.set_dash_pattern()

    def _pen(self, index: int) -> None:
        colour = SERIES_COLOURS[index % len(SERIES_COLOURS)]
        self.set_draw_color(*colour)
        self.set_fill_color(*colour)
        self.set_line_width(0.45)
        dash = DASHES[index % len(DASHES)]
        if dash:
            self.set_dash_pattern(dash[0] * 0.22, dash[1] * 0.22)

    def _legend(self, chart: Chart, left: float, top: float, width: float) -> None:
        each = width / min(3, len(chart.series))
        for index, one in enumerate(chart.series):
            x, y = left + index % 3 * each, top + index // 3 * 4
            self._pen(index)
            self.line(x, y + 1.4, x + 7, y + 1.4)
            self.set_dash_pattern()
            self.text(x + 8.5, y + 2.4, self.fitting(one.name, each - 9))


def _charts(paper: _Paper, title: str, charts: Sequence[Chart]) -> None:
    if not charts:
        return
    paper.keep(85)  # the heading and the first row of charts
    paper.heading(title)
    width, height = (paper.epw - 6) / 2, 66.0
    for start in range(0, len(charts), 2):
        paper.keep(height)
        top = paper.get_y()
        for place, chart in enumerate(charts[start : start + 2]):
            paper.chart(chart, paper.l_margin + place * (width + 6), top, width, height - 4)
        paper.set_xy(paper.l_margin, top + height)
    paper.set_font("Helvetica", size=9)


def _summary(paper: _Paper, content: Content) -> None:
    paper.heading("Scores")
    paper.words(
        "Pooled scores are the evaluation's own of all images together. Means are over images, with a 95 % interval "
        "from 10,000 bootstrap samples of the images."
    )
    heads = ("Score", "Run", "Pooled", "Mean", "95 % interval", "Lowest", "Highest", "Images")
    rows = [
        (
            row.score,
            content.labels[row.run],
            show_score(row.pooled),
            show_score(row.images.mean),
            f"{show_score(row.images.low)} to {show_score(row.images.high)}",
            show_score(row.lowest),
            show_score(row.highest),
            str(row.images.count),
        )
        for row in content.summary
    ]
    paper.rows(heads, rows, (3, 3, 1.6, 1.6, 3, 1.6, 1.6, 1.4))


def _comparison(paper: _Paper, comparison: Comparison) -> None:
    paper.heading(f"{comparison.second} minus {comparison.first}")
    if not comparison.names:
        paper.words("These two runs share no image: nothing can be compared.")
        return
    paper.words(
        f"On the {len(comparison.names)} images that both scored, image by image; p is of Wilcoxon's signed-rank test, "
        "two-sided, not corrected for the number of scores."
    )
    rows = [
        (
            one.score,
            show_score(one.first),
            show_score(one.second),
            f"{one.difference.mean:+.4f}",
            _range(one.difference.low, one.difference.high),
            NO_SCORE if math.isnan(one.p_value) else "< 0.0001" if one.p_value < 1e-4 else f"{one.p_value:.4f}",
            str(one.better),
            str(one.worse),
        )
        for one in comparison.differences
    ]
    paper.rows(
        ("Score", "First", "Second", "Difference", "95 % interval", "p", "Better", "Worse"),
        rows,
        (3, 1.6, 1.6, 2, 3.2, 1.7, 1.3, 1.3),
    )


def _worst(paper: _Paper, content: Content, report: Path) -> None:
    shown = [content.images[number] for number in content.worst_first()[:_SHOWN_IMAGES]]
    shown = [image for image in shown if image.pictures.thumbnail]
    if not shown:
        return
    paper.keep(80)
    paper.heading(f"Worst first, by {content.worst_by}")
    if any(image.pictures.size for image in shown):
        _picture_legend(paper)
    columns, gap = 4, 3.0
    width = (paper.epw - gap * (columns - 1)) / columns
    height = width + 9
    for start in range(0, len(shown), columns):
        paper.keep(height)
        top = paper.get_y()
        for place, image in enumerate(shown[start : start + columns]):
            left = paper.l_margin + place * (width + gap)
            paper.image(
                report / str(image.pictures.thumbnail), left, top, width, width, keep_aspect_ratio=True,
                alt_text=_latin(f"errors of {image.name}"),
            )  # fmt: skip
            paper.set_font("Helvetica", size=7)
            paper.text(left, top + width + 3, paper.fitting(image.name, width))
            value = f"{content.worst_by} {show_score(image.scores.get(content.worst_by))}"
            run = f"  {content.labels[image.run]}" if len(content.labels) > 1 else ""
            paper.text(left, top + width + 6, paper.fitting(value + run, width))
        paper.set_xy(paper.l_margin, top + height)
    paper.set_font("Helvetica", size=9)


def _picture_legend(paper: _Paper) -> None:
    x, y = paper.l_margin, paper.get_y()
    paper.set_font("Helvetica", size=7)
    paper.set_draw_color(*_GREY)
    paper.set_line_width(0.2)
    for name, colour in (ERROR_COLOURS | MARK_COLOURS).items():
        paper.set_fill_color(*colour)
        paper.rect(x, y, 3, 3, style="DF")
        paper.text(x + 4, y + 2.4, name)
        x += 7 + paper.get_string_width(name)
    paper.set_xy(paper.l_margin, y + 5)


def _table(paper: _Paper, content: Content) -> None:
    paper.heading("All images")
    scores = content.scores[:_MOST_COLUMNS]
    if len(content.scores) > len(scores):
        paper.words(f"The first {len(scores)} of {len(content.scores)} scores; the page has all.")
    several = len(content.labels) > 1
    rows = [
        (
            image.name,
            *([content.labels[image.run]] if several else []),
            *(show_score(image.scores.get(score), score in content.whole) for score in scores),
        )
        for image in content.images
    ]
    paper.rows(
        ("Image", *(["Run"] if several else []), *scores), rows, (3, *([3] if several else []), *[1.6] * len(scores))
    )


def _range(low: float, high: float) -> str:
    return NO_SCORE if math.isnan(low) else f"{low:+.4f} to {high:+.4f}"


def _latin(text: str) -> str:
    """What the built-in fonts can write; other characters by their number, so that names stay apart."""
    return text.replace(NO_SCORE, "-").encode("latin-1", "backslashreplace").decode("latin-1")
