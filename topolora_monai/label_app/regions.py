"""Requests of QuPath: the mask of a region as polygons."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from fastapi import UploadFile
from fastapi.background import BackgroundTasks
from monailabel.interfaces.utils.app import app_instance
from starlette.responses import Response

from topolora_monai.errors import ConfigError
from topolora_monai.io.images import IMAGE_SUFFIXES
from topolora_monai.label_app import submissions
from topolora_monai.label_app.names import checked_suffix

__all__ = ["infer_region"]


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
