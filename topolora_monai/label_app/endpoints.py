"""In the place of MONAI Label's endpoints: uploads, looked at before they are kept, and masks as QuPath reads them."""

import json
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from fastapi import HTTPException, UploadFile
from fastapi.background import BackgroundTasks
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.others.generic import remove_file
from starlette.responses import Response

from topolora_monai.errors import ConfigError
from topolora_monai.io.images import IMAGE_SUFFIXES
from topolora_monai.label_app.names import LABEL_SUFFIXES, checked_name, checked_suffix
from topolora_monai.label_app.other_labels import OTHER_SUFFIXES, as_label_file
from topolora_monai.label_app.rendering import check_image_size

_TAKEN_SUFFIXES = (*LABEL_SUFFIXES, *OTHER_SUFFIXES)
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


def save_label(
    background_tasks: BackgroundTasks, image: str, params: str, tag: str, label: UploadFile, user: str | None = None
) -> dict[str, Any]:
    """Keep a label of an image; when this returns, it is on the disk.

    ``params`` is a JSON object that is kept with it, its ``client_id`` names the program. A file that is no label by
    itself is turned into one, see :mod:`~topolora_monai.label_app.other_labels`.

    Returns:
        ``image``, ``label``, ``tag``, ``version``, ``time``, ``user`` and ``sha256``.

    Raises:
        ImageNotFoundException: for an unknown image.
        DataError: for a file that is no label of this image.
    """
    app = app_instance()
    info = parsed_params(params)
    suffix = checked_suffix(label.filename or "label.nii.gz", _TAKEN_SUFFIXES, "label")
    with spooled(label, suffix) as path, as_label_file(path, suffix, image) as written:
        return dict(app.submit_label(image, written, tag or "final", info, user))


def add_image(
    background_tasks: BackgroundTasks, image: str | None, params: str, file: UploadFile, user: str | None = None
) -> dict[str, Any]:
    """Add an image to the studies, by default under the file's name; ``params``, a JSON object, is kept with it.

    Returns:
        ``image``, its name.

    Raises:
        ConfigError: if there is an image of this name.
        DataError: for a file that is no image, or one that is too large.
    """
    suffix = checked_suffix(file.filename or "image.nii.gz", IMAGE_SUFFIXES, "image")
    stem = Path(str(file.filename)).name[: -len(suffix)]
    name = checked_name(image or stem, "image")
    info = parsed_params(params) | ({"user": user} if user else {})
    app = app_instance()
    with spooled(file, suffix) as path:
        check_image_size(path, app.options.max_pixels)
        return {"image": app.datastore().add_image(name, str(path), info)}


def create_session(
    background_tasks: BackgroundTasks, uncompress: bool, expiry: int, files: list[UploadFile]
) -> dict[str, Any]:
    """Keep uploaded files, one image, a series or an archive to unpack, for later requests and ``expiry`` seconds.

    Returns:
        ``session_id`` and ``session_info``.

    Raises:
        HTTPException: 406 if sessions are off, 404 without files, 400 for an archive that leads out, 413 for one that
            unpacks to more than uploads may have.
    """
    app = app_instance()
    sessions = app.sessions()
    if sessions is None:
        raise HTTPException(406, "sessions are switched off")
    if not files:
        raise HTTPException(404, "no file was uploaded")
    received = Path(tempfile.mkdtemp())
    background_tasks.add_task(remove_file, str(received))
    kept = []
    for number, file in enumerate(files):
        base = Path(file.filename or f"image{number}").name
        kept.append(received / checked_name(base, "file"))
        with kept[-1].open("wb") as target:
            shutil.copyfileobj(file.file, target)
    path = kept[0] if len(kept) == 1 else received
    if uncompress:
        checked_suffix(path.name, _ARCHIVES, "archive")
        path = _unpacked(path, app.options.max_upload_bytes)
    session_id, info = sessions.add_session(str(path), expiry)
    return {"session_id": session_id, "session_info": info.to_json()}


def infer_region(
    background_tasks: BackgroundTasks,
    model: str,
    image: str = "",
    session_id: str = "",
    file: UploadFile | None = None,
    wsi: Any = None,
    output: Any = None,
) -> Any:
    """Segment a picture and give the mask of a region as :func:`~topolora_monai.label_app.tasks.polygons.mask_rings`.

    The picture is one of the studies, one that a session keeps, or a file that comes with the request. ``wsi`` has
    ``location`` and ``size`` of the region in pixels, size 0 for the whole picture; ``level`` 0; ``min_poly_area``,
    smaller parts are left out; and ``params``, such as ``foreground`` and ``background``. An ``output`` of ``asap`` is
    an annotation file of ASAP, which QuPath reads; nothing or ``json`` is JSON.

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
            image = str(uploads.enter_context(spooled(file, suffix)))
        result = app.infer({**(wsi.params or {}), **region, "model": model, "image": image, "output": "json"})
    Path(result["file"]).unlink(missing_ok=True)
    told = result["params"] | {"model": model, "location": region["location"], "size": region["size"]}
    if "annotations" not in told:
        raise ConfigError("polygons are given of pictures, not of volumes", hint="use /infer")
    return Response(_as_asap(told), media_type="application/xml") if kind == "asap" else told


def parsed_params(text: str | None, name: str = "params") -> dict[str, Any]:
    """A JSON object that a form carries under a name.

    Raises:
        ConfigError: if it is none.
    """
    try:
        content = json.loads(text) if text else {}
    except ValueError as error:
        raise ConfigError(f"{name} is no JSON", found=(text or "")[:80]) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{name} is no JSON object", found=(text or "")[:80])
    return content


@contextmanager
def spooled(upload: UploadFile, suffix: str) -> Iterator[Path]:
    """An upload as a file of its own for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="topolora-") as folder:
        path = Path(folder) / f"upload{suffix}"
        with path.open("wb") as target:
            shutil.copyfileobj(upload.file, target)
        yield path


def _unpacked(archive: Path, limit: int) -> Path:
    folder = Path(tempfile.mkdtemp(dir=archive.parent))
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as packed:
                _check_total(sum(member.file_size for member in packed.infolist()), limit)
                packed.extractall(folder)
        else:
            with tarfile.open(archive) as packed_tar:
                _check_total(sum(member.size for member in packed_tar), limit)
                packed_tar.extractall(folder, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, OSError) as error:
        raise HTTPException(400, f"the archive cannot be unpacked: {error}") from error
    return folder


def _check_total(size: int, limit: int) -> None:
    if size > limit:
        raise HTTPException(413, f"the archive unpacks to {size} bytes; at most {limit} are taken")


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
