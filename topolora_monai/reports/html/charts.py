"""Line and bar charts as data, drawn as SVG."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

DASHES = ("none", "7 3", "2 3", "9 3 2 3", "12 4")
"""Lengths of strokes and gaps of a chart's lines, in turn."""

_WIDTH, _HEIGHT = 480.0, 300.0
_LEFT, _TOP, _RIGHT, _BOTTOM = 58.0, 10.0, _WIDTH - 14.0, _HEIGHT - 44.0


class Series(NamedTuple):
    """One line, whose points are marked with ``dots``, or one set of ``bars`` that stand on zero."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = False
    bars: bool = False


class Chart(NamedTuple):
    """A chart with its axes.

    Its ``limits`` are x from, x to, y from and y to, those of the data where None; ``diagonal`` is drawn where both
    axes are equal; ``summary`` says in words what it shows. There is at least one series, and none without points.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    limits: tuple[float, float, float, float] | None = None
    diagonal: bool = False
    summary: str = ""


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
    """The chart as an SVG element in the page's colours; its number there is in the names that refer to others."""
    x0, x1, y0, y1 = chart.limits or _limits(chart.series)

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + (x - x0) / (x1 - x0) * (_RIGHT - _LEFT), _BOTTOM - (y - y0) / (y1 - y0) * (_BOTTOM - _TOP)

    parts = [_tag("title", chart.title, id=f"ct{number}"), _tag("desc", chart.summary, id=f"cd{number}")]
    for tick in nice_ticks(x0, x1):
        x, _ = place(tick, y0)
        parts += [_line("grid", x, _TOP, x, _BOTTOM), _words(f"{tick:g}", "middle", x=x, y=_BOTTOM + 16)]
    for tick in nice_ticks(y0, y1):
        _, y = place(x0, tick)
        parts += [_line("grid", _LEFT, y, _RIGHT, y), _words(f"{tick:g}", "end", x=_LEFT - 7, y=y + 4)]
    parts.append(_words(chart.x_label, "middle", x=(_LEFT + _RIGHT) / 2, y=_HEIGHT - 8))
    middle = f"translate(13 {(_TOP + _BOTTOM) / 2:.1f}) rotate(-90)"
    parts.append(_words(chart.y_label, "middle", transform=middle))
    if chart.diagonal:
        parts.append(_line("diagonal", *place(x0, x0), *place(x1, x1)))
    for index, one in enumerate(chart.series):
        parts += _drawn(one, index, place)
    parts += [_line("axis", _LEFT, _BOTTOM, _RIGHT, _BOTTOM), _line("axis", _LEFT, _TOP, _LEFT, _BOTTOM)]
    named = f"ct{number} cd{number}"
    return _tag("svg", *parts, class_="chart", viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}", role="img", aria_labelledby=named)


def _drawn(series: Series, index: int, place: Callable[[float, float], tuple[float, float]]) -> list[Markup]:
    colour = f"s{index % len(DASHES)}"
    points = [place(x, y) for x, y in zip(series.x, series.y, strict=True)]
    if series.bars:
        thick = max(1.0, 0.7 * (_RIGHT - _LEFT) / max(1, len(points)))
        _, zero = place(0.0, 0.0)
        bars = [_tag("rect", x=x - thick / 2, y=min(y, zero), width=thick, height=abs(y - zero)) for x, y in points]
        return [_tag("g", *bars, class_=f"bars {colour}"), _line("axis", _LEFT, zero, _RIGHT, zero)]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    drawn = [_tag("path", class_=f"line {colour}", stroke_dasharray=DASHES[index % len(DASHES)], d=path)]
    if series.dots:
        drawn.append(_tag("g", *(_tag("circle", cx=x, cy=y, r="3") for x, y in points), class_=f"dots {colour}"))
    return drawn


def _tag(name: str, *inside: str, **attributes: str | float) -> Markup:
    """An element; all but mark-up is escaped, and ``_`` in names of attributes is a hyphen or keeps off Python's."""
    written = [
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), f"{of:.1f}" if isinstance(of, float) else of)
        for key, of in attributes.items()
    ]
    return Markup("<{0}{1}>{2}</{0}>").format(name, Markup("").join(written), Markup("").join(inside))


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return _tag("line", class_=kind, x1=x1, y1=y1, x2=x2, y2=y2)


def _words(text: str, anchor: str, **where: Any) -> Markup:
    return _tag("text", text, **where, text_anchor=anchor)


def _limits(series: Sequence[Series]) -> tuple[float, float, float, float]:
    y = [value for one in series for value in one.y] + [0.0] * any(one.bars for one in series)
    return *_span([value for one in series for value in one.x]), *_span(y)


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        return low - max(abs(low) * 0.1, 0.5), high + max(abs(high) * 0.1, 0.5)
    return low, high
