"""COCO's annotation files as images with masks."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from topolora_monai.data.annotation_files import Annotated, Place, category_values, draw_masks, load_json
from topolora_monai.data.items import Item, plain_stem
from topolora_monai.data.shapes import Mask, decode_rle, fill_polygon
from topolora_monai.errors import DataError


def is_coco(content: object) -> bool:
    """Whether the content of a JSON file is a COCO data set: it has ``images`` and ``annotations``."""
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def read_coco(path: str | Path, categories: Sequence[str] | None = None) -> list[Item]:
    """Images of a COCO JSON file, with a mask drawn for each, in order of ``file_name``.

    Polygons and run lengths, plain or compressed, of all annotations of an image are united; so are the parts
    of one annotation, since COCO's polygons have no holes. Crowds (``iscrowd``) are foreground like single
    objects. An image without annotation has an empty mask. :mod:`topolora_monai.data.shapes` states which
    pixels belong to a polygon.

    Masks are PNG files of 0 and 255, drawn at the first call and kept in ``STEM_masks/`` beside the JSON file, see
    :func:`~topolora_monai.data.annotation_files.draw_masks`.

    Args:
        path: the JSON file; its images are in its own folder, in ``images/`` there or ``images/`` beside it.
        categories: names of those that are foreground; others are passed over. All by default.

    Raises:
        DataError: naming the JSON file and the image, if the file is not as COCO describes it, an image is
            missing or of another size, or an annotation has no outline, fewer than 3 points, or an unknown
            image or category.
        ConfigError: if one of ``categories`` is none of the file's.
    """
    path = Path(path).absolute()
    content = load_json(path)
    if not is_coco(content):
        raise DataError("not a COCO file", path=path, expected="images, annotations and categories")
    entries = _by_id(content, "images", path)
    names = {key: str(category.get("name")) for key, category in _by_id(content, "categories", path).items()}
    annotations = _by_image(content, entries, names, path)
    values = category_values(names.values(), categories, path)
    value_of = {key: values[name] for key, name in names.items() if name in values}
    folders = list(dict.fromkeys([path.parent, path.parent / "images", path.parent.parent / "images"]))
    images: list[Annotated] = []
    for key, entry in sorted(entries.items(), key=lambda pair: str(pair[1].get("file_name"))):
        image = Place(path, f"image {key}").image(entry.get("file_name"), folders)
        name = f"{len(images):05d}_{plain_stem(image)}"  # stems may repeat in other folders
        size = (entry.get("height"), entry.get("width"))
        images.append(Annotated(image, name, path, size, partial(_shapes, annotations[key], value_of, path)))
    return draw_masks(images, values, path.with_name(f"{path.stem}_masks"))


def _by_id(content: Mapping[str, Any], table: str, path: Path) -> dict[int | str, dict[str, Any]]:
    rows = content.get(table)
    if not isinstance(rows, list) or not rows:
        raise DataError(f"COCO file has no {table}", path=path, expected=f'"{table}": [{{"id": 1, ...}}, ...]')
    by_id: dict[int | str, dict[str, Any]] = {}
    for row in rows:
        key = row.get("id") if isinstance(row, dict) else None
        if not isinstance(key, int | str) or key in by_id:
            raise Place(path, table).refuse("entry has no id of its own", "distinct numbers", str(row)[:100])
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
        place = Place(path, f"annotation {row.get('id')} of image {image}")
        if not isinstance(image, int | str) or image not in grouped:
            raise place.refuse("annotation of an unknown image", f"one of the {len(images)} ids in images", image)
        if not isinstance(category, int | str) or category not in categories:
            known = ", ".join(f"{key} ({name})" for key, name in categories.items())
            raise place.refuse("annotation of an unknown category", known, category)
        grouped[image].append(row)
    return grouped


def _shapes(
    annotations: Sequence[Mapping[str, Any]], values: Mapping[Any, int], path: Path, size: tuple[int, int]
) -> Iterator[tuple[int, Mask]]:
    for row in annotations:
        if row["category_id"] in values:
            place = Place(path, f"annotation {row.get('id')} of image {row['image_id']}")
            yield values[row["category_id"]], _mask(row.get("segmentation"), size, place)


def _mask(segmentation: Any, size: tuple[int, int], place: Place) -> Mask:
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
        corners = list(zip(polygon[::2], polygon[1::2], strict=True))
        mask |= fill_polygon(place.points(corners, 3, "polygon"), size)
    return mask


def _run_lengths(segmentation: Mapping[str, Any], size: tuple[int, int], place: Place) -> Mask:
    said, counts = segmentation.get("size"), segmentation.get("counts")
    if said != list(size) or not isinstance(counts, str | list):
        raise place.refuse(
            "run lengths do not fit the image", f'"size": {list(size)}, and counts', f'"size": {said}', "export again"
        )
    try:
        return decode_rle(counts, size)
    except ValueError as error:
        raise place.refuse("run lengths are damaged", "lengths that add up to the image", error) from error
