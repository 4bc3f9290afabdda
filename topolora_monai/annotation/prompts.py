"""What an annotator says about an image: clicks, a box, strokes, and lines to trace, in its own pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topolora_monai.annotation.tracing import stroke_path
from topolora_monai.errors import ConfigError

Point = tuple[float, float]
"""Column and row, 0 at the centre of the first pixel."""

_APART, _MOST_ON_STROKE = 16, 8
"""Pixels of a stroke from one of its clicks to the next, and how many there are at most."""


class Click(NamedTuple):
    """A pixel that an annotator has told: column and row, 0 at the centre of the first, and whether it belongs."""

    x: float
    y: float
    positive: bool

    @property
    def pixel(self) -> tuple[int, int]:
        """(row, column) of the pixel that was hit."""
        return pixel_of((self.x, self.y))


class Stroke(NamedTuple):
    """A line drawn by hand through points (x, y), ``width`` pixels wide, and whether what it covers belongs."""

    points: tuple[Point, ...]
    positive: bool
    width: float = 3.0


def pixel_of(point: Point) -> tuple[int, int]:
    """(row, column) of the pixel that a point lies in."""
    return math.floor(point[1] + 0.5), math.floor(point[0] + 0.5)


@dataclass(frozen=True)
class Prompts:
    """Clicks in the order they were made, and a box; strokes, and lines to be traced and bridged.

    Args:
        clicks: on one class; of two on one pixel the later holds.
        box: (x0, y0, x1, y1), outside of which nothing changes; both corners are inside. Without clicks it asks the
            network what it sees there.
        label: number of the class, from 1.
        strokes: painted as they are.
        wires: of two points (x, y) or more each, between which :func:`~topolora_monai.annotation.trace` finds the way.
        bridges: points (x, y) at breaks, which :func:`~topolora_monai.annotation.bridge` joins.

    Raises:
        ConfigError: for a coordinate that is not finite, a box without area, a label below 1, a stroke without points
            or of no width, or a wire of less than two points.

    Example:
        >>> Prompts.from_lists([[12, 5]], [[3, 4]]).clicks
        (Click(x=12.0, y=5.0, positive=True), Click(x=3.0, y=4.0, positive=False))
    """

    clicks: tuple[Click, ...] = ()
    box: tuple[float, float, float, float] | None = None
    label: int = 1
    strokes: tuple[Stroke, ...] = ()
    wires: tuple[tuple[Point, ...], ...] = ()
    bridges: tuple[Point, ...] = ()

    def __post_init__(self) -> None:
        numbers = [number for point in self._points() for number in point] + list(self.box or ())
        if not all(math.isfinite(number) for number in numbers):
            raise ConfigError("coordinates of prompts must be finite numbers", found=numbers)
        if self.box is not None and not (self.box[0] <= self.box[2] and self.box[1] <= self.box[3]):
            raise ConfigError(
                "box of a prompt is empty", expected="(x0, y0, x1, y1), x0 <= x1, y0 <= y1", found=self.box
            )
        if self.label < 1:
            raise ConfigError(
                "label of a prompt must be that of a foreground class", expected="1 or more", found=self.label
            )
        if any(not stroke.points or not 0 < stroke.width < math.inf for stroke in self.strokes):
            raise ConfigError("a stroke needs points, and a width above 0", found=self.strokes)
        if any(len(wire) < 2 for wire in self.wires):
            raise ConfigError("a wire is traced between points", expected="at least two", found=self.wires)

    def _points(self) -> Iterator[Point]:
        yield from ((click.x, click.y) for click in self.clicks)
        for line in (*(stroke.points for stroke in self.strokes), *self.wires, self.bridges):
            yield from line

    @property
    def told(self) -> tuple[Click, ...]:
        """What a network is told: the clicks, and some along each stroke."""
        clicks = list(self.clicks)
        for stroke in self.strokes:
            path = stroke_path([pixel_of(point) for point in stroke.points])
            count = min(_MOST_ON_STROKE, 1 + len(path) // _APART)
            chosen = path[((np.arange(count) + 0.5) * len(path) / count).astype(int)].tolist()
            clicks += [Click(float(column), float(row), stroke.positive) for row, column in chosen]
        return tuple(clicks)

    @classmethod
    def from_lists(
        cls,
        foreground: Iterable[Sequence[float]] = (),
        background: Iterable[Sequence[float]] = (),
        box: Sequence[float] | None = None,
        label: int = 1,
        strokes: Iterable[Mapping[str, Any]] = (),
        wires: Iterable[Sequence[Sequence[float]]] = (),
        bridges: Iterable[Sequence[float]] = (),
    ) -> Prompts:
        """From lists of (x, y), as clients send them, whose common order is not known: foreground first.

        Strokes are mappings with the fields of :class:`Stroke`, positive unless they say otherwise.

        Raises:
            ConfigError: as the class, for a point without two coordinates or a box without four, and for a stroke with
                other fields.
        """
        clicks = [(_point(point), True) for point in foreground] + [(_point(point), False) for point in background]
        if box is not None and len(box) != 4:
            raise ConfigError("box of a prompt must have four numbers", expected="x0, y0, x1, y1", found=list(box))
        corners = None if box is None else (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
        lines = tuple(tuple(_point(point) for point in wire) for wire in wires)
        made = tuple(Click(*point, told) for point, told in clicks)
        return cls(made, corners, label, tuple(map(_stroke, strokes)), lines, tuple(_point(point) for point in bridges))

    def check_inside(self, size: tuple[int, int]) -> None:
        """Make sure that every point is on a pixel of an image of this (height, width), and the box on at least one.

        Raises:
            ConfigError: for the first that does not.
        """
        height, width = size
        for point in self._points():
            row, column = pixel_of(point)
            if not (0 <= row < height and 0 <= column < width):
                raise ConfigError(
                    "click outside of the image",
                    expected=f"x from 0 to {width - 1}, y from 0 to {height - 1}",
                    found=point,
                )
        if self.box is not None and not self.allowed(size).any():
            raise ConfigError("box outside of the image", expected=f"{width}x{height} pixels", found=self.box)

    def allowed(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Where the answer may change, shape (height, width): in the box, or everywhere without one."""
        inside = np.ones(size, bool)
        if self.box is not None:
            x0, y0, x1, y1 = (math.floor(number + 0.5) for number in self.box)
            inside[:] = False
            inside[max(0, y0) : max(0, y1 + 1), max(0, x0) : max(0, x1 + 1)] = True
        return inside

    def nearer(self, click: Click, like: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Pixels that lie nearer to a click than to any that says the opposite; shape of ``like``, (H, W)."""
        rows, columns = np.ogrid[: like.shape[0], : like.shape[1]]

        def squared(pixel: tuple[int, int]) -> NDArray[np.int64]:
            return np.asarray((rows - pixel[0]) ** 2 + (columns - pixel[1]) ** 2)

        own = squared(click.pixel)
        inside = np.ones_like(like)
        for other in self.clicks:
            if other.positive != click.positive and other.pixel != click.pixel:  # of two on one pixel the later holds
                inside &= own < squared(other.pixel)
        return inside


def _point(numbers: Sequence[float]) -> Point:
    if len(numbers) < 2:
        raise ConfigError("a click needs two coordinates", expected="x, y", found=list(numbers))
    return float(numbers[0]), float(numbers[1])


def _stroke(fields: Mapping[str, Any]) -> Stroke:
    try:
        told: dict[str, Any] = {"positive": True, **fields}
        stroke = Stroke(**told | {"points": tuple(map(_point, told["points"]))})
        if isinstance(stroke.positive, bool):
            return stroke._replace(width=float(stroke.width))
    except (TypeError, ValueError, KeyError):
        pass
    raise ConfigError("a stroke has other fields", expected="points, positive, width", found=repr(fields)[:80])
