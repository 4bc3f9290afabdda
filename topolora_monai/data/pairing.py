"""Images and masks of a folder, joined by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from topolora_monai.data.annotation_files import json_files, load_json
from topolora_monai.data.items import Item, image_files, plain_stem, require_unique
from topolora_monai.data.labelme import is_labelme, read_labelme
from topolora_monai.data.layout import content, find_folder
from topolora_monai.errors import DataError
from topolora_monai.io import IMAGE_SUFFIXES, is_volume

__all__ = ["read_part"]

_IMAGE_FOLDERS = ("images", "image")
_LABEL_FOLDERS = ("masks", "mask", "labels", "label")
_FOV_FOLDERS = ("fov",)
_MASK_ENDINGS = ("_mask", "_label", "_seg", "_segmentation", "_gt", "_manual1", "_1stho")
_MASK_BEGINNINGS = ("mask_", "label_", "seg_", "gt_")

Index = Mapping[str, Sequence[Path]]


def read_part(part: Path, categories: Sequence[str] | None = None, line_width: float | None = None) -> list[Item]:
    """Annotated images of a folder, in order of name.

    Recognised are ``images/`` and ``masks/`` in it, labelme's files beside images, and masks beside images. A
    mask has its image's stem, or, where masks lie beside images or some image has no mask of its own stem, that
    stem with a usual ending (``_mask``, ``_label``, ``_seg``, ``_segmentation``, ``_gt``, ``_manual1``,
    ``_1stHO``) or beginning (``mask_``, ``label_``, ``seg_``, ``gt_``).

    Args:
        part: the folder.
        categories: labels to draw, see :func:`~topolora_monai.data.labelme.read_labelme`.
        line_width: likewise.

    Raises:
        DataError: if nothing is recognised, an image has no mask, or something could be meant in two ways.
    """
    images, labels = find_folder(part, *_IMAGE_FOLDERS), find_folder(part, *_LABEL_FOLDERS)
    if images and labels:
        return _in_subfolders(images, labels, find_folder(part, *_FOV_FOLDERS))
    if not images and not labels and any(is_labelme(load_json(path)) for path in json_files(part)):
        return read_labelme(part, categories, line_width=line_width)
    items = [] if images or labels else _side_by_side(part)
    if not items:
        raise DataError(
            "this is not a folder of images and masks",
            path=part,
            expected="images/ and masks/, masks as NAME_mask beside images, or labelme's files beside images",
            found=content(part),
            hint="put images in images/ and masks of the same names in masks/, or give a CSV or JSON datalist",
        )
    return items


def _in_subfolders(images: Path, labels: Path, fovs: Path | None) -> list[Item]:
    paths_of = _by_stem(_files(images))
    if not paths_of:
        raise DataError("folder of images holds no image", path=images, expected=", ".join(IMAGE_SUFFIXES))
    masks = _by_stem(_files(labels))
    if not paths_of.keys() <= masks.keys():
        masks = _by_image_stem(_files(labels))
    fov_of = _by_stem(_files(fovs)) if fovs else {}
    items = []
    for stem, paths in paths_of.items():
        item = Item(name=stem, image=str(require_unique(paths, stem, images, "image")))
        item["label"] = str(require_unique(masks.get(stem, []), stem, labels, "mask"))
        if fovs:
            item["fov"] = str(require_unique(fov_of.get(stem, []), stem, fovs, "field of view"))
        items.append(item)
    _check_used_once(items, labels)
    return items


def _side_by_side(part: Path) -> list[Item]:
    """Images with masks of other stems beside them; none if no file looks like a mask of another."""
    files = _files(part)
    paths_of = _by_stem(files)
    mask_of: dict[str, list[Path]] = {}
    for path in files:
        for stem in _image_stems(path) & paths_of.keys() - {_stem(path)}:
            mask_of.setdefault(stem, []).append(path)
    masks = {path for paths in mask_of.values() for path in paths}
    images = [path for path in files if path not in masks]
    if not masks:
        return []
    items = []
    for path in images:
        image = require_unique(paths_of[_stem(path)], _stem(path), part, "image")
        label = require_unique(mask_of.get(_stem(path), []), _stem(path), part, "mask")
        items.append(Item(name=_stem(path), image=str(image), label=str(label)))
    _check_used_once(items, part)
    unused = sorted(path.name for path in masks - {Path(item["label"]) for item in items})
    if unused:
        raise DataError(
            "not clear whether this is an image or a mask",
            path=part / unused[0],
            expected="masks named after an image, which is not named after another",
            hint="put images in images/ and masks of the same names in masks/",
        )
    return items


def _check_used_once(items: Iterable[Item], folder: Path) -> None:
    image_of: dict[str, str] = {}
    for item in items:
        if item["label"] in image_of:
            raise DataError(
                "one mask fits several images",
                path=item["label"],
                found=f"{image_of[item['label']]}, {item['name']}",
                hint=f"give the masks in {folder.name}/ the names of their images",
            )
        image_of[item["label"]] = item["name"]


def _files(folder: Path) -> list[Path]:
    """Images and volumes, which may be folders of DICOM files, in order of name."""
    series = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".") and is_volume(path)]
    return sorted({*image_files(folder), *series})


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else plain_stem(path)


def _image_stems(path: Path) -> set[str]:
    """Stems of images that a file may be the mask of, going by its name."""
    stem = _stem(path)
    ends = {stem[: -len(ending)] for ending in _MASK_ENDINGS if stem.lower().endswith(ending)}
    begins = {stem[len(beginning) :] for beginning in _MASK_BEGINNINGS if stem.lower().startswith(beginning)}
    return ({stem} | ends | begins) - {""}


def _by_stem(files: Iterable[Path]) -> dict[str, list[Path]]:
    stems: dict[str, list[Path]] = {}
    for path in files:
        stems.setdefault(_stem(path), []).append(path)
    return stems


def _by_image_stem(files: Iterable[Path]) -> dict[str, list[Path]]:
    stems: dict[str, list[Path]] = {}
    for path in files:
        for stem in _image_stems(path):
            stems.setdefault(stem, []).append(path)
    return stems
