"""Submitted labels as one ZIP file, in the forms that other programs take."""

import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topolora_monai.errors import ConfigError, unknown_choice
from topolora_monai.io.json_files import json_text
from topolora_monai.io.pictures import write_png
from topolora_monai.label_app.datastore import FINAL, StudyFolder
from topolora_monai.label_app.dicom_store import DicomStudies
from topolora_monai.label_app.tasks.masks import read_label, write_label
from topolora_monai.label_app.tasks.polygons import mask_rings

FORMS = ("png", "coco", "nifti", "dicom")
"""Masks of 0 and 255, one a class; polygons in one file; NIfTI; DICOM SEG, of studies on a DICOM server alone."""


def write_archive(store: StudyFolder, form: str, labels: Mapping[str, int], target: Path) -> None:
    """Write the final labels of all images.

    Args:
        store: the studies.
        form: one of :data:`FORMS`.
        labels: class numbers by name.
        target: the ZIP file.

    Raises:
        ConfigError: for another form, without labels, or for ``dicom`` of a folder.
    """
    if form not in FORMS:
        raise unknown_choice("form", form, FORMS)
    if form == "dicom" and not isinstance(store, DicomStudies):
        raise ConfigError("DICOM SEG needs studies on a DICOM server", found="a folder of images")
    names = store.get_labeled_images(FINAL)
    if not names:
        raise ConfigError("no image has a submitted label yet")
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        if form == "coco":
            archive.writestr("annotations.json", json_text(_coco(store, names, labels)))
            return
        for name in names:
            for place, path in _files(store, name, form, labels, Path(folder)):
                archive.write(path, place)
                path.unlink()


def _files(
    store: StudyFolder, name: str, form: str, labels: Mapping[str, int], folder: Path
) -> Iterator[tuple[str, Path]]:
    """Files of one image's label, each with its place in the archive."""
    image, label = store.image_path(name), Path(store.get_label_uri(name, FINAL))
    path = folder / "file"
    if form == "dicom" and isinstance(store, DicomStudies):
        info = store.get_label_info(name, FINAL)
        store.segmentation(name, label, info, info.get("user")).save_as(path, enforce_file_format=True)
        yield f"{name}.dcm", path
        return
    numbers = read_label(label, image)
    if form == "nifti" or numbers.ndim == 3:
        yield f"{name}.nii.gz", write_label(numbers, image, ".nii.gz")
        return
    for text, number in labels.items():
        write_png((numbers == number).astype(np.uint8) * np.uint8(255), path)
        yield f"{text}/{name}.png" if len(labels) > 1 else f"{name}.png", path


def _coco(store: StudyFolder, names: list[str], labels: Mapping[str, int]) -> dict[str, Any]:
    """Pictures and the polygons of their labels, one annotation for each connected part without holes."""
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": text} for text, number in labels.items()],
    }
    for order, name in enumerate(names, start=1):
        image = store.image_path(name)
        numbers = read_label(store.get_label_uri(name, FINAL), image)
        if numbers.ndim != 2:
            continue
        height, width = numbers.shape
        content["images"].append({"id": order, "file_name": image.name, "height": height, "width": width})
        for number in labels.values():
            for ring in mask_rings(numbers == number):
                content["annotations"].append(
                    {"id": len(content["annotations"]) + 1, "image_id": order, "category_id": number, "iscrowd": 0}
                    | _outline(np.asarray(ring))
                )
    return content


def _outline(ring: NDArray[np.int64]) -> dict[str, Any]:
    (left, top), (right, bottom) = ring.min(axis=0).tolist(), ring.max(axis=0).tolist()
    x, y = ring.T
    area = abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2
    return {
        "segmentation": [ring.ravel().tolist()], "bbox": [left, top, right - left, bottom - top], "area": area,
    }  # fmt: skip
