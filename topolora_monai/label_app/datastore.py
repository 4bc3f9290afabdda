"""A folder of images as MONAI Label's datastore: labels in versions, nothing overwritten, nothing outside."""

import logging
import os
import tempfile
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException

from topolora_monai.errors import ConfigError, DataError
from topolora_monai.io.atomic import remove_leftovers
from topolora_monai.io.download import file_sha256
from topolora_monai.io.images import IMAGE_SUFFIXES
from topolora_monai.label_app.history import (
    LabelHistory,
    LabelVersion,
    NewerLabelError,
    copy_durably,
    read_record,
    write_json_durably,
)
from topolora_monai.label_app.names import LABEL_SUFFIXES, checked_name, checked_suffix, ending, inside
from topolora_monai.label_app.rendering import image_shape

FINAL = "final"
"""Tag of labels that a person submitted."""
KEPT_FOLDER = ".topolora"
"""Folder beside the images in which everything is kept that is not for other tools."""

_AMBIGUOUS = "another image has its name, but for the ending"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scan:
    """What a folder holds: images by name, files that are left out and why, and when its folders last changed."""

    images: dict[str, Path]
    left_out: dict[Path, str]
    changed: dict[Path, int]

    def is_fresh(self) -> bool:
        """Whether nothing was added or removed since."""
        try:
            return all(folder.stat().st_mtime_ns == time for folder, time in self.changed.items())
        except OSError:  # a folder is gone
            return False


class StudyFolder(Datastore):
    """Images of a folder and of folders in it; labels below ``labels/TAG`` named as their images.

    An image ``left/im1.png`` is named ``left--im1``. Folders that begin with a dot, links to folders, and ``labels``
    are not looked into.

    It is the layout of MONAI Label's own datastore, so other tools find images and newest labels where they expect
    them. In the place of its one JSON file, which several processes write over each other, each label's history and
    each image's notes are files of their own in :data:`KEPT_FOLDER`. What changes an image or a label that is not there
    raises ``ImageNotFoundException`` or ``LabelNotFoundException``.

    Raises:
        DataError: if two images have the same name but for their endings.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.history = LabelHistory(self.folder / KEPT_FOLDER / "labels")
        self._notes_folder = self.folder / KEPT_FOLDER / "images"
        self._lock = threading.RLock()
        self._seen: Scan | None = None
        self.check()
        for place in (self.folder, self._notes_folder, *self.folder.glob("labels/*")):
            remove_leftovers(place)
        self._mend()

    def check(self) -> None:
        """Make sure that every image has a name of its own.

        Raises:
            DataError: if two have the same but for their endings.
        """
        ambiguous = [path.name for path, why in self._scan().left_out.items() if why == _AMBIGUOUS]
        if ambiguous:
            raise DataError(
                "images have the same name but for their endings",
                path=self.folder,
                found=", ".join(sorted(ambiguous)),
                hint="rename one of them",
            )

    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    def set_name(self, name: str) -> None:
        """Not possible: it is the folder's."""
        raise ConfigError("the datastore has the name of its folder", found=name)

    def description(self) -> str:
        """What it is."""
        return "images of a folder"

    def set_description(self, description: str) -> None:
        """Not possible."""
        raise ConfigError("the datastore's description is fixed", found=description)

    def list_images(self) -> list[str]:
        """Names of all images, in order."""
        return list(self._images())

    def get_image_uri(self, image_id: str) -> str:
        """Path of an image, empty for an unknown one."""
        path = self._images().get(image_id)
        return str(path) if path and inside(self.folder, path) else ""

    def image_path(self, image_id: str) -> Path:
        """Path of an image that has to be there."""
        path = self.get_image_uri(image_id)
        if not path:
            raise ImageNotFoundException(f"there is no image {image_id!r}")
        return Path(path)

    def get_image(self, image_id: str, params: Any = None) -> Any:
        """Bytes of an image, None for an unknown one."""
        path = self.get_image_uri(image_id)
        return Path(path).read_bytes() if path else None

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Notes on an image, with its ``name``, ``path`` and ``shape``; empty for an unknown one."""
        path = self._images().get(image_id)
        if path is None:
            return {}
        facts: dict[str, Any] = {"path": str(path), **_file_facts(path)}
        try:
            facts["shape"] = list(image_shape(path))
        except DataError as error:
            facts["error"] = str(error)
        return facts | self._notes(image_id)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Add to the notes on an image."""
        self._check_known(image_id)
        self._note(image_id, info)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Copy an image into the folder.

        Raises:
            ConfigError: if there is one of this name.
        """
        checked_name(image_id, "image")
        suffix = checked_suffix(image_filename, IMAGE_SUFFIXES, "image")
        with self.history.turn():
            if image_id in self._images():
                raise ConfigError("there is an image of this name already", found=image_id, hint="choose another name")
            copy_durably(Path(image_filename), self.folder / f"{image_id}{suffix}")
            self._seen = None
            write_json_durably(image_info, self._notes_folder / f"{image_id}.json")
        return image_id

    def remove_image(self, image_id: str) -> None:
        """Take an image and its labels out of the list; their files are moved aside, not deleted."""
        self._check_known(image_id)
        path = self._images()[image_id]
        for tag in self.get_labels_by_image_id(image_id):
            self.remove_label(image_id, tag)
        aside = self.folder / KEPT_FOLDER / "removed"
        with self.history.turn():
            target = aside / f"{len(list(aside.glob('*'))) + 1:06d}" / path.name
            target.parent.mkdir(parents=True)
            os.replace(path, target)
            self._seen = None

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        """Tags that an image has labels of, each with the name of the image."""
        return {tag: image_id for tag in self._tags() if self._label(image_id, tag)}

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        """Name of an image's label, which is that of the image; empty without one."""
        return image_id if self._label(image_id, tag) else ""

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """Path of a label, empty without one."""
        path = self._label(label_id, label_tag)
        return str(path) if path else ""

    def get_label(self, label_id: str, label_tag: str, params: Any = None) -> Any:
        """Bytes of a label, None without one."""
        path = self._label(label_id, label_tag)
        return path.read_bytes() if path else None

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """Who submitted the newest version and when, and what was noted on it; empty without a label."""
        path = self._label(label_id, label_tag)
        if path is None:
            return {}
        version = self.history.latest(label_id, label_tag)
        told = ("version", "time", "user", "client_id", "sha256")
        recorded = {} if version is None else version.info | {name: getattr(version, name) for name in told}
        return _file_facts(path) | recorded | self._notes(_of_label(label_id, label_tag))

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Add to the notes on a label."""
        self._check_labelled(label_id, label_tag)
        self._note(_of_label(label_id, label_tag), info)

    def submit(
        self, image_id: str, label: Path, tag: str, info: dict[str, Any], user: str | None = None
    ) -> LabelVersion:
        """Keep a label file as the newest version; when this returns, it is on the disk.

        ``info`` is noted; its ``client_id`` names the program, its ``base`` the version that the label began from,
        0 for none.

        Raises:
            NewerLabelError: if there is a version that is newer than the ``base``.
        """
        self._check_known(image_id)
        checked_name(tag, "tag")
        suffix = checked_suffix(label.name, LABEL_SUFFIXES, "label")
        with self.history.turn():
            self.check_base(image_id, tag, info)
            self._adopt(image_id, tag)
            noted = {name: value for name, value in info.items() if name not in ("client_id", "base")}
            client = None if info.get("client_id") is None else str(info["client_id"])
            version = self.history.add(image_id, tag, label, suffix, user, client, noted)
            self._show(version)
        return version

    def check_base(self, image_id: str, tag: str, info: Mapping[str, Any]) -> None:
        """Raise ``NewerLabelError`` if somebody submitted a label since the version that ``info`` names as ``base``."""
        base, newest = info.get("base"), self.history.latest(image_id, tag)
        if isinstance(base, int) and newest is not None and newest.version > base:
            raise NewerLabelError(newest)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """As :meth:`submit`, by the server itself; returns the label's name, which is that of the image."""
        self.submit(image_id, Path(label_filename), label_tag, label_info, user=label_info.get("user"))
        return image_id

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Take a label away; its versions stay, and that it was removed is one more."""
        self._check_labelled(label_id, label_tag)
        with self.history.turn():
            self._adopt(label_id, label_tag)
            self._show(self.history.add(label_id, label_tag, None))

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Names of images that have a label."""
        return [name for name in self.list_images() if self._label(name, label_tag or FINAL)]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Names of images that have none."""
        return [name for name in self.list_images() if not self._label(name, label_tag or FINAL)]

    def datalist(self) -> list[dict[str, Any]]:
        """Paths of images and their final labels, for training."""
        labels = ((name, self._label(name, FINAL)) for name in self.list_images())
        return [{"image": self.get_image_uri(name), "label": str(label)} for name, label in labels if label]

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """Path of a new ZIP archive of images and final labels, which the caller removes."""
        with tempfile.NamedTemporaryFile(suffix=".zip", delete=False) as file, zipfile.ZipFile(file, "w") as archive:
            for name in self.get_labeled_images()[: limit_cases or None]:
                paths = {"image": self.image_path(name), "label": Path(self.get_label_uri(name, FINAL))}
                for kind, path in paths.items():
                    archive.write(path, f"{kind}/{name}{_ending(path)}")
            return file.name

    def refresh(self) -> None:
        """Nothing to do: the folder is looked at again whenever it has changed."""

    def status(self) -> dict[str, Any]:
        """Numbers of images and labels."""
        tags = {tag: count for tag in self._tags() if (count := len(self.get_labeled_images(tag)))}
        return {"total": len(self.list_images()), "completed": tags.get(FINAL, 0), "label_tags": tags}

    def json(self) -> dict[str, Any]:
        """Everything, in the shape of MONAI Label's own datastore."""
        return {
            "name": self.name(),
            "description": self.description(),
            "images_dir": ".",
            "labels_dir": "labels",
            "objects": {
                name: {"image": self._described(name), "labels": self._described_labels(name)}
                for name in self.list_images()
            },
        }

    def _described(self, name: str) -> dict[str, Any]:
        path = self._images()[name]
        return {"ext": _ending(path), "info": _file_facts(path) | self._notes(name)}

    def _described_labels(self, name: str) -> dict[str, Any]:
        return {
            tag: {"ext": path.name[len(name) :], "info": self.get_label_info(name, tag)}
            for tag in self._tags()
            if (path := self._label(name, tag))
        }

    def left_out(self) -> list[dict[str, str]]:
        """Files that are not served: ``file``, its path in the folder, and the ``reason``."""
        self._images()
        assert self._seen is not None
        found = self._seen.left_out.items()
        return [{"file": path.relative_to(self.folder).as_posix(), "reason": reason} for path, reason in found]

    def _images(self) -> dict[str, Path]:
        with self._lock:
            if self._seen is None or not self._seen.is_fresh():
                self._seen = self._scan()
                for path, reason in self._seen.left_out.items():
                    _logger.warning("%s: left out, since %s", path, reason)
            return self._seen.images

    def _scan(self) -> Scan:
        found: dict[str, list[Path]] = {}
        left_out, changed = {}, {}
        folders = [self.folder]
        while folders:
            folder = folders.pop()
            changed[folder] = folder.stat().st_mtime_ns
            for path in sorted(folder.iterdir()):
                if path.name.startswith(".") or path == self.folder / "labels":
                    continue
                if path.is_dir():
                    if path.is_symlink():
                        left_out[path] = "links to folders are not followed"
                    else:
                        folders.append(path)
                    continue
                suffix = ending(path.name, IMAGE_SUFFIXES)
                name = "--".join(path.relative_to(self.folder).parts)[: -len(suffix) or None]
                reason = self._reason_against(path, name) if suffix else "it is no kind of image that is read"
                if reason:
                    left_out[path] = reason
                else:
                    found.setdefault(name, []).append(path)
        for name in [name for name, paths in found.items() if len(paths) > 1]:
            left_out |= dict.fromkeys(found.pop(name), _AMBIGUOUS)
        return Scan({name: found[name][0] for name in sorted(found)}, left_out, changed)

    def _reason_against(self, path: Path, name: str) -> str | None:
        """Why a file of a known kind is left out."""
        try:
            checked_name(name, "image")
        except ConfigError:
            return "its name has characters that could lead out of the folder, or too many of them"
        if not path.is_file():
            return "it is no file"
        return None if inside(self.folder, path) else "it is a link out of the folder"

    def _check_known(self, image_id: str) -> None:
        if image_id not in self.list_images():
            raise ImageNotFoundException(f"there is no image {image_id!r}")

    def _check_labelled(self, image_id: str, tag: str) -> None:
        if self._label(image_id, tag) is None:
            raise LabelNotFoundException(f"image {image_id} has no label {tag}")

    def _tags(self) -> list[str]:
        labels = self.folder / "labels"
        return sorted(path.name for path in labels.iterdir() if path.is_dir()) if labels.is_dir() else []

    def _label(self, image_id: str, tag: str) -> Path | None:
        checked_name(tag, "tag")
        checked_name(image_id, "image")
        paths = (self.folder / "labels" / tag / f"{image_id}{suffix}" for suffix in LABEL_SUFFIXES)
        return next((path for path in paths if path.is_file() and inside(self.folder, path)), None)

    def _notes(self, name: str) -> dict[str, Any]:
        path = self._notes_folder / f"{name}.json"
        return dict(read_record(path)) if path.is_file() else {}

    def _note(self, name: str, info: dict[str, Any]) -> None:
        with self.history.turn():
            write_json_durably(self._notes(name) | info, self._notes_folder / f"{name}.json")

    def _adopt(self, image_id: str, tag: str) -> None:
        """Make a label that came into the folder by other means a version, before it is replaced."""
        path = self._label(image_id, tag)
        if path is None:
            return
        known = {version.sha256 for version in self.history.versions(image_id, tag)}
        if file_sha256(path) not in known:
            self.history.add(image_id, tag, path, path.name[len(image_id) :], info={"origin": "found in the folder"})

    def _show(self, version: LabelVersion) -> None:
        """Put the newest version where other tools look for it."""
        folder = self.folder / "labels" / version.tag
        wanted = None if version.file is None else f"{version.image}{version.file[6:]}"
        if wanted is not None:
            copy_durably(self.history.path(version), folder / wanted)
        for suffix in LABEL_SUFFIXES:
            if f"{version.image}{suffix}" != wanted:
                (folder / f"{version.image}{suffix}").unlink(missing_ok=True)

    def _mend(self) -> None:
        """Show the newest version of every label, where a crash kept that from happening."""
        with self.history.turn():
            for image, tag in self.history.labels():
                self._adopt(image, tag)
                version = self.history.latest(image, tag)
                if version is not None and self._is_here(image) and not self._is_shown(version):
                    self._show(version)

    def _is_here(self, image_id: str) -> bool:
        return image_id in self._images()

    def _is_shown(self, version: LabelVersion) -> bool:
        path = self._label(version.image, version.tag)
        return (file_sha256(path) if path else None) == version.sha256


def made_by(info: Mapping[str, Any]) -> dict[str, Any]:
    """The ``model`` that a label was made by or began with, and its ``model_version``; None where that is not known.

    Args:
        info: of the label, see :meth:`StudyFolder.get_label_info`.
    """
    params = info.get("params")
    return {"model": info.get("model"), "model_version": params.get("version") if isinstance(params, dict) else None}


def _file_facts(path: Path) -> dict[str, Any]:
    return {"name": path.name, "ts": int(path.stat().st_mtime)}


def _ending(path: Path) -> str:
    """The ending of an image's or a label's name as it is written."""
    return path.name[-len(ending(path.name, (*IMAGE_SUFFIXES, *LABEL_SUFFIXES))) :]


def _of_label(image_id: str, tag: str) -> str:
    """What the notes on a label are named."""
    return f"{image_id}.{tag}.label"
