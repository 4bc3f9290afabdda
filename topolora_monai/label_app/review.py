"""Endpoints for work on labels by several people: verdicts, who has an image, agreement, consensus, an archive."""

import math
from datetime import datetime, timezone
from itertools import combinations
from typing import Any, Literal

import numpy as np
from fastapi import Depends, FastAPI, HTTPException
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.utils.app import app_instance
from numpy.typing import NDArray
from pydantic import BaseModel
from starlette.background import BackgroundTask
from starlette.responses import FileResponse

from topolora_monai.label_app.agreement import agreement, consensus
from topolora_monai.label_app.archive import write_archive
from topolora_monai.label_app.datastore import FINAL, StudyFolder
from topolora_monai.label_app.history import LabelVersion
from topolora_monai.label_app.tasks.masks import new_result_file, read_label, write_label

CONSENSUS = "consensus"
"""Tag of masks that those of several annotators make likely."""


class Verdict(BaseModel):
    """What somebody thinks of a version of a label."""

    image: str
    version: int
    verdict: Literal["accepted", "rejected", "comment"]
    comment: str = ""
    user: str = ""


class Assignment(BaseModel):
    """Who is to annotate an image; nobody if empty."""

    image: str
    to: str


class ImageChoice(BaseModel):
    """An image."""

    image: str


def add_review_routes(application: FastAPI, path: str) -> None:
    """Add the endpoints below a path; a reviewer gives verdicts and images, whoever may look sees and takes along."""
    look, review = ([Depends(RBAC(role))] for role in (settings.MONAI_LABEL_AUTH_ROLE_USER, _REVIEWER))
    for name, endpoint in (("agreement", agreements), ("archive", archive)):
        application.add_api_route(f"{path}/{name}", endpoint, dependencies=look, response_model=None)
    for name, change in (("review", add_verdict), ("assign", assign), ("consensus", make_consensus)):
        application.add_api_route(f"{path}/{name}", change, methods=["POST"], dependencies=review, response_model=None)


_REVIEWER = settings.MONAI_LABEL_AUTH_ROLE_REVIEWER


def add_verdict(choice: Verdict, user: Any = Depends(RBAC(_REVIEWER))) -> dict[str, Any]:  # noqa: B008
    """Note what somebody thinks of a version; the answer has ``time`` and who it was, too."""
    store = app_instance().datastore()
    store.image_path(choice.image)
    label_version(store, choice.image, FINAL, choice.version)
    entry = choice.model_dump(exclude={"image"})
    if settings.MONAI_LABEL_AUTH_ENABLE:
        entry["user"] = user.username
    entry["time"] = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    with store.history.turn():
        earlier = store.get_image_info(choice.image).get("reviews", [])
        store.update_image_info(choice.image, {"reviews": [*earlier, entry]})
    return entry


def assign(choice: Assignment) -> dict[str, str]:
    """Note who is to annotate an image."""
    app_instance().datastore().update_image_info(choice.image, {"assigned": choice.to})
    return {"image": choice.image, "assigned": choice.to}


def agreements(image: str) -> list[dict[str, Any]]:
    """How far each two annotators agree on an image, by the newest label of each.

    ``one`` and ``other``, the versions; ``dice``, ``cldice`` and ``kappa``, null where one is not defined.
    """
    store = app_instance().datastore()
    return [
        {"one": one.version, "other": other.version}
        | {
            name: None if math.isnan(value) else value
            for name, value in agreement(_mask(store, one), _mask(store, other)).items()
        }
        for one, other in combinations(_newest_by_person(store, image), 2)
    ]


def make_consensus(choice: ImageChoice) -> dict[str, Any]:
    """Keep what the newest labels of all annotators make likely as the image's label ``consensus``."""
    store = app_instance().datastore()
    versions = _newest_by_person(store, choice.image)
    if len(versions) < 2:
        raise HTTPException(409, "a consensus needs labels by two people at least")
    made = write_label(consensus([_mask(store, version) for version in versions]), store.image_path(choice.image))
    try:
        info = {"origin": "STAPLE", "of": [version.version for version in versions]}
        kept = store.submit(choice.image, made, CONSENSUS, info, "STAPLE")
    finally:
        made.unlink()
    return {"version": kept.version, "of": info["of"]}


def archive(form: str = "png") -> FileResponse:
    """All submitted labels, see :func:`~topolora_monai.label_app.archive.write_archive`."""
    store = app_instance().datastore()
    labels: dict[str, int] = {}
    for task in app_instance()._infers.values():
        labels |= {name: number for name, number in task.labels.items() if number not in labels.values()}
    target = new_result_file(".zip")
    try:
        write_archive(store, form, labels, target)
    except Exception:
        target.unlink()
        raise
    return FileResponse(target, filename=f"labels-{form}.zip", background=BackgroundTask(target.unlink))


def _newest_by_person(store: StudyFolder, image: str) -> list[LabelVersion]:
    """The newest label by each person that is known, oldest first."""
    store.image_path(image)
    versions = (version for version in store.history.versions(image, FINAL) if version.file)
    return sorted({version.user or "": version for version in versions}.values(), key=lambda found: found.version)


def _mask(store: StudyFolder, version: LabelVersion) -> NDArray[np.uint8]:
    return read_label(store.history.path(version), store.image_path(version.image))


def label_version(store: StudyFolder, image: str, tag: str, number: int) -> LabelVersion:
    """A version of a label by its number; an ``HTTPException`` of status 404 if there is none."""
    for version in store.history.versions(image, tag):
        if version.version == number:
            return version
    raise HTTPException(404, f"there is no version {number} of label {tag} of image {image}")
