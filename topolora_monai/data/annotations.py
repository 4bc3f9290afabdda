"""Annotation files of COCO and labelme as images with masks."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from topolora_monai.data.items import Item, image_files, plain_stem
from topolora_monai.data.mask_cache import Annotated, default_folder, draw_masks
from topolora_monai.data.shapes import decode_rle, draw_disc, draw_line, fill_polygon
from topolora_monai.errors import ConfigError, DataError, unknown_choice

__all__ = ["is_coco", "is_labelme", "json_files", "load_json", "read_coco", "read_labelme"]

_FOREGROUND = 255
_BACKGROUND_LABEL = "_background_"  # labelme's own name for what no class is

Mask = NDArray[np.bool_]
Size = tuple[int, int]


class _Place(NamedTuple):
    """Where in an annotation file something is."""

    path: Path
    what: str

    def refuse(
        self, message: str, expected: str, found: object, hint: str = "correct it and export again"
    ) -> DataError:
        return DataError(f"{message} ({self.what})", path=self.path, expected=expected, found=found, hint=hint)


def load_json(path: str | Path) -> Any:
    """Content of a JSON file.

    Raises:
        DataError: if it cannot be read, or is not JSON.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise DataError("file cannot be read", path=path, found=error.strerror) from error
    except (ValueError, RecursionError) as error:
        raise DataError("not valid JSON", path=path, found=str(error), hint="export or copy it again") from error


def json_files(folder: Path) -> list[Path]:
    """JSON files of a folder in order of name, hidden ones passed over."""
    files = (path for path in folder.iterdir() if path.suffix.lower() == ".json" and path.is_file())
    return sorted(path for path in files if not path.name.startswith("."))


def is_coco(content: object) -> bool:
    """Whether the content of a JSON file is a COCO data set: it has ``images`` and ``annotations``."""
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def is_labelme(content: object) -> bool:
    """Whether the content of a JSON file is labelme's: it has ``shapes`` and an ``imagePath``."""
    return isinstance(content, dict) and {"shapes", "imagePath"} <= content.keys()


def read_coco(
    path: str | Path,
    image_folder: str | Path | None = None,
    categories: Sequence[str] | None = None,
    class_index: bool = False,
    mask_folder: str | Path | None = None,
) -> list[Item]:
    """Images of a COCO JSON file, with a mask drawn for each.

    Polygons and run lengths, plain or compressed, of all annotations of an image are united; so are the parts
    of one annotation, since COCO's polygons have no holes. Crowds (``iscrowd``) are foreground like single
    objects. An image without annotation has an empty mask. :mod:`topolora_monai.data.shapes` states which
    pixels belong to a polygon.

    Masks are PNG files of 0 and 255 in a folder named after a hash of the JSON file, so that an edited one
    gets new masks. They are drawn at the first call.

    Args:
        path: the JSON file.
        image_folder: that ``file_name`` is relative to; by default the JSON file's own folder, ``images/`` in it
            or ``images/`` beside it, whichever has the image.
        categories: names of those that are foreground; others are passed over. All by default.
        class_index: in place of 255, write 1 for the first of ``categories`` (by default: of the file's), 2 for
            the second and so on, later annotations over earlier ones.
        mask_folder: where to keep the masks; by default ``STEM_masks/`` beside the JSON file, or, where that
            cannot be written, in the user's cache.

    Returns:
        ``name``, ``image`` and ``label`` of each image, in order of ``file_name``.

    Raises:
        DataError: naming the JSON file and the image, if the file is not as COCO describes it, an image is
            missing or of another size, or an annotation has no outline, fewer than 3 points, or an unknown
            image or category.
        ConfigError: if one of ``categories`` is none of the file's.
        OutputError: if the masks cannot be written.
    """
    path = Path(path).absolute()
    content = load_json(path)
    if not is_coco(content):
        raise DataError("not a COCO file", path=path, expected="images, annotations and categories")
    entries = _by_id(content, "images", path)
    names = {key: str(category.get("name")) for key, category in _by_id(content, "categories", path).items()}
    annotations = _by_image(content, entries, names, path)
    values = _values(names.values(), categories, class_index, path)
    value_of = {key: values[name] for key, name in names.items() if name in values}
    folders = [path.parent, path.parent / "images", path.parent.parent / "images"]
    folders = [Path(image_folder).absolute()] if image_folder else list(dict.fromkeys(folders))
    images: list[Annotated] = []
    for key, entry in sorted(entries.items(), key=lambda pair: str(pair[1].get("file_name"))):
        image = _find_image(entry.get("file_name"), folders, _Place(path, f"image {key}"))
        images.append(
            Annotated(
                image=image,
                mask_name=f"{len(images):05d}_{plain_stem(image)}",  # stems may repeat in other folders
                source=path,
                size=(entry.get("height"), entry.get("width")),
                shapes=partial(_coco_shapes, annotations[key], value_of, path),
            )
        )
    return draw_masks(images, values, mask_folder or default_folder(path.with_name(f"{path.stem}_masks")))


def read_labelme(
    folder: str | Path,
    categories: Sequence[str] | None = None,
    class_index: bool = False,
    line_width: float | None = None,
    mask_folder: str | Path | None = None,
) -> list[Item]:
    """Images of a folder that labelme was used in, with a mask drawn for each.

    Polygons, rectangles, circles and masks are filled, lines and line strips are ``line_width`` wide, points
    are refused, having no area. Shapes are united; those labelled ``_background_`` take away from earlier ones.
    A file without shapes gives an empty mask; an image without file is refused, since nobody may have looked
    at it. Pixels and mask files are as for :func:`read_coco`.

    Args:
        folder: with images and JSON files side by side.
        categories: labels that are foreground; others are passed over. All but ``_background_`` by default.
        class_index: in place of 255, write 1 for the first of ``categories`` (by default: of all labels,
            sorted), 2 for the second and so on, later shapes over earlier ones.
        line_width: in pixels, needed where there are lines.
        mask_folder: where to keep the masks; by default ``labelme_masks/`` in ``folder``, or, where that cannot
            be written, in the user's cache.

    Returns:
        ``name``, ``image`` and ``label`` of each image, in order of the JSON files' names.

    Raises:
        DataError: naming the JSON file, if it is not as labelme writes it, its image is missing or of another
            size, a shape cannot be drawn, or an image has no JSON file or several.
        ConfigError: if one of ``categories`` is nobody's label.
        OutputError: if the masks cannot be written.
    """
    folder = Path(folder).absolute()
    contents = {path: _labelme_content(path) for path in json_files(folder)}
    labels = sorted({shape["label"] for content in contents.values() for shape in content["shapes"]})
    values = _values([label for label in labels if label != _BACKGROUND_LABEL], categories, class_index, folder)
    values[_BACKGROUND_LABEL] = 0
    images = []
    for path, content in contents.items():
        relative = str(content["imagePath"]).replace("\\", "/")  # as written on Windows
        images.append(
            Annotated(
                image=_find_image(relative, [folder], _Place(path, "imagePath")),
                mask_name=path.stem,
                source=path,
                size=(content.get("imageHeight"), content.get("imageWidth")),
                shapes=partial(_labelme_shapes, content["shapes"], values, line_width, path),
            )
        )
    _check_one_file_each(images, folder)
    return draw_masks(images, (values, line_width), mask_folder or default_folder(folder / "labelme_masks"))


def _values(names: Any, chosen: Sequence[str] | None, class_index: bool, path: Path) -> dict[str, int]:
    """Mask value of each category that is drawn."""
    known = list(dict.fromkeys(names))
    for name in chosen or ():
        if name not in known:
            raise unknown_choice(f"category of {path}", name, known)
    drawn = known if chosen is None else list(chosen)
    if class_index and len(drawn) > 255:
        raise ConfigError("too many categories for class numbers", path=path, expected="255", found=len(drawn))
    return {name: number if class_index else _FOREGROUND for number, name in enumerate(drawn, start=1)}


def _by_id(content: Mapping[str, Any], table: str, path: Path) -> dict[int | str, dict[str, Any]]:
    rows = content.get(table)
    if not isinstance(rows, list) or not rows:
        raise DataError(f"COCO file has no {table}", path=path, expected=f'"{table}": [{{"id": 1, ...}}, ...]')
    by_id: dict[int | str, dict[str, Any]] = {}
    for row in rows:
        key = row.get("id") if isinstance(row, dict) else None
        if not isinstance(key, int | str) or key in by_id:
            raise _Place(path, table).refuse("entry has no id of its own", "distinct numbers", str(row)[:100])
        by_id[key] = row
    return by_id


def _by_image(
    content: Mapping[str, Any], images: Mapping[Any, Any], categories: Mapping[Any, str], path: Path
) -> dict[int | str, list[dict[str, Any]]]:
    """Annotations of each image, in order of the file."""
    rows = content["annotations"]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError("COCO file has no list of annotations", path=path, expected='"annotations": [{...}, ...]')
    grouped: dict[int | str, list[dict[str, Any]]] = {key: [] for key in images}
    for row in rows:
        image, category = row.get("image_id"), row.get("category_id")
        place = _Place(path, f"annotation {row.get('id')} of image {image}")
        if not isinstance(image, int | str) or image not in grouped:
            raise place.refuse("annotation of an unknown image", f"one of the {len(images)} ids in images", image)
        if not isinstance(category, int | str) or category not in categories:
            known = ", ".join(f"{key} ({name})" for key, name in categories.items())
            raise place.refuse("annotation of an unknown category", known, category)
        grouped[image].append(row)
    return grouped


def _find_image(file_name: Any, folders: Sequence[Path], place: _Place) -> Path:
    if not isinstance(file_name, str) or not file_name:
        raise place.refuse("image has no file name", "file_name", file_name)
    paths = [folder / file_name for folder in folders]
    found = [path for path in paths if path.is_file()]
    if len(found) == 1:
        return found[0]
    if not found:
        tried = " or ".join(str(path) for path in paths)
        raise place.refuse("image file not found", tried, "none", "put the image there, or correct the path")
    raise place.refuse("several image files", "one", ", ".join(str(path) for path in found), "keep the right one")


def _coco_shapes(
    annotations: Sequence[Mapping[str, Any]], values: Mapping[Any, int], path: Path, size: Size
) -> Iterator[tuple[int, Mask]]:
    for row in annotations:
        if row["category_id"] in values:
            place = _Place(path, f"annotation {row.get('id')} of image {row['image_id']}")
            yield values[row["category_id"]], _coco_mask(row.get("segmentation"), size, place)


def _coco_mask(segmentation: Any, size: Size, place: _Place) -> Mask:
    if isinstance(segmentation, dict):
        return _run_lengths(segmentation, size, place)
    if not isinstance(segmentation, list) or not segmentation:
        raise place.refuse(
            "annotation has no outline",
            "segmentation with polygons or run lengths",
            str(segmentation)[:100],
            "draw it, or take the annotation out; boxes alone make no mask",
        )
    mask: Mask = np.zeros(size, dtype=bool)
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) % 2:
            raise place.refuse("polygon is not a list of coordinates", "[x1, y1, x2, y2, ...]", str(polygon)[:100])
        mask |= fill_polygon(_points(list(zip(polygon[::2], polygon[1::2], strict=True)), 3, "polygon", place), size)
    return mask


def _run_lengths(segmentation: Mapping[str, Any], size: Size, place: _Place) -> Mask:
    said, counts = segmentation.get("size"), segmentation.get("counts")
    if said != list(size) or not isinstance(counts, str | list):
        raise place.refuse(
            "run lengths do not fit the image", f'"size": {list(size)}, and counts', f'"size": {said}', "export again"
        )
    try:
        return decode_rle(counts, size)
    except ValueError as error:
        raise place.refuse("run lengths are damaged", "lengths that add up to the image", error) from error


def _labelme_content(path: Path) -> dict[str, Any]:
    content = load_json(path)
    if not is_labelme(content):
        raise DataError(
            "not a labelme file",
            path=path,
            expected="shapes and imagePath",
            hint="keep other JSON files elsewhere",
        )
    shapes = content["shapes"]
    if not isinstance(shapes, list) or not all(isinstance(s, dict) and isinstance(s.get("label"), str) for s in shapes):
        raise DataError("labelme file has no list of labelled shapes", path=path, expected='[{"label": ...}, ...]')
    return dict(content)


def _labelme_shapes(
    shapes: Sequence[Mapping[str, Any]], values: Mapping[str, int], line_width: float | None, path: Path, size: Size
) -> Iterator[tuple[int, Mask]]:
    for number, shape in enumerate(shapes):
        if shape["label"] in values:
            place = _Place(path, f"shape {number}, labelled {shape['label']}")
            yield values[shape["label"]], _labelme_mask(shape, line_width, size, place)


def _labelme_mask(shape: Mapping[str, Any], line_width: float | None, size: Size, place: _Place) -> Mask:
    kind = shape.get("shape_type") or "polygon"  # the first versions knew nothing else
    points = partial(_points, shape.get("points"), what=kind, place=place)
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


def _embedded_mask(encoded: Any, corner: NDArray[np.float64], size: Size, place: _Place) -> Mask:
    """A PNG in base64 whose upper left pixel lies at ``corner``."""
    try:
        part = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded)))) > 0
    except (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError) as error:
        raise place.refuse("mask is damaged", "a PNG in base64", error) from error
    left, top = (int(value) for value in corner)
    mask: Mask = np.zeros(size, dtype=bool)
    if (
        part.ndim != 2
        or left < 0
        or top < 0
        or mask[top : top + part.shape[0], left : left + part.shape[1]].shape != part.shape
    ):
        raise place.refuse("mask does not fit the image", f"{size[1]}x{size[0]}", f"{part.shape} at {left}, {top}")
    mask[top : top + part.shape[0], left : left + part.shape[1]] = part
    return mask


def _points(points: Any, least: int, what: str, place: _Place) -> NDArray[np.float64]:
    try:
        array = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.full((1, 1), np.nan)
    if array.size and (array.ndim != 2 or array.shape[1] != 2 or not np.isfinite(array).all()):
        raise place.refuse(f"{what} has points that are none", "pairs of finite numbers", str(points)[:100])
    if len(array) < least:
        raise place.refuse(f"{what} has fewer than {least} points", f"at least {least}", len(array))
    return array


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
