"""The pictures a report shows of each image: its layers, a map of its errors with marks, and a small one."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from topolora_monai.errors import DataError
from topolora_monai.io.pictures import open_picture, picture_size
from topolora_monai.metrics.breaks import SkeletonBreak
from topolora_monai.reports.html.colours import ERROR_COLOURS, MARK_COLOURS, as_hex, viridis
from topolora_monai.reports.html.runs import Run
from topolora_monai.reports.html.topology import Point, TopologyErrors, topology_errors
from topolora_monai.reports.layers import ClassLayers

__all__ = ["ClassPictures", "ImagePictures", "make_pictures"]

_SMALL = 240  # longest side of a thumbnail
_SMALLEST_MARK = 90  # a mark is at least the image's longest side by this


@dataclasses.dataclass(frozen=True)
class ClassPictures:
    """Pictures of one class of one image.

    Args:
        files: path by layer: ``truth``, ``prediction``, ``probability``, ``uncertainty``, ``errors`` and ``marks``,
            as far as they exist.
        breaks: how many connections are broken; None where the masks are not at hand.
        bridges: how many are false.
        false_components: how many predicted parts touch nothing true.
    """

    files: dict[str, str]
    breaks: int | None = None
    bridges: int | None = None
    false_components: int | None = None


@dataclasses.dataclass(frozen=True)
class ImagePictures:
    """Pictures of one image; paths relative to the report.

    Args:
        size: width and height; None where there are no layers.
        files: ``input`` and ``figure``, the latter where layers are missing.
        thumbnail: a small picture; None where there is nothing to show.
        classes: one for each class.
    """

    size: tuple[int, int] | None
    files: dict[str, str]
    thumbnail: str | None
    classes: tuple[ClassPictures, ...]

    def count(self, what: str) -> int | None:
        """Sum of one of the counts over the classes; None where no masks are at hand."""
        counts = [getattr(one, what) for one in self.classes]
        return None if not counts or None in counts else sum(counts)


def make_pictures(run: Run, name: str, folder: Path, report: Path) -> ImagePictures:
    """Write the pictures of one image.

    Args:
        run: where it was scored.
        name: the image's.
        folder: the image's own place in the report; created if there is anything to show.
        report: what the paths are relative to.

    Raises:
        DataError: if a picture of the run is damaged, or those of one image differ in size.
        OSError: if one cannot be written.
    """
    layers = run.layers(name)
    sources = [layers.input, *(path for one in layers.classes for path in dataclasses.astuple(one))]
    present = [path for path in sources if path is not None]
    if not present:
        return _only_figure(run.figure(name), folder, report)
    folder.mkdir(parents=True, exist_ok=True)
    size = _one_size([*present, *([layers.fov] if layers.fov else [])])
    inside = _mask(layers.fov) if layers.fov else None
    files = {"input": _copy(layers.input, folder / "input.png", report)} if layers.input else {}
    numbered = len(layers.classes) > 1
    classes = [
        _class_pictures(one, folder, report, f"_{number}" if numbered else "", inside)
        for number, one in enumerate(layers.classes, start=1)
    ]
    smalls = [small for _, small in classes if small is not None]
    small = smalls[0] if smalls else _shrunk(open_picture(present[0]).convert("RGB"))
    return ImagePictures(
        size=size,
        files=files,
        thumbnail=_save(small, folder / "small.png", report),
        classes=tuple(pictures for pictures, _ in classes),
    )


def _only_figure(figure: Path | None, folder: Path, report: Path) -> ImagePictures:
    if figure is None:
        return ImagePictures(None, {}, None, ())
    folder.mkdir(parents=True, exist_ok=True)
    whole = open_picture(figure).convert("RGB")
    errors = whole.crop((whole.width * 3 // 4, 0, whole.width, whole.height))  # the last of four
    small = _save(_shrunk(errors), folder / "small.png", report)
    return ImagePictures(None, {"figure": _copy(figure, folder / "figure.png", report)}, small, ())


def _one_size(paths: list[Path]) -> tuple[int, int]:
    sizes = {path: picture_size(path)[::-1] for path in paths}
    first = sizes[paths[0]]
    for path, size in sizes.items():
        if size != first:
            raise DataError(
                "pictures of one image differ in size",
                path=path,
                expected="x".join(map(str, first)),
                found="x".join(map(str, size)),
                hint="evaluate the run again",
            )
    return first


def _class_pictures(
    layers: ClassLayers, folder: Path, report: Path, suffix: str, inside: NDArray[np.bool_] | None
) -> tuple[ClassPictures, Image.Image | None]:
    files = {
        name: _copy(path, folder / f"{name}{suffix}.png", report)
        for name, path in (("truth", layers.truth), ("prediction", layers.prediction))
        if path
    }
    for name, path in (("probability", layers.probability), ("uncertainty", layers.uncertainty)):
        if path:
            files[name] = _save(_heat(path), folder / f"{name}{suffix}.png", report)
    if not layers.truth or not layers.prediction:
        return ClassPictures(files), None
    truth, prediction = _mask(layers.truth), _mask(layers.prediction)
    errors = _error_map(truth, prediction, inside)
    found = topology_errors(prediction, truth, inside)
    files["errors"] = _save(errors, folder / f"errors{suffix}.png", report)
    marks = folder / f"marks{suffix}.svg"
    marks.write_text(_marks(found, errors.size), encoding="utf-8")
    files["marks"] = _relative(marks, report)
    pictures = ClassPictures(files, len(found.breaks), len(found.bridges), len(found.false_components))
    return pictures, _small_errors(errors, found)


def _error_map(
    truth: NDArray[np.bool_], prediction: NDArray[np.bool_], inside: NDArray[np.bool_] | None
) -> Image.Image:
    values = np.zeros(truth.shape, np.uint8)
    values[truth & prediction], values[~truth & prediction], values[truth & ~prediction] = 1, 2, 3
    if inside is not None:
        values[~inside] = 4
    return _with_palette(values, np.array(list(ERROR_COLOURS.values()), np.uint8))


def _heat(path: Path) -> Image.Image:
    return _with_palette(np.asarray(open_picture(path).convert("L")), viridis())


def _with_palette(values: NDArray[np.uint8], colours: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(values, "L")
    picture.putpalette(colours.tobytes())
    return picture


def _marks(found: TopologyErrors, size: tuple[int, int]) -> str:
    """An SVG to lay over the error map; dark lines below bright ones show on any ground."""
    width, height = size
    shapes = {
        "broken connection": [_circle(gap, size) for gap in found.breaks],
        "false connection": [_diamond(gap, size) for gap in found.bridges],
        "false part": [_outline(points) for points in found.false_components],
    }
    groups = [
        f'<g stroke="{colour}" stroke-width="{thick}">{"".join(drawn)}</g>'
        for what, drawn in shapes.items()
        for colour, thick in (("#000000", 4.5), (as_hex(MARK_COLOURS[what]), 2.2))
        if drawn
    ]
    style = "<style>g>*{vector-effect:non-scaling-stroke}</style>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'fill="none" stroke-linejoin="round">{style}{"".join(groups)}</svg>\n'
    )


def _reach(gap: SkeletonBreak, size: tuple[int, int]) -> float:
    return max(gap.radius + 3, max(size) / _SMALLEST_MARK)


def _circle(gap: SkeletonBreak, size: tuple[int, int]) -> str:
    return f'<circle cx="{gap.col + 0.5:g}" cy="{gap.row + 0.5:g}" r="{_reach(gap, size):.1f}"/>'


def _diamond(gap: SkeletonBreak, size: tuple[int, int]) -> str:
    return f'<polygon points="{_text(_corners(gap, _reach(gap, size) * 1.25))}"/>'


def _outline(points: tuple[Point, ...]) -> str:
    return f'<polygon points="{_text([(column + 0.5, row + 0.5) for row, column in points])}"/>'


def _corners(gap: SkeletonBreak, reach: float) -> list[tuple[float, float]]:
    row, column = gap.row + 0.5, gap.col + 0.5
    return [(column, row - reach), (column + reach, row), (column, row + reach), (column - reach, row)]


def _text(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _small_errors(errors: Image.Image, found: TopologyErrors) -> Image.Image:
    """The map and its marks in one small picture, for galleries and paper."""
    small = _shrunk(errors.convert("RGB"))
    scale, draw = small.width / errors.width, ImageDraw.Draw(small)
    for gap in found.breaks:
        x, y, reach = (gap.col + 0.5) * scale, (gap.row + 0.5) * scale, max(4.0, _reach(gap, errors.size) * scale)
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=MARK_COLOURS["broken connection"], width=2)
    for gap in found.bridges:
        reach = max(4.0 / scale, _reach(gap, errors.size) * 1.25)
        corners = [(x * scale, y * scale) for x, y in _corners(gap, reach)]
        draw.polygon(corners, outline=MARK_COLOURS["false connection"], width=2)
    for points in found.false_components:
        line = [((column + 0.5) * scale, (row + 0.5) * scale) for row, column in points]
        draw.line(line, fill=MARK_COLOURS["false part"], width=1)
    return small


def _shrunk(picture: Image.Image) -> Image.Image:
    small = picture.copy()
    small.thumbnail((_SMALL, _SMALL), Image.Resampling.LANCZOS)
    return small


def _mask(path: Path) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = np.asarray(open_picture(path).convert("L")) > 127
    return mask


def _copy(source: Path, target: Path, report: Path) -> str:
    shutil.copyfile(source, target)
    return _relative(target, report)


def _save(picture: Image.Image, target: Path, report: Path) -> str:
    picture.save(target, optimize=True)
    return _relative(target, report)


def _relative(path: Path, report: Path) -> str:
    return path.relative_to(report).as_posix()
