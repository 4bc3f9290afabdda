"""The pictures a report shows of each image: its layers, a map of its errors with marks, and a small one."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage.measure import find_contours

from topolora_monai.errors import DataError
from topolora_monai.io.pictures import open_picture, picture_size
from topolora_monai.metrics import SkeletonBreak, false_components, skeleton_breaks
from topolora_monai.reports.colours import ERROR_COLOURS, MARK_COLOURS, as_hex, viridis
from topolora_monai.reports.html.runs import Run
from topolora_monai.reports.html.scores import COUNTS
from topolora_monai.reports.layers import ClassLayers

Points = list[tuple[float, float]]

_SMALL = 240  # longest side of a thumbnail
_SMALLEST_MARK = 90  # a mark is at least the image's longest side by this


class TopologyErrors(NamedTuple):
    """What :data:`COUNTS` counts: gaps in the true centreline, false links in the predicted one, and false parts."""

    breaks: list[SkeletonBreak]
    bridges: list[SkeletonBreak]
    false_components: list[Points]
    """Their outlines, as (row, column)."""


class ClassPictures(NamedTuple):
    """Pictures of one class of one image by layer, its own, ``errors`` and ``marks``, and what :data:`COUNTS` counts.

    Counts are None where the masks are not at hand.
    """

    files: dict[str, str]
    counts: Sequence[int | None] = (None,) * len(COUNTS)


class ImagePictures(NamedTuple):
    """Pictures of one image; paths relative to the report.

    Args:
        files: ``input`` and ``figure``, the latter where layers are missing.
        thumbnail: a small picture; None where there is nothing to show.
        size: width and height; None where there are no layers.
        classes: one for each class.
    """

    files: dict[str, str]
    thumbnail: str | None = None
    size: tuple[int, int] | None = None
    classes: Sequence[ClassPictures] = ()

    def errors(self) -> list[str]:
        """What to lay over one another to show the errors, of the first class with any; empty without pictures."""
        found = [[one.files["errors"], one.files["marks"]] for one in self.classes if "errors" in one.files]
        return [*found, [self.thumbnail] if self.thumbnail else []][0]

    def counts(self) -> list[int | None]:
        """Sums of the counts over the classes; None where no masks are at hand."""
        each = [one.counts for one in self.classes] or [ClassPictures({}).counts]
        return [None if None in of else sum(filter(None, of)) for of in zip(*each, strict=True)]


def make_pictures(run: Run, name: str, folder: Path, report: Path) -> ImagePictures:
    """Write the pictures of one image of a run to a folder of its own, created if there is anything to show.

    Paths are relative to ``report``. A ``DataError`` if a picture of the run is damaged, or those of one image differ
    in size; an ``OSError`` if one cannot be written.
    """
    layers = run.layers(name)
    present = [path for path in (layers.input, *(path for one in layers.classes for path in one)) if path]
    if not present:
        return _only_figure(run.figure(name), folder, report)
    folder.mkdir(parents=True, exist_ok=True)
    size = _one_size([*present, *([layers.fov] if layers.fov else [])])
    inside = _mask(layers.fov) if layers.fov else None
    classes, small = [], None
    for number, one in enumerate(layers.classes, start=1):
        suffix = f"_{number}" if len(layers.classes) > 1 else ""
        pictures, its_small = _class_pictures(one, folder, report, suffix, inside)
        classes.append(pictures)
        small = small or its_small
    return ImagePictures(
        files={"input": _copy(layers.input, folder / "input.png", report)} if layers.input else {},
        thumbnail=_save(small or _shrunk(open_picture(present[0])), folder / "small.png", report),
        size=size,
        classes=classes,
    )


def topology_errors(
    prediction: NDArray[np.bool_], target: NDArray[np.bool_], mask: NDArray[np.bool_] | None = None
) -> TopologyErrors:
    """Where a mask of shape (H, W) breaks a structure, joins what is apart, or sees what is not there.

    Example:
        >>> line = np.zeros((9, 40), bool)
        >>> line[4, 2:38] = True
        >>> spot = np.zeros_like(line)
        >>> spot[7:9, 10:12] = True
        >>> found = topology_errors(line | spot, line)
        >>> len(found.breaks), len(found.bridges), found.false_components[0][0]
        (0, 0, (8.5, 11.0))
    """
    parts, outlines = false_components(prediction, target, mask), []
    for number, (rows, columns) in enumerate(ndimage.find_objects(parts), start=1):
        part = np.pad(parts[rows, columns] == number, 1)
        outline = max(find_contours(part.astype(float), 0.5, fully_connected="high"), key=len)
        outlines.append([(float(r) - 1 + rows.start, float(c) - 1 + columns.start) for r, c in outline])
    return TopologyErrors(
        skeleton_breaks(prediction, target, mask), skeleton_breaks(target, prediction, mask), outlines
    )


def _only_figure(figure: Path | None, folder: Path, report: Path) -> ImagePictures:
    if figure is None:
        return ImagePictures({})
    folder.mkdir(parents=True, exist_ok=True)
    whole = open_picture(figure)
    errors = whole.crop((whole.width * 3 // 4, 0, whole.width, whole.height))  # the last of four
    files = {"figure": _copy(figure, folder / "figure.png", report)}
    return ImagePictures(files, _save(_shrunk(errors), folder / "small.png", report))


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
    files = {}
    for name, path in layers._asdict().items():
        place = folder / f"{name}{suffix}.png"
        if path and name in ("truth", "prediction"):
            files[name] = _copy(path, place, report)
        elif path:
            files[name] = _save(_with_palette(np.asarray(open_picture(path).convert("L")), viridis()), place, report)
    if not layers.truth or not layers.prediction:
        return ClassPictures(files), None
    truth, prediction = _mask(layers.truth), _mask(layers.prediction)
    kinds = np.where(truth, np.where(prediction, 1, 3), np.where(prediction, 2, 0))
    if inside is not None:
        kinds[~inside] = 4
    errors = _with_palette(kinds.astype(np.uint8), np.array(list(ERROR_COLOURS.values()), np.uint8))
    found = topology_errors(prediction, truth, inside)
    files["errors"] = _save(errors, folder / f"errors{suffix}.png", report)
    marks = folder / f"marks{suffix}.svg"
    marks.write_text(_marks(found, errors.size), encoding="utf-8")
    files["marks"] = _relative(marks, report)
    return ClassPictures(files, [len(of) for of in found]), _small_errors(errors, found)


def _with_palette(values: NDArray[np.uint8], colours: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(values, "L")
    picture.putpalette(colours.tobytes())
    return picture


def _marks(found: TopologyErrors, size: tuple[int, int]) -> str:
    """An SVG to lay over the error map; dark lines below bright ones show on any ground."""
    width, height = size

    def circle(gap: SkeletonBreak) -> str:
        return f'<circle cx="{gap.col + 0.5:g}" cy="{gap.row + 0.5:g}" r="{_reach(gap, size):.1f}"/>'

    def polygon(points: Points) -> str:
        return f'<polygon points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'

    shapes = (
        [circle(gap) for gap in found.breaks],
        [polygon(_corners(gap, size)) for gap in found.bridges],
        [polygon(_centred(points)) for points in found.false_components],
    )
    groups = [
        f'<g stroke="{stroke}" stroke-width="{thick}">{"".join(drawn)}</g>'
        for colour, drawn in zip(MARK_COLOURS.values(), shapes, strict=True)
        for stroke, thick in (("#000000", 4.5), (as_hex(colour), 2.2))
        if drawn
    ]
    style = "<style>g>*{vector-effect:non-scaling-stroke}</style>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'fill="none" stroke-linejoin="round">{style}{"".join(groups)}</svg>\n'
    )


def _small_errors(errors: Image.Image, found: TopologyErrors) -> Image.Image:
    """The map and its marks in one small picture, for galleries and paper."""
    small = _shrunk(errors)
    scale, draw = small.width / errors.width, ImageDraw.Draw(small)
    broken, joined, false = MARK_COLOURS.values()
    for gap in found.breaks:
        x, y, reach = (gap.col + 0.5) * scale, (gap.row + 0.5) * scale, max(4.0, _reach(gap, errors.size) * scale)
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=broken, width=2)
    for gap in found.bridges:
        corners = _corners(gap, errors.size, least=4.0 / scale)
        draw.polygon([(x * scale, y * scale) for x, y in corners], outline=joined, width=2)
    for points in found.false_components:
        draw.line([(x * scale, y * scale) for x, y in _centred(points)], fill=false, width=1)
    return small


def _reach(gap: SkeletonBreak, size: tuple[int, int]) -> float:
    return max(gap.radius + 3, max(size) / _SMALLEST_MARK)


def _corners(gap: SkeletonBreak, size: tuple[int, int], least: float = 0.0) -> Points:
    """Of a diamond, as (x, y)."""
    x, y, reach = gap.col + 0.5, gap.row + 0.5, max(least, _reach(gap, size) * 1.25)
    return [(x, y - reach), (x + reach, y), (x, y + reach), (x - reach, y)]


def _centred(points: Points) -> Points:
    """Of (row, column) at the centres of pixels, (x, y)."""
    return [(column + 0.5, row + 0.5) for row, column in points]


def _shrunk(picture: Image.Image) -> Image.Image:
    small = picture.convert("RGB")
    small.thumbnail((_SMALL, _SMALL), Image.Resampling.LANCZOS)
    return small


def _mask(path: Path) -> NDArray[np.bool_]:
    return np.asarray(np.asarray(open_picture(path).convert("L")) > 127)


def _copy(source: Path, target: Path, report: Path) -> str:
    shutil.copyfile(source, target)
    return _relative(target, report)


def _save(picture: Image.Image, target: Path, report: Path) -> str:
    picture.save(target, optimize=True)
    return _relative(target, report)


def _relative(path: Path, report: Path) -> str:
    return path.relative_to(report).as_posix()
