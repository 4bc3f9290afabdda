"""What clients upload: labels, images and sessions, looked at before they are kept."""

from __future__ import annotations

import json
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import HTTPException, UploadFile
from fastapi.background import BackgroundTasks
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.others.generic import remove_file

from topolora_monai.errors import ConfigError
from topolora_monai.io.images import IMAGE_SUFFIXES
from topolora_monai.label_app.names import LABEL_SUFFIXES, checked_name, checked_suffix
from topolora_monai.label_app.other_labels import OTHER_SUFFIXES, as_label_file
from topolora_monai.label_app.sizes import check_image_size

__all__ = ["add_image", "create_session", "parsed_params", "save_label", "spooled"]

_TAKEN_SUFFIXES = (*LABEL_SUFFIXES, *OTHER_SUFFIXES)
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


def save_label(
    background_tasks: BackgroundTasks,
    image: str,
    params: str,
    tag: str,
    label: UploadFile,
    user: str | None = None,
) -> dict[str, Any]:
    """Keep a label; when this returns, it is on the disk.

    Args:
        background_tasks: of the request.
        image: name of its image.
        params: JSON object, kept with the label; its ``client_id`` names the program.
        tag: ``final`` or another.
        label: the file; what is none by itself is turned into one, see
            :mod:`~topolora_monai.label_app.other_labels`.
        user: who is signed in.

    Returns:
        ``image``, ``label``, ``tag``, ``version``, ``time``, ``user`` and ``sha256``.

    Raises:
        HTTPException: 404 for an unknown image.
        DataError: for a file that is no label of this image.
    """
    app = app_instance()
    info = parsed_params(params)
    suffix = checked_suffix(label.filename or "label.nii.gz", _TAKEN_SUFFIXES, "label")
    with spooled(label, suffix) as path, as_label_file(path, suffix, image) as written:
        return dict(app.submit_label(image, written, tag or "final", info, user))


def add_image(
    background_tasks: BackgroundTasks,
    image: str | None,
    params: str,
    file: UploadFile,
    user: str | None = None,
) -> dict[str, Any]:
    """Add an image to the studies.

    Args:
        background_tasks: of the request.
        image: name to give it, by default that of the file.
        params: JSON object, kept with the image.
        file: the image.
        user: who is signed in.

    Returns:
        ``image``, its name.

    Raises:
        HTTPException: 409 if there is an image of this name.
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
    """Keep uploaded files, one image or a series, for later requests.

    Args:
        background_tasks: of the request.
        uncompress: whether the file is an archive.
        expiry: seconds to keep it.
        files: what was uploaded.

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


def parsed_params(text: str | None) -> dict[str, Any]:
    """A JSON object that a form carries.

    Raises:
        ConfigError: if it is none.
    """
    try:
        content = json.loads(text) if text else {}
    except ValueError as error:
        raise ConfigError("params is no JSON", found=(text or "")[:80]) from error
    if not isinstance(content, dict):
        raise ConfigError("params is no JSON object", found=(text or "")[:80])
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
