"""Requests of QuPath: the mask of a region as polygons, and polygons as a label."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from fastapi import UploadFile
from fastapi.background import BackgroundTasks
from monailabel.interfaces.exception import ImageNotFoundException
from monailabel.interfaces.utils.app import app_instance
from numpy.typing import NDArray
from PIL import Image
from starlette.responses import Response

from topolora_monai.errors import ConfigError, DataError
from topolora_monai.io.images import IMAGE_SUFFIXES
from topolora_monai.label_app import submissions
from topolora_monai.label_app.names import checked_suffix
from topolora_monai.label_app.sizes import image_shape
from topolora_monai.label_app.tasks.polygons import draw_rings

__all__ = ["infer_region", "save_label"]


def infer_region(
    background_tasks: BackgroundTasks,
    model: str,
    image: str = "",
    session_id: str = "",
    file: UploadFile | None = None,
    wsi: Any = None,
    output: Any = None,
) -> Any:
    """Segment a picture and give the mask of a region as polygons.

    Args:
        background_tasks: of the request.
        model: which to use.
        image: name of an image of the studies,
        session_id: of one that was kept for later requests,
        file: or one that comes with the request.
        wsi: ``location`` and ``size`` of the region in pixels, size 0 for the whole picture; ``level`` 0;
            ``min_poly_area``, smaller parts are left out; ``params``, such as ``foreground`` and ``background``.
        output: ``asap`` for an annotation file of ASAP, which QuPath reads; nothing or ``json`` for JSON.

    Returns:
        The answer; polygons as :func:`~topolora_monai.label_app.tasks.polygons.mask_rings` has them.

    Raises:
        ConfigError: for another level or kind of output, and for volumes, which have no polygons.
    """
    kind = getattr(output, "value", output) or "json"
    region = wsi.model_dump(exclude={"params"})
    if kind not in ("asap", "json"):
        raise ConfigError("polygons are given in another form", expected="asap or json", found=kind)
    if region["level"]:
        raise ConfigError(
            "only the full resolution of pictures is segmented", expected="level 0", found=region["level"]
        )
    app = app_instance()
    with ExitStack() as uploads:
        if session_id:
            image = app.sessions().get_session(session_id).image
        elif file is not None and file.filename:
            suffix = checked_suffix(file.filename, IMAGE_SUFFIXES, "image")
            image = str(uploads.enter_context(submissions.spooled(file, suffix)))
        result = app.infer({**(wsi.params or {}), **region, "model": model, "image": image, "output": "json"})
    Path(result["file"]).unlink(missing_ok=True)
    told = result["params"] | {"model": model, "location": region["location"], "size": region["size"]}
    if "annotations" not in told:
        raise ConfigError("polygons are given of pictures, not of volumes", hint="use /infer")
    return Response(_as_asap(told), media_type="application/xml") if kind == "asap" else told


def _as_asap(told: Mapping[str, Any]) -> bytes:
    root = ElementTree.Element("ASAP_Annotations")
    sides: Any = dict(zip("XYWH", map(str, (*told["location"], *told["size"])), strict=True))
    annotations = ElementTree.SubElement(root, "Annotations", Name=told["model"], Description="", **sides)
    groups = ElementTree.SubElement(root, "AnnotationGroups")
    found = told["annotations"][0]["annotation"]
    for element in found["elements"]:
        name = element["label"]
        colour = "#{:02x}{:02x}{:02x}".format(*found["labels"][name])
        ElementTree.SubElement(groups, "Group", Name=name, PartOfGroup="None", Color=colour)
        for ring in element["contours"]:
            part = ElementTree.SubElement(
                annotations, "Annotation", Name=name, Type="Polygon", PartOfGroup=name, Color=colour
            )
            corners = ElementTree.SubElement(part, "Coordinates")
            for order, (x, y) in enumerate(ring):
                ElementTree.SubElement(corners, "Coordinate", Order=str(order), X=str(x), Y=str(y))
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def save_label(
    background_tasks: BackgroundTasks,
    image: str,
    params: str,
    tag: str,
    label: UploadFile,
    user: str | None = None,
) -> dict[str, Any]:
    """Keep a label as :func:`~topolora_monai.label_app.submissions.save_label` does; of polygons, what they cover.

    Args:
        background_tasks: of the request.
        image: name of its image.
        params: JSON object, kept with the label.
        tag: ``final`` or another.
        label: the file; an annotation file of ASAP, as QuPath writes it, is drawn into a PNG of class numbers.
        user: who is signed in.

    Returns:
        What the client is told.

    Raises:
        ImageNotFoundException: for an unknown image.
        DataError: for a file that is no label of this image, or with classes that no model has.
    """
    if not (label.filename or "").lower().endswith(".xml"):
        return submissions.save_label(background_tasks, image, params, tag, label, user)
    path = app_instance().datastore().get_image_uri(image)
    if not path:
        raise ImageNotFoundException(f"there is no image {image!r}")
    drawn = io.BytesIO()
    Image.fromarray(_drawn(label.file.read(), image_shape(path))).save(drawn, "PNG")
    drawn.seek(0)
    upload = UploadFile(drawn, filename="label.png")
    return submissions.save_label(background_tasks, image, params, tag, upload, user)


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
