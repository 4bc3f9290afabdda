"""Charts on paper, the same as the page's."""

from __future__ import annotations

from topolora_monai.reports.html.charts import DASHES, Chart, Frame, Series
from topolora_monai.reports.html.colours import SERIES_COLOURS
from topolora_monai.reports.html.paper import GREY, Paper

__all__ = ["draw_chart"]


def draw_chart(paper: Paper, chart: Chart, box: tuple[float, float, float, float]) -> None:
    """Draw a chart with its title, axes and legend.

    Args:
        paper: the page is its present one.
        chart: what to draw.
        box: left, top, width and height in mm.
    """
    left, top, width, height = box
    paper.set_xy(left, top)
    paper.set_font("Helvetica", "B", 8)
    paper.cell(width, 4, paper.fitting(chart.title, width))
    frame = Frame(chart, (left + 13, top + 6, width - 16, height - 22))
    _axes(paper, chart, frame, left)
    paper.set_draw_color(*GREY)
    if chart.diagonal:
        paper.set_dash_pattern(1, 1)
        paper.line(*frame.place(frame.x0, frame.x0), *frame.place(frame.x1, frame.x1))
        paper.set_dash_pattern()
    for index, one in enumerate(chart.series):
        _series(paper, one, index, frame)
    paper.set_draw_color(*GREY)
    paper.set_line_width(0.2)
    paper.rect(frame.left, frame.top, frame.width, frame.height)
    if len(chart.series) > 1:
        _legend(paper, chart, frame.left, frame.top + frame.height + 9, frame.width)
    paper.set_fill_color(255, 255, 255)


def _axes(paper: Paper, chart: Chart, frame: Frame, left: float) -> None:
    right, bottom = frame.left + frame.width, frame.top + frame.height
    paper.set_font("Helvetica", size=7)
    paper.set_line_width(0.1)
    paper.set_draw_color(205, 205, 205)
    for tick in frame.x_ticks:
        x, _ = frame.place(tick, frame.y0)
        paper.line(x, frame.top, x, bottom)
        paper.text(x - paper.get_string_width(f"{tick:g}") / 2, bottom + 3.4, f"{tick:g}")
    for tick in frame.y_ticks:
        _, y = frame.place(frame.x0, tick)
        paper.line(frame.left, y, right, y)
        paper.text(frame.left - 1.2 - paper.get_string_width(f"{tick:g}"), y + 0.9, f"{tick:g}")
    paper.set_xy(frame.left, bottom + 4)
    paper.cell(frame.width, 4, paper.fitting(chart.x_label, frame.width), align="C")
    label = paper.fitting(chart.y_label, frame.height)
    middle = (frame.top + bottom) / 2 + paper.get_string_width(label) / 2
    with paper.rotation(90, left + 3, middle):
        paper.text(left + 3, middle, label)


def _series(paper: Paper, series: Series, index: int, frame: Frame) -> None:
    points = [frame.place(x, y) for x, y in zip(series.x, series.y, strict=True)]
    _pen(paper, index)
    if series.bars:
        thick = max(0.3, 0.7 * frame.width / max(1, len(points)))
        _, zero = frame.place(frame.x0, 0.0)
        for x, y in points:
            paper.rect(x - thick / 2, min(y, zero), thick, abs(y - zero), style="F")
    else:
        paper.polyline(points)
        paper.set_dash_pattern()
        if series.dots:
            for x, y in points:
                paper.circle(x, y, 0.7, style="F")
    paper.set_dash_pattern()


def _pen(paper: Paper, index: int) -> None:
    colour = SERIES_COLOURS[index % len(SERIES_COLOURS)]
    paper.set_draw_color(*colour)
    paper.set_fill_color(*colour)
    paper.set_line_width(0.45)
    dash = DASHES[index % len(DASHES)]
    if dash:
        paper.set_dash_pattern(dash[0] * 0.22, dash[1] * 0.22)


def _legend(paper: Paper, chart: Chart, left: float, top: float, width: float) -> None:
    each = width / min(3, len(chart.series))
    for index, one in enumerate(chart.series):
        x, y = left + index % 3 * each, top + index // 3 * 4
        _pen(paper, index)
        paper.line(x, y + 1.4, x + 7, y + 1.4)
        paper.set_dash_pattern()
        paper.text(x + 8.5, y + 2.4, paper.fitting(one.name, each - 9))
