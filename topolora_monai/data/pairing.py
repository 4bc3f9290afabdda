"""Images and masks of a folder, joined by name."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from topolora_monai.data.annotation_files import json_files, load_json
from topolora_monai.data.items import Item, plain_stem, scans_in
from topolora_monai.data.labelme import is_labelme, read_labelme
from topolora_monai.data.layout import Part, by_key, content, find_folder, pairs, require_unique
from topolora_monai.errors import DataError
from topolora_monai.io import IMAGE_SUFFIXES

_MASK_ENDINGS = ("_mask", "_label", "_seg", "_segmentation", "_gt", "_manual1", "_1stho")
_MASK_BEGINNINGS = ("mask_", "label_", "seg_", "gt_")


def read_part(part: Path, categories: Sequence[str] | None = None, line_width: float | None = None) -> list[Item]:
    """Annotated images of a folder, in order of name.

    Recognised are ``images/`` and ``masks/`` in it, labelme's files beside images, to which ``categories`` and
    ``line_width`` apply as in :func:`~topolora_monai.data.labelme.read_labelme`, and masks beside images. A mask has
    its image's stem, or, where masks lie beside images or some image has no mask of its own stem, that stem with a
    usual ending (``_mask``, ``_label``, ``_seg``, ``_segmentation``, ``_gt``, ``_manual1``, ``_1stHO``) or beginning
    (``mask_``, ``label_``, ``seg_``, ``gt_``). A ``DataError`` if nothing is recognised, an image has no mask, or
    something could be meant in two ways.
    """
    images, labels = find_folder(part, "images", "image"), find_folder(part, "masks", "mask", "labels", "label")
    if images and labels:
        return _in_subfolders(images, labels, find_folder(part, "fov"))
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
    stems = by_key(scans_in(images))
    if not stems:
        raise DataError("folder of images holds no image", path=images, expected=", ".join(IMAGE_SUFFIXES))
    same = stems.keys() <= by_key(scans_in(labels)).keys()
    others = {"label": Part(labels, str if same else _image_stems)}
    others |= {"fov": Part(fovs, what="field of view")} if fovs else {}
    items = pairs(Part(images), **others)
    _check_used_once(items, labels)
    return items


def _side_by_side(part: Path) -> list[Item]:
    """Images with masks of other stems beside them; none if no file looks like a mask of another."""
    files = scans_in(part)
    stems = by_key(files)
    mask_of = {
        stem: [path for path in paths if plain_stem(path) != stem]
        for stem, paths in by_key(files, _image_stems).items()
    }
    mask_of = {stem: paths for stem, paths in mask_of.items() if paths and stem in stems}
    masks = {path for paths in mask_of.values() for path in paths}
    if not masks:
        return []
    items = []
    for stem in (plain_stem(path) for path in files if path not in masks):
        image = require_unique(stems[stem], stem, part, "image")
        label = require_unique(mask_of.get(stem, []), stem, part, "mask")
        items.append(Item(name=stem, image=str(image), label=str(label)))
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


def _image_stems(stem: str) -> set[str]:
    """Stems of images that a file may be the mask of, going by its own."""
    ends = {stem[: -len(ending)] for ending in _MASK_ENDINGS if stem.lower().endswith(ending)}
    begins = {stem[len(beginning) :] for beginning in _MASK_BEGINNINGS if stem.lower().startswith(beginning)}
    return ({stem} | ends | begins) - {""}
