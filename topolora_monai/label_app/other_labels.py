"""Labels as some programs upload them, as files that every program reads and that lie on their image's grid."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from monailabel.interfaces.utils.app import app_instance
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from topolora_monai.errors import DataError
from topolora_monai.io.geometry import align
from topolora_monai.label_app.names import LABEL_SUFFIXES, checked_suffix
from topolora_monai.label_app.rendering import image_shape
from topolora_monai.label_app.tasks.masks import read_label, write_label
from topolora_monai.label_app.tasks.polygons import draw_rings


@contextmanager
def as_label_file(path: Path, suffix: str, image: str) -> Iterator[Path]:
    """A label file of what was uploaded for an image, whose geometry it gets, for as long as it is needed.

    A suffix of ``.bin`` means class numbers of all voxels without header, as OHIF sends them; ``.xml`` polygons in an
    annotation file of ASAP, as QuPath writes it; ``.dcm`` a DICOM SEG object of studies on a DICOM server; any other a
    label file already.

    Raises:
        ImageNotFoundException: for an unknown image.
        DataError: for a file that is no label of this image, or with classes that no model has.
    """
    if suffix not in OTHER_SUFFIXES:
        yield path
        return
    store = app_instance().datastore()
    place = store.image_path(image)
    if suffix == ".dcm":
        written = _segmented(path, image, store)
    else:
        written = write_label(_READERS[suffix](path.read_bytes(), image_shape(place)), place)
    try:
        yield written
    finally:
        written.unlink(missing_ok=True)


@contextmanager
def on_grid(label: Path, image: Path) -> Iterator[Path]:
    """A label file whose axes are those of its image, for as long as it is needed; itself if they are already.

    Raises:
        DataError: if the label lies elsewhere than its image, or cannot be read.
    """
    if align(label, image).orientation is None:
        yield label
        return
    written = write_label(read_label(label, image), image, checked_suffix(label.name, LABEL_SUFFIXES, "label"))
    try:
        yield written
    finally:
        written.unlink(missing_ok=True)


def _segmented(path: Path, image: str, store: Any) -> Path:
    if not hasattr(store, "label_of_segmentation"):
        raise DataError("DICOM SEG is a label of studies on a DICOM server", found="a folder of images")
    try:
        seg = dcmread(path)
        return Path(store.label_of_segmentation(image, seg))
    except (InvalidDicomError, AttributeError, KeyError) as error:
        raise DataError("the file is no DICOM SEG object", found=error) from error


def _raw(content: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    if len(content) != math.prod(shape):
        raise DataError(
            "label has another size than its image", expected=f"{math.prod(shape)} bytes", found=len(content)
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _drawn(content: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Class numbers, (H, W), of the polygons in an annotation file; a later one covers an earlier one."""
    if len(shape) != 2:
        raise DataError("polygons are labels of pictures, not of volumes")
    known: dict[str, int] = {}
    for task in app_instance()._infers.values():
        known |= task.labels
    numbers = np.zeros(shape, np.uint8)
    for name, ring in _polygons(content):
        if name not in known:
            raise DataError("a polygon has a class that no model has", expected=", ".join(known), found=name)
        numbers[draw_rings([ring], (shape[0], shape[1]))] = known[name]
    return numbers


def _polygons(content: bytes) -> list[tuple[str, list[list[float]]]]:
    try:
        text = content.decode()
        if "<!" in text.replace("<!--", ""):  # entities that are defined in the file may fill the memory
            raise DataError("annotation file holds a definition of its own")
        return [
            (part.get("Name", ""), [[float(corner.attrib[axis]) for axis in "XY"] for corner in corners])
            for part in ElementTree.fromstring(text).iter("Annotation")
            if len(corners := part.findall("./Coordinates/Coordinate")) > 2
        ]
    except (ValueError, KeyError, ElementTree.ParseError) as error:
        raise DataError("annotation file cannot be read", found=error) from error


_READERS = {".bin": _raw, ".xml": _drawn}
OTHER_SUFFIXES = (*_READERS, ".dcm")
"""Endings of files that are no label files by themselves."""
