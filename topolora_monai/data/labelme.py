"""labelme's annotation files as images with masks."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from topolora_monai.data.annotation_files import Annotated, Place, category_values, draw_masks, json_files, load_json
from topolora_monai.data.items import Item, image_files
from topolora_monai.data.shapes import Mask, draw_disc, draw_line, fill_polygon
from topolora_monai.errors import DataError

_BACKGROUND_LABEL = "_background_"  # labelme's own name for what no class is


def is_labelme(content: object) -> bool:
    """Whether the content of a JSON file is labelme's: it has ``shapes`` and an ``imagePath``."""
    return isinstance(content, dict) and {"shapes", "imagePath"} <= content.keys()


def read_labelme(
    folder: str | Path, categories: Sequence[str] | None = None, line_width: float | None = None
) -> list[Item]:
    """Images of a folder with labelme's JSON files beside them, with a mask drawn for each in order of their names.

    Polygons, rectangles, circles and masks are filled, lines and line strips are ``line_width`` wide, points
    are refused, having no area. Shapes are united; those labelled ``_background_`` take away from earlier ones.
    A file without shapes gives an empty mask; an image without file is refused, since nobody may have looked
    at it. Pixels and mask files are as for :func:`~topolora_monai.data.coco.read_coco`, in ``labelme_masks/``.

    Args:
        folder: of both.
        categories: labels that are foreground; others are passed over. All but ``_background_`` by default.
        line_width: in pixels, needed where there are lines.

    Raises:
        DataError: naming the JSON file, if it is not as labelme writes it, its image is missing or of another
            size, a shape cannot be drawn, or an image has no JSON file or several.
        ConfigError: if one of ``categories`` is nobody's label.
    """
    folder = Path(folder).absolute()
    contents = {path: _content(path) for path in json_files(folder)}
    labels = sorted({shape["label"] for content in contents.values() for shape in content["shapes"]})
    values = category_values([label for label in labels if label != _BACKGROUND_LABEL], categories, folder)
    values[_BACKGROUND_LABEL] = 0
    images = []
    for path, content in contents.items():
        relative = str(content["imagePath"]).replace("\\", "/")  # as written on Windows
        image = Place(path, "imagePath").image(relative, [folder])
        size = (content.get("imageHeight"), content.get("imageWidth"))
        shapes = partial(_shapes, content["shapes"], values, line_width, path)
        images.append(Annotated(image, path.stem, path, size, shapes))
    _check_one_file_each(images, folder)
    return draw_masks(images, (values, line_width), folder / "labelme_masks")


def _content(path: Path) -> dict[str, Any]:
    content = load_json(path)
    if not is_labelme(content):
        raise DataError(
            "not a labelme file", path=path, expected="shapes and imagePath", hint="keep other JSON files elsewhere"
        )
    shapes = content["shapes"]
    if not isinstance(shapes, list) or not all(isinstance(s, dict) and isinstance(s.get("label"), str) for s in shapes):
        raise DataError("labelme file has no list of labelled shapes", path=path, expected='[{"label": ...}, ...]')
    return dict(content)


def _shapes(
    shapes: Sequence[Mapping[str, Any]],
    values: Mapping[str, int],
    line_width: float | None,
    path: Path,
    size: tuple[int, int],
) -> Iterator[tuple[int, Mask]]:
    for number, shape in enumerate(shapes):
        if shape["label"] in values:
            place = Place(path, f"shape {number}, labelled {shape['label']}")
            yield values[shape["label"]], _mask(shape, line_width, size, place)


def _mask(shape: Mapping[str, Any], line_width: float | None, size: tuple[int, int], place: Place) -> Mask:
    kind = shape.get("shape_type") or "polygon"  # the first versions knew nothing else
    points = partial(place.points, shape.get("points"), what=kind)
    if kind == "polygon":
        return fill_polygon(points(3), size)
    if kind == "rectangle":
        corners = points(2)
        (x0, y0), (x1, y1) = corners[0], corners[1]
        return fill_polygon(corners if len(corners) > 2 else [(x0, y0), (x1, y0), (x1, y1), (x0, y1)], size)
    if kind == "circle":
        centre, rim = points(2)[:2]
        return draw_disc((centre[0], centre[1]), float(np.hypot(*(rim - centre))), size)
    if kind in ("line", "linestrip"):
        if line_width is None:
            raise place.refuse("line has no width", "a line_width in pixels", "none", "give line_width")
        return draw_line(points(2), line_width, size)
    if kind == "mask":
        return _embedded_mask(shape.get("mask"), points(2)[0], size, place)
    raise place.refuse(
        "shape cannot be drawn",
        "polygon, rectangle, circle, line, linestrip or mask",
        kind,
        "draw an outline in its place, or take it out",
    )


def _embedded_mask(encoded: Any, corner: NDArray[np.float64], size: tuple[int, int], place: Place) -> Mask:
    """A PNG in base64 whose upper left pixel lies at ``corner``."""
    try:
        part = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded)))) > 0
    except (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError) as error:
        raise place.refuse("mask is damaged", "a PNG in base64", error) from error
    left, top = (int(value) for value in corner)
    mask: Mask = np.zeros(size, dtype=bool)
    window = mask[top : top + len(part), left : left + part.shape[-1]] if min(left, top) >= 0 else mask[:0]
    if window.shape != part.shape:
        raise place.refuse("mask does not fit the image", f"{size[1]}x{size[0]}", f"{part.shape} at {left}, {top}")
    window[:] = part
    return mask


def _check_one_file_each(images: Sequence[Annotated], folder: Path) -> None:
    source_of: dict[Path, Path] = {}
    for annotated in images:
        if annotated.image in source_of:
            raise DataError(
                f"several files annotate one image: {annotated.image.name}",
                path=folder,
                expected="one",
                found=f"{source_of[annotated.image].name}, {annotated.source.name}",
                hint="keep the right one",
            )
        source_of[annotated.image] = annotated.source
    alone = [path.name for path in image_files(folder) if path not in source_of]
    if alone:
        raise DataError(
            f"image without labelme file: {alone[0]}",
            path=folder,
            expected="a .json file for each image",
            found=f"{len(alone)} images without",
            hint="save it in labelme, with no shape if it shows nothing, or take the image out",
        )
