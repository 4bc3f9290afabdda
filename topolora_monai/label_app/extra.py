"""Our own endpoints: what a browser needs beside MONAI Label's interface."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import Depends, FastAPI, HTTPException
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.utils.app import app_instance
from pydantic import BaseModel
from starlette.responses import Response

from topolora_monai.label_app.datastore import FINAL, StudyFolder
from topolora_monai.label_app.history import LabelVersion
from topolora_monai.label_app.rendering import label_as_png, picture_as_png
from topolora_monai.label_app.tasks.training import training_status

__all__ = ["PATH", "add_routes"]

PATH = "/topolora/api"

_ANNOTATOR = settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR
_ADMIN = settings.MONAI_LABEL_AUTH_ROLE_ADMIN
_FRESH = {"Cache-Control": "private, no-cache"}


class LabelChoice(BaseModel):
    """A version of a label."""

    image: str
    tag: str = FINAL
    version: int


class AdapterChoice(BaseModel):
    """A version of an adapter."""

    adapter: str
    version: int
    note: str = ""


def add_routes(application: FastAPI) -> None:
    """Add the endpoints below :data:`PATH`; those that change something see to the role themselves."""
    for endpoint in (images, picture, label, labels, adapters, training):
        may_look = [Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]
        application.add_api_route(f"{PATH}/{endpoint.__name__}", endpoint, dependencies=may_look, response_model=None)
    application.add_api_route(f"{PATH}/labels/restore", restore_label, methods=["POST"], response_model=None)
    application.add_api_route(f"{PATH}/adapters/restore", restore_adapter, methods=["POST"], response_model=None)
    may_trace = [Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]
    application.add_api_route(f"{PATH}/trace", trace, dependencies=may_trace, response_model=None)


def images() -> list[dict[str, Any]]:
    """All images: ``image``, ``file``, and of each label's newest version ``tag``: ``version``, ``time``, ``user``."""
    store = app_instance().datastore()
    told = ("version", "time", "user")
    return [
        {
            "image": name,
            "file": found["image"]["info"].get("name", name),
            "labels": {
                tag: {key: kept["info"].get(key) for key in told} for tag, kept in found.get("labels", {}).items()
            },
        }
        for name, found in store.json()["objects"].items()
    ]


def picture(image: str, size: int = 0, slice: int | None = None) -> Response:
    """An image, or one slice of a volume, as of :func:`~topolora_monai.label_app.rendering.picture_as_png`."""
    path = app_instance().datastore().image_path(image)
    png, shape = picture_as_png(path, size, slice, app_instance().options.max_pixels)
    return Response(png, media_type="image/png", headers={**_FRESH, "X-Image-Shape": ",".join(map(str, shape))})


def label(image: str, tag: str = FINAL, version: int | None = None, slice: int | None = None) -> Response:
    """A label, by default its newest version, as a PNG of class numbers; of a volume, one slice."""
    store = app_instance().datastore()
    if version is None:
        path = store.get_label_uri(image, tag)
        if not path:
            raise HTTPException(404, f"image {image} has no label {tag}")
    else:
        path = store.history.path(_version(store, image, tag, version))
    return Response(label_as_png(path, store.image_path(image), slice), media_type="image/png", headers=_FRESH)


def labels(image: str) -> dict[str, Any]:
    """All versions of an image's labels by tag, oldest first: who submitted what and when."""
    store = app_instance().datastore()
    store.image_path(image)
    tags = {tag for name, tag in store.history.labels() if name == image} | set(store.get_labels_by_image_id(image))
    return {
        "image": image,
        "labels": {tag: [asdict(version) for version in store.history.versions(image, tag)] for tag in sorted(tags)},
    }


def restore_label(choice: LabelChoice, user: Any = Depends(RBAC(_ANNOTATOR))) -> dict[str, Any]:  # noqa: B008
    """Make an older version the newest again; all versions stay."""
    store = app_instance().datastore()
    old = _version(store, choice.image, choice.tag, choice.version)
    version = store.submit(choice.image, store.history.path(old), choice.tag, {"restored": choice.version}, _name(user))
    return asdict(version)


def adapters() -> list[dict[str, Any]]:
    """All adapters: ``adapter``; ``current``, a number; ``versions`` and ``log``, oldest first.

    A version has ``number``, ``time``, ``author``, ``note``, ``parent`` and ``scores``; an entry of the log tells when
    which one became current, by whom.
    """
    return [_adapter(name) for name in app_instance().adapters.names]


def training() -> list[dict[str, Any]]:
    """How far training of each adapter is, see :func:`~topolora_monai.label_app.tasks.training.training_status`."""
    app = app_instance()
    return [training_status(app.training_folder, name) for name in app.adapters.names]


def trace(
    adapter: str, image: str, x0: float, y0: float, x1: float, y1: float, slice: int = 0, label: int = 1
) -> dict[str, Any]:
    """Live-wire from (x0, y0) to (x1, y1): ``path``, pixels [x, y], and ``half_width``, of what would be painted."""
    app = app_instance()
    if adapter not in app.adapters.names:
        raise HTTPException(404, f"there is no adapter {adapter}")
    path = str(app.datastore().image_path(image))
    way, half_width = app._infers[adapter].model.trace(path, slice, [(x0, y0), (x1, y1)], label)
    return {"path": way[:, ::-1].tolist(), "half_width": half_width}


def restore_adapter(choice: AdapterChoice, user: Any = Depends(RBAC(_ADMIN))) -> dict[str, Any]:  # noqa: B008
    """Make another version of an adapter the current one; all versions stay. Answers as one of :func:`adapters`."""
    versions = app_instance().adapters.versions(choice.adapter)
    if choice.version not in [version.number for version in versions.history()]:
        raise HTTPException(404, f"adapter {choice.adapter} has no version {choice.version}")
    versions.roll_back(choice.version, _name(user) or "a client", choice.note)
    return _adapter(choice.adapter)


def _adapter(name: str) -> dict[str, Any]:
    versions = app_instance().adapters.versions(name)
    return {
        "adapter": name,
        "current": app_instance().adapters.current(name).number,
        "versions": [{name: told[name] for name in told if name != "path"} for told in map(asdict, versions.history())],
        "log": [asdict(change) for change in versions.log()],
    }


def _name(user: Any) -> str | None:
    """Who is signed in; nobody where nobody has to."""
    return user.username if settings.MONAI_LABEL_AUTH_ENABLE else None


def _version(store: StudyFolder, image: str, tag: str, number: int) -> LabelVersion:
    for version in store.history.versions(image, tag):
        if version.version == number:
            return version
    raise HTTPException(404, f"there is no version {number} of label {tag} of image {image}")
