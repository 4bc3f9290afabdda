"""Our own endpoints: what a browser needs beside MONAI Label's interface, and what stands in the place of its own."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, UploadFile
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.task import AsyncTask
from pydantic import BaseModel
from starlette.responses import Response

from topolora_monai.errors import ConfigError
from topolora_monai.label_app.datastore import FINAL, made_by
from topolora_monai.label_app.dicom_store import DicomStudies
from topolora_monai.label_app.endpoints import spooled
from topolora_monai.label_app.names import RESULT_SUFFIXES, checked_suffix
from topolora_monai.label_app.rendering import check_image_size, label_as_png, picture_as_png, probability_as_png
from topolora_monai.label_app.review import ImageChoice, add_review_routes, label_version
from topolora_monai.label_app.tasks.masks import read_label
from topolora_monai.label_app.tasks.segmentation import Segmentation
from topolora_monai.label_app.tasks.training import training_status

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
    """A version of an adapter, and who wants it where nobody has to sign in."""

    adapter: str
    version: int
    note: str = ""
    user: str = ""


def add_routes(application: FastAPI) -> None:
    """Add the endpoints, ours below :data:`PATH`; those that change something see to the role themselves."""
    may_look = [Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]
    for endpoint in (images, left_out, picture, probability, label, labels, adapters, training, trace):
        application.add_api_route(f"{PATH}/{endpoint.__name__}", endpoint, dependencies=may_look, response_model=None)
    application.add_api_route(f"{PATH}/breaks", breaks, methods=["POST"], dependencies=may_look, response_model=None)
    add_review_routes(application, PATH)
    application.add_api_route(f"{PATH}/labels/restore", restore_label, methods=["POST"], response_model=None)
    application.add_api_route(f"{PATH}/labels/read", read_labels, methods=["POST"], response_model=None)
    application.add_api_route(f"{PATH}/adapters/restore", restore_adapter, methods=["POST"], response_model=None)
    for path, start in (("/train/", train_all), ("/train/{model}", train)):
        application.add_api_route(path, start, methods=["POST"], response_model=None, tags=["Train"])


def images() -> list[dict[str, Any]]:
    """All images: ``image``, ``file``, ``scores`` by method, and ``labels``.

    Those tell of each tag's newest version ``version``, ``time``, ``user``, ``model`` and ``model_version``, see
    :func:`~topolora_monai.label_app.datastore.made_by`. And ``assigned``, who is to annotate the image, and ``review``,
    the latest one; null where there is none.
    """
    store = app_instance().datastore()
    told = ("version", "time", "user")
    return [
        {
            "image": name,
            "file": found["image"]["info"].get("name", name),
            "scores": found["image"]["info"].get("scores", {}),
            "assigned": found["image"]["info"].get("assigned") or None,
            "review": next(reversed(found["image"]["info"].get("reviews", [])), None),
            "labels": {
                tag: {key: kept["info"].get(key) for key in told} | made_by(kept["info"])
                for tag, kept in found.get("labels", {}).items()
            },
        }
        for name, found in store.json()["objects"].items()
    ]


def left_out() -> list[dict[str, str]]:
    """Files of the studies that are not served, each with the reason."""
    found: list[dict[str, str]] = app_instance().datastore().left_out()
    return found


def picture(image: str, size: int = 0, slice: int | None = None, window: str | None = None) -> Response:
    """An image, or one slice of a volume, as of :func:`~topolora_monai.label_app.rendering.picture_as_png`."""
    path = app_instance().datastore().image_path(image)
    limits = _window(window) if window else None
    png, shape = picture_as_png(path, size, slice, app_instance().options.max_pixels, limits)
    return Response(png, media_type="image/png", headers={**_FRESH, "X-Image-Shape": ",".join(map(str, shape))})


def probability(image: str, model: str) -> Response:
    """What a model thinks of each pixel, :func:`~topolora_monai.label_app.rendering.probability_as_png`.

    The headers ``X-Classes`` and ``X-Threshold`` say how to read it; the threshold is 0 where no threshold makes the
    mask, since classes exclude one another.
    """
    task, path = _task(model), _image(image)
    values, spec = task.probability(path), task.model.spec
    threshold = 0 if spec.exclusive and len(values) > 1 else spec.threshold
    headers = {**_FRESH, "X-Classes": str(len(values)), "X-Threshold": str(threshold)}
    return Response(probability_as_png(values, spec.threshold), media_type="image/png", headers=headers)


def breaks(image: str, model: str, label: UploadFile) -> list[list[float]]:
    """Where a mask may break one structure, [x, y, probability] each, the most probable first."""
    task, path = _task(model), _image(image)
    suffix = checked_suffix(label.filename or "", RESULT_SUFFIXES, "label")
    with spooled(label, suffix) as mask:
        return task.breaks(path, read_label(mask, path))


def label(image: str, tag: str = FINAL, version: int | None = None, slice: int | None = None) -> Response:
    """A label, by default its newest version, as a PNG of class numbers; of a volume, one slice."""
    store = app_instance().datastore()
    if version is None:
        path = store.get_label_uri(image, tag)
        if not path:
            raise HTTPException(404, f"image {image} has no label {tag}")
    else:
        path = store.history.path(label_version(store, image, tag, version))
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
    old = label_version(store, choice.image, choice.tag, choice.version)
    version = store.submit(choice.image, store.history.path(old), choice.tag, {"restored": choice.version}, _name(user))
    return asdict(version)


def read_labels(choice: ImageChoice, user: Any = Depends(RBAC(_ANNOTATOR))) -> list[dict[str, Any]]:  # noqa: B008
    """Read what other programs have put on the DICOM server of an image as its label ``dicom``: the new versions."""
    store = app_instance().datastore()
    store.image_path(choice.image)
    read = store.read_segmentations(choice.image) if isinstance(store, DicomStudies) else []
    return [asdict(version) for version in read]


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
    versions.roll_back(choice.version, _person(user, choice.user), choice.note)
    return _adapter(choice.adapter)


def _task(model: str) -> Segmentation:
    task = app_instance()._infers.get(model)
    if not isinstance(task, Segmentation):
        raise HTTPException(404, f"there is no model {model}")
    return task


def _image(name: str) -> Path:
    """Path of an image that is not too large."""
    path = app_instance().datastore().image_path(name)
    check_image_size(path, app_instance().options.max_pixels)
    return Path(path)


def _window(text: str) -> tuple[float, float]:
    """Two percentiles, as in ``1,99``."""
    low, _, high = text.partition(",")
    try:
        limits = float(low), float(high)
    except ValueError:
        limits = 0.0, 0.0
    if not 0 <= limits[0] < limits[1] <= 100:
        raise ConfigError("window is no pair of percentiles", expected="as in 1,99", found=ascii(text[:40]))
    return limits


def _adapter(name: str) -> dict[str, Any]:
    versions = app_instance().adapters.versions(name)
    return {
        "adapter": name,
        "current": app_instance().adapters.current(name).number,
        "versions": [{name: told[name] for name in told if name != "path"} for told in map(asdict, versions.history())],
        "log": [asdict(change) for change in versions.log()],
    }


def train(
    model: str,
    params: dict[str, Any] | None = None,
    run_sync: bool = False,
    enqueue: bool = False,
    user: Any = Depends(RBAC(_ADMIN)),  # noqa: B008
) -> Any:
    """MONAI Label's endpoint, which tells training neither who asks for it nor at once what is wrong.

    Who is signed in is the author of a new version; where nobody has to, whom ``params`` name as ``user``.

    Raises:
        ConfigError: for settings that are not possible.
        HTTPException: 429 while another training is under way, unless it is put in line.
    """
    asked = dict(params or {})
    asked["user"] = _person(user, asked.get("user"))
    app_instance()._trainers[model].check(asked)
    task, busy = AsyncTask.run("train", {"model": model}, asked, force_sync=run_sync, enqueue=enqueue)
    if task is None:
        raise HTTPException(429, busy)
    return task


def train_all(
    params: dict[str, Any] | None = None,
    run_sync: bool = False,
    user: Any = Depends(RBAC(_ADMIN)),  # noqa: B008
) -> dict[str, Any]:
    """The same of every adapter, one after the other; ``params`` may have those of one below its name."""
    asked = params or {}
    wanted = {name: {**asked, **(asked.get(name) or {})} for name in app_instance()._trainers}
    for name, settings_of in wanted.items():
        app_instance()._trainers[name].check(settings_of)
    return {
        name: {"result": train(name, settings_of, run_sync, True, user), "detail": None}
        for name, settings_of in wanted.items()
    }


def _person(user: Any, named: Any) -> str:
    """Who is signed in; where nobody has to, whom the client names."""
    return _name(user) or str(named or "").strip()[:100] or "nobody named"


def _name(user: Any) -> str | None:
    """Who is signed in; nobody where nobody has to."""
    return user.username if settings.MONAI_LABEL_AUTH_ENABLE else None
