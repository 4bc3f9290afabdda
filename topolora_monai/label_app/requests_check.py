"""A look at every request before its endpoint: names that could be paths, models that are not there, its size."""

import json
import re
from collections.abc import Iterable
from typing import Any

from fastapi import HTTPException, Request
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from monailabel.interfaces.utils.app import app_instance
from starlette.datastructures import Headers, UploadFile
from starlette.responses import JSONResponse

from topolora_monai.errors import ConfigError
from topolora_monai.io.images import IMAGE_SUFFIXES
from topolora_monai.label_app.dicom_store import DicomStudies
from topolora_monai.label_app.endpoints import parsed_params
from topolora_monai.label_app.names import RESULT_SUFFIXES, RefusedNameError, checked_name, checked_suffix, leads_out

_NAMES = frozenset(
    {"image", "label", "tag", "label_tag", "id", "model", "method", "strategy", "adapter", "model_filename"}
)
_SESSION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FORM_FIELDS = ("params", "info", "wsi")
_SERVER_SIDE = ("session", "image_path", "label_path", "bundle_path", "image_uri")
_UPLOADS = {"file": ("image", (*IMAGE_SUFFIXES, ".dcm", ".zip")), "label": ("label", RESULT_SUFFIXES)}
_TASKS = (
    ("/infer/", "model", "model", "_infers"),
    ("/batch/infer/", "model", "model", "_infers"),
    ("/train/", "model", "model", "_trainers"),
    ("/scoring/", "method", "scoring method", "_scoring_methods"),
    ("/activelearning/", "strategy", "strategy", "_strategies"),
)
"""Beginning of a path, the parameter in it that names something, what that is, and the app's own of that kind."""


async def check_request(request: Request) -> None:
    """Refuse a request whose names could lead out of their folders, wherever they stand in it.

    Path, query, names of uploaded files, and JSON in forms and bodies are looked at: upstream joins all of them to
    paths, and lets ``params`` replace the image and the session of the query.

    Raises:
        RefusedNameError: for such a name, or a file of an unknown kind.
        ConfigError: for JSON that is none.
        MONAILabelException: for a model, method or strategy that does not exist.
    """
    for key, value in (*request.query_params.multi_items(), *request.path_params.items()):
        _check_entry(key, value)
    kind = request.headers.get("content-type", "").strip().lower()
    if kind.startswith(("multipart/form-data", "application/x-www-form-urlencoded")):
        _check_form(request.url.path, (await request.form()).multi_items())
    elif not request.url.path.startswith("/proxy/"):  # whose bodies are DICOM, for another server
        _check_body(await request.body(), kind)
    _check_known(request)
    _check_source(request)


def _check_body(body: bytes, kind: str) -> None:
    """Whatever can be read as JSON is looked at: some clients do not say that it is, and there are several names."""
    try:
        content = json.loads(body) if body else None
    except (ValueError, RecursionError) as error:
        if not kind or "json" in kind:
            raise ConfigError("the body is no JSON") from error
    else:
        _check_json(content)


def _check_entry(key: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        return
    if key == "session_id":
        if not _SESSION.fullmatch(value):
            raise RefusedNameError("not the id of a session", found=ascii(value[:60]))
    elif key == "result_extension":
        if value.lower() not in RESULT_SUFFIXES:
            raise RefusedNameError(
                "not the ending of a result's name", expected=", ".join(RESULT_SUFFIXES), found=ascii(value[:60])
            )
    elif key == "path":  # of the pages of OHIF and the DICOM server, which have folders
        if leads_out(value):
            raise RefusedNameError("the path leads out of its folder")
    elif key in _NAMES:
        checked_name(value, key)


def _check_form(path: str, form: Iterable[tuple[str, Any]]) -> None:
    for key, value in form:
        if isinstance(value, UploadFile):
            _check_file_name(path, key, value.filename or "")
        elif key in _FORM_FIELDS and value:
            _check_json(parsed_params(value, key))
        else:
            _check_entry(key, value)


def _check_file_name(path: str, key: str, name: str) -> None:
    if any(ord(character) < 32 for character in name):
        raise RefusedNameError("name of an uploaded file is refused", found=ascii(name[:60]))
    if path.startswith("/infer/") and key in _UPLOADS and name:
        kind, allowed = _UPLOADS[key]
        checked_suffix(name, allowed, kind)


def _check_json(content: Any) -> None:
    """Entries of an object and of the objects in it; ``params`` of a task may be nested below its name."""
    if isinstance(content, list):
        for entry in content:
            _check_json(entry)
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        if key in _SERVER_SIDE:
            raise RefusedNameError(f"{key} is the server's own", found=ascii(str(value)[:60]))
        if key == "images" and isinstance(value, list):
            for image in value:
                checked_name(str(image), "image")
        _check_entry(key, value)
        _check_json(value)


def _check_known(request: Request) -> None:
    for beginning, parameter, kind, tasks in _TASKS:
        name = request.path_params.get(parameter)
        if name and request.url.path.startswith(beginning) and name not in getattr(app_instance(), tasks):
            raise MONAILabelException(MONAILabelError.INVALID_INPUT, f"there is no {kind} {name!r} here")


def _check_source(request: Request) -> None:
    """Inference needs an image, and a session that is there; DICOM SEG needs a DICOM server."""
    if not request.url.path.startswith("/infer/"):
        return
    query = request.query_params
    form = getattr(request, "_form", None) or {}
    session = query.get("session_id")
    if not (query.get("image") or session or form.get("file")):
        raise ConfigError("inference of nothing", hint="name an image or a session, or upload a file")
    if session and app_instance().sessions().get_session(session) is None:
        raise MONAILabelException(MONAILabelError.INVALID_INPUT, "there is no such session; it may have expired")
    if query.get("output") == "dicom_seg" and not isinstance(app_instance().datastore(), DicomStudies):
        raise ConfigError("DICOM SEG needs studies on a DICOM server", found="a folder of images")


class LimitBody:
    """Answers 413 to a request with more bytes in its body, whether it says so or not; an ASGI middleware."""

    def __init__(self, app: Any, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdigit() or int(length) > self._most:
            return await JSONResponse({"detail": self._sentence()}, 413)(scope, receive, send)
        received = 0

        async def counted() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._most:
                raise HTTPException(413, self._sentence())
            return message

        return await self._app(scope, counted, send)

    def _sentence(self) -> str:
        return f"a request may carry at most {self._most:,} bytes"
