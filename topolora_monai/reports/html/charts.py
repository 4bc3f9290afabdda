"""Line and bar charts as data, drawn as SVG."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from markupsafe import Markup, escape

__all__ = ["DASHES", "Chart", "Frame", "Series", "as_svg", "nice_ticks"]

DASHES = ((), (7.0, 3.0), (2.0, 3.0), (9.0, 3.0, 2.0, 3.0), (12.0, 4.0))
"""Lengths of strokes and gaps of a chart's lines, in turn."""

_WIDTH, _HEIGHT = 480.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 14.0, 10.0, 44.0


@dataclasses.dataclass(frozen=True)
class Series:
    """One line, or one set of bars.

    Args:
        name: for the legend.
        x: where.
        y: as many.
        dots: mark the points.
        bars: stand on zero instead of a line.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = False
    bars: bool = False


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart with its axes.

    Args:
        title: what it shows.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        series: at least one, none without points.
        limits: of both axes, as (x from, x to, y from, y to); those of the data where None.
        diagonal: draw where both axes are equal.
        summary: what it says, in words.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    limits: tuple[float, float, float, float] | None = None
    diagonal: bool = False
    summary: str = ""


class Frame:
    """Where a chart's values lie in a box of some width and height.

    Args:
        chart: what is drawn.
        box: left, top, width and height of the area inside the axes.

    Example:
        >>> line = Series("loss", [0, 10], [0, 1])
        >>> Frame(Chart("", "", "", (line,)), (0, 0, 100, 50)).place(5, 1)
        (50.0, 0.0)
    """

    def __init__(self, chart: Chart, box: tuple[float, float, float, float]) -> None:
        self.left, self.top, self.width, self.height = box
        if chart.limits is not None:
            self.x0, self.x1, self.y0, self.y1 = chart.limits
        else:
            self.x0, self.x1 = _span([value for one in chart.series for value in one.x])
            y = [value for one in chart.series for value in one.y]
            self.y0, self.y1 = _span([*y, 0.0] if any(one.bars for one in chart.series) else y)
        self.x_ticks, self.y_ticks = nice_ticks(self.x0, self.x1), nice_ticks(self.y0, self.y1)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """A point of the chart in the box."""
        across = (x - self.x0) / (self.x1 - self.x0)
        up = (y - self.y0) / (self.y1 - self.y0)
        return self.left + across * self.width, self.top + (1 - up) * self.height


def nice_ticks(low: float, high: float) -> list[float]:
    """Round numbers in a range, three to eight of them.

    Example:
        >>> nice_ticks(0, 1)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    size = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (size * factor) <= 6)
    first = math.ceil(low / step - 1e-9)
    count = math.floor((high - first * step) / step + 1e-9)
    return [round((first + number) * step, 12) for number in range(count + 1)]


def as_svg(chart: Chart, number: int) -> Markup:
    """The chart as an SVG element whose colours are the page's.

    Args:
        chart: what to draw.
        number: of the chart on its page, for the names that refer to one another.
    """
    frame = Frame(chart, (_LEFT, _TOP, _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM))
    right, bottom = frame.left + frame.width, frame.top + frame.height
    parts = [
        Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-labelledby="ct{} cd{}">').format(
            f"{_WIDTH:g}", f"{_HEIGHT:g}", number, number
        ),
        Markup('<title id="ct{}">{}</title><desc id="cd{}">{}</desc>').format(
            number, chart.title, number, chart.summary
        ),
    ]
    for tick in frame.x_ticks:
        x, _ = frame.place(tick, frame.y0)
        parts.append(_line("grid", x, frame.top, x, bottom) + _words(f"{tick:g}", x, bottom + 16, "middle"))
    for tick in frame.y_ticks:
        _, y = frame.place(frame.x0, tick)
        parts.append(_line("grid", frame.left, y, right, y) + _words(f"{tick:g}", frame.left - 7, y + 4, "end"))
    parts.append(_words(chart.x_label, (frame.left + right) / 2, _HEIGHT - 8, "middle"))
    middle = (frame.top + bottom) / 2
    parts.append(
        Markup('<text transform="translate(13 {}) rotate(-90)" text-anchor="middle">{}</text>').format(
            f"{middle:.1f}", chart.y_label
        )
    )
    if chart.diagonal:
        parts.append(_line("diagonal", *frame.place(frame.x0, frame.x0), *frame.place(frame.x1, frame.x1)))
    parts += [_series(one, index, frame) for index, one in enumerate(chart.series)]
    parts.append(
        _line("axis", frame.left, bottom, right, bottom) + _line("axis", frame.left, frame.top, frame.left, bottom)
    )
    return Markup("").join([*parts, Markup("</svg>")])


def _series(series: Series, index: int, frame: Frame) -> Markup:
    colour = f"s{index % len(DASHES)}"
    points = [frame.place(x, y) for x, y in zip(series.x, series.y, strict=True)]
    if series.bars:
        thick = max(1.0, 0.7 * frame.width / max(1, len(points)))
        _, zero = frame.place(frame.x0, 0.0)
        bars = [
            Markup('<rect x="{}" y="{}" width="{}" height="{}"/>').format(
                f"{x - thick / 2:.1f}", f"{min(y, zero):.1f}", f"{thick:.1f}", f"{abs(y - zero):.1f}"
            )
            for x, y in points
        ]
        return Markup('<g class="bars {}">{}</g>').format(colour, Markup("").join(bars)) + _line(
            "axis", frame.left, zero, frame.left + frame.width, zero
        )
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dash = " ".join(f"{length:g}" for length in DASHES[index % len(DASHES)]) or "none"
    line = Markup('<path class="line {}" stroke-dasharray="{}" d="{}"/>').format(colour, dash, path)
    if not series.dots:
        return line
    dots = [Markup('<circle cx="{}" cy="{}" r="3"/>').format(f"{x:.1f}", f"{y:.1f}") for x, y in points]
    return line + Markup('<g class="dots {}">{}</g>').format(colour, Markup("").join(dots))


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
        kind, *(f"{value:.1f}" for value in (x1, y1, x2, y2))
    )


def _words(text: str, x: float, y: float, anchor: str) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(f"{x:.1f}", f"{y:.1f}", anchor, escape(text))


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        return low - max(abs(low) * 0.1, 0.5), high + max(abs(high) * 0.1, 0.5)
    return low, high
