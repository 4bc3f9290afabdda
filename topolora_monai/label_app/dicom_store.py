"""Images of a DICOM server as MONAI Label's datastore: copies of what was looked at, labels in versions and as SEG."""

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from monailabel.config import settings
from monailabel.interfaces.utils.app import app_instance
from pydicom import dcmread
from pydicom.dataset import Dataset
from starlette.responses import FileResponse

from topolora_monai.errors import ConfigError, DataError
from topolora_monai.io.atomic import folder_beside
from topolora_monai.io.itk_formats import nifti_like_itk, series_files
from topolora_monai.io.nifti import write_nifti
from topolora_monai.io.pictures import write_png
from topolora_monai.io.volumes import is_volume, read_volume
from topolora_monai.label_app.datastore import FINAL, Scan, StudyFolder
from topolora_monai.label_app.dicom_seg import dicom_segmentation, numbers_of_segmentation, referenced_instances
from topolora_monai.label_app.dicom_server import PHOTOGRAPHS, DicomImage, DicomServer, DicomServerError
from topolora_monai.label_app.history import LabelVersion
from topolora_monai.label_app.names import checked_name
from topolora_monai.label_app.options import LabelOptions
from topolora_monai.label_app.rendering import image_shape
from topolora_monai.label_app.tasks.masks import new_result_file, read_label, write_label

OTHERS = "dicom"
"""Tag of labels that other programs have put on the DICOM server."""

_logger = logging.getLogger(__name__)
_LIST_SECONDS = 10.0
"""For which the server's list of series is taken to be as it was."""


class DicomStudies(StudyFolder):
    """Series of a DICOM server, by UID; photographs one by one.

    An image is copied into the folder when it is first needed: its DICOM files in ``UID``, and ``UID.nii.gz`` or,
    without a position in space, ``UID.png``. Labels are kept there as :class:`StudyFolder` keeps them, and each
    final one becomes a DICOM SEG object in a new series on the server first, a ``label_map`` or one bit for each pixel
    and class. Objects of other programs are read as the label :data:`OTHERS`. ``class_names`` gives the names of the
    classes by number; the folder is of this server alone. A server that does not answer raises ``DicomServerError``.
    """

    def __init__(
        self,
        server: DicomServer,
        folder: str | Path,
        class_names: Callable[[], Mapping[int, str]] = dict,
        label_map: bool = False,
    ) -> None:
        self.server = server
        self._class_names = class_names
        self._label_map = label_map
        self._listing = threading.Lock()
        self._listed: tuple[float, dict[str, DicomImage]] | None = None
        self._fetching: dict[str, threading.Lock] = {}
        self._unusable: dict[DicomImage, DataError] = {}
        super().__init__(folder)

    def name(self) -> str:
        """The server's address."""
        return self.server.address

    def description(self) -> str:
        """What it is."""
        return "images of a DICOM server"

    def left_out(self) -> list[dict[str, str]]:
        """Series that turned out to be of no use."""
        return [{"file": image.name, "reason": str(error)} for image, error in self._unusable.items()]

    def list_images(self) -> list[str]:
        """Names of all images, in the server's order."""
        return list(self._series())

    def get_image_uri(self, image_id: str) -> str:
        """Path of the copy of an image, which is made now if it is missing; empty for an unknown one.

        Raises:
            DataError: if it is neither a photograph nor slices that make a volume.
        """
        image = self._series().get(image_id)
        if image is None:
            return ""
        with self._listing:
            lock = self._fetching.setdefault(image_id, threading.Lock())
        with lock:
            copy = self._copy(image_id)
            files = len(list((self.folder / image_id).glob("*.dcm"))) if copy else 0
            fetched = copy is None or image.count not in (0, files)  # of which more slices have come since
            copy = self._fetch(image) if fetched else copy
        if fetched:
            try:
                self.read_segmentations(image_id)
            except DicomServerError as error:
                _logger.warning("segmentations of %s were not looked for: %s", image_id, error)
        return str(copy)

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Names of images that have no label, but for those that turned out to be unusable."""
        unusable = {image.name for image in self._unusable}
        return [name for name in super().get_unlabeled_images(label_tag, labels) if name not in unusable]

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Notes on an image, and what the server's list says of it; sides not known before it is copied are None."""
        image = self._series().get(image_id)
        if image is None:
            return {}
        words = dict(image.facts or {})
        facts: dict[str, Any] = {
            "name": " ".join(words.values()) or image.name,
            "path": f"{self.server.address}/studies/{image.study}/series/{image.series}",
            "StudyInstanceUID": image.study,
            "SeriesInstanceUID": image.series,
            **words,
        }
        copy = self._copy(image.name)
        if copy is not None:
            facts["shape"] = list(image_shape(copy))
        elif image.modality not in PHOTOGRAPHS and image.count > 1:
            facts["shape"] = [image.count, None, None]
        return facts | self._notes(image_id)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Not possible."""
        raise ConfigError("images are added to the DICOM server itself", found=image_id, hint="send it there")

    def remove_image(self, image_id: str) -> None:
        """Not possible."""
        raise ConfigError("images are removed on the DICOM server itself", found=image_id)

    def submit(
        self, image_id: str, label: Path, tag: str, info: dict[str, Any], user: str | None = None
    ) -> LabelVersion:
        """Keep a label as the newest version; a final one is on the server, too, when this returns.

        ``info`` gets ``SeriesInstanceUID`` and ``SOPInstanceUID`` of the object there.

        Raises:
            DataError: if the label lies elsewhere than its image.
            DicomServerError: if the server does not take it; nothing is kept then.
            NewerLabelError: if there is a version that is newer than the ``base`` of ``info``.
        """
        self._check_known(image_id)
        checked_name(tag, "tag")
        self.check_base(image_id, tag, info)
        if tag == FINAL:
            seg = self.segmentation(image_id, label, info, user)
            self.server.store(seg)
            info = {**info, "SeriesInstanceUID": str(seg.SeriesInstanceUID), "SOPInstanceUID": str(seg.SOPInstanceUID)}
        return super().submit(image_id, label, tag, info, user)

    def segmentation(self, image_id: str, label: Path, info: Mapping[str, Any], user: str | None = None) -> Dataset:
        """A label file of an image as DICOM SEG, made by ``user``.

        Of ``info``, ``label_info``, a list of objects with ``name``, may name the classes from 1 on, and ``model`` what
        the label began with.

        Raises:
            DataError: if the label lies elsewhere than its image.
        """
        path = self.image_path(image_id)
        sources = _sources(self.folder / image_id)
        named = {number: str(entry["name"]) for number, entry in enumerate(_objects(info.get("label_info")), 1)}
        model = str(info["model"]) if info.get("model") else None
        names = {**self._class_names(), **named}
        return dicom_segmentation(read_label(label, path), sources, names, user, model, self._label_map)

    def label_of_segmentation(self, image_id: str, seg: Dataset) -> Path:
        """A DICOM SEG object of an image, by whatever program, as a new temporary label file.

        Raises:
            DataError: if it is not of this image.
        """
        path = self.image_path(image_id)
        numbers = numbers_of_segmentation(seg, _sources(self.folder / image_id), self._class_names())
        return write_label(numbers if is_volume(path) else numbers[0], path)

    def read_segmentations(self, image_id: str) -> list[LabelVersion]:
        """Keep what other programs have put on the server of an image as versions of the label :data:`OTHERS`.

        Objects that this server has submitted or read before are passed over, and those that cannot be used are
        logged. The name of their creator is the user's.
        """
        image = self._series().get(image_id)
        self.image_path(image_id)
        if image is None:
            return []
        known = [version for tag in (FINAL, OTHERS) for version in self.history.versions(image_id, tag)]
        seen = {str(version.info.get("SeriesInstanceUID")) for version in known}
        own = {str(source.SOPInstanceUID) for source in _sources(self.folder / image_id)}
        read = []
        for seg in self.server.segmentations(image, seen):
            if own.isdisjoint(referenced_instances(seg)):
                continue
            try:
                label = self.label_of_segmentation(image_id, seg)
            except (DataError, AttributeError, KeyError, ValueError) as error:  # objects that lack what they must have
                _logger.warning("segmentation %s cannot be used: %s", seg.get("SOPInstanceUID"), error)
                continue
            told = {name: str(seg.get(name, "")) for name in ("SeriesInstanceUID", "SOPInstanceUID", "Manufacturer")}
            creator = str(seg.get("ContentCreatorName") or "") or None
            try:
                read.append(self.submit(image_id, label, OTHERS, told, creator))
            finally:
                label.unlink()
        return read

    def _described(self, name: str) -> dict[str, Any]:
        copy = self._copy(name)
        return {"ext": copy.name[len(name) :] if copy else "", "info": self.get_image_info(name)}

    def _series(self) -> dict[str, DicomImage]:
        with self._listing:
            if self._listed is None or time.monotonic() - self._listed[0] > _LIST_SECONDS:
                images = {image.name: image for image in self.server.images()}
                self._listed = (time.monotonic(), images)
            return self._listed[1]

    def _is_here(self, image_id: str) -> bool:
        return True  # as far as is known at the start, when the server may be away

    def _scan(self) -> Scan:
        return Scan({}, {}, {})

    def _copy(self, image_id: str) -> Path | None:
        paths = (self.folder / f"{image_id}{suffix}" for suffix in (".png", ".nii.gz"))
        return next((path for path in paths if path.is_file()), None)

    def _fetch(self, image: DicomImage) -> Path:
        if image in self._unusable:
            raise self._unusable[image]
        try:
            return self._fetched(image)
        except DataError as error:
            self._unusable[image] = error
            raise

    def _fetched(self, image: DicomImage) -> Path:
        instances = self.server.fetch(image)
        with folder_beside(self.folder / image.name) as made:
            files = made / "files"
            files.mkdir()
            for instance in instances:
                instance.save_as(files / f"{checked_name(str(instance.SOPInstanceUID), 'image')}.dcm")
            copy = _as_picture(instances, files) or _as_volume(files)
            # The DICOM files first: a copy that can be seen has them.
            target = self.folder / image.name
            while old := self._copy(image.name):
                old.unlink()
            shutil.rmtree(target, ignore_errors=True)
            os.replace(files, target)
            return (target / copy.name).replace(self.folder / f"{image.name}{copy.name[len('image') :]}")


def open_dicom_studies(
    client: Any, search_filter: Mapping[str, Any], cache_path: str | None, **options: Any
) -> DicomStudies:
    """In the place of MONAI Label's datastore for DICOMweb; copies are kept in the workspace by default."""
    chosen = LabelOptions.from_conf(settings.MONAI_LABEL_APP_CONF)
    folder = Path(cache_path or chosen.folder / "dicom")
    return DicomStudies(DicomServer(client, search_filter), folder, _class_names, chosen.label_map)


def answer_as_segmentation(answer: Any, background_tasks: Any, model: str, image: str, params: str) -> FileResponse:
    """What inference gave as DICOM SEG; ``params`` are a JSON object, see :meth:`DicomStudies.segmentation`."""
    info = {"model": model, **json.loads(params or "{}")}
    seg = app_instance().datastore().segmentation(image, Path(answer.path), info)
    path = new_result_file(".dcm")
    background_tasks.add_task(path.unlink)
    seg.save_as(path, enforce_file_format=True)
    return FileResponse(path, media_type="application/dicom", filename=path.name)


def _class_names() -> dict[int, str]:
    """Names of classes that all models agree on."""
    found: dict[int, set[str]] = {}
    for task in app_instance()._infers.values():
        for name, number in task.labels.items():
            found.setdefault(int(number), set()).add(str(name))
    return {number: names.pop() for number, names in found.items() if len(names) == 1}


def _as_picture(instances: Sequence[Dataset], files: Path) -> Path | None:
    """One image without a position in space as a PNG; None for anything else."""
    first = instances[0]
    if len(instances) > 1 or int(first.get("NumberOfFrames") or 1) > 1 or "ImagePositionPatient" in first:
        return None
    try:
        pixels = SimpleITK.ReadImage(str(next(files.iterdir())), imageIO="GDCMImageIO")
    except RuntimeError as error:
        raise DataError("the DICOM image cannot be decoded", path=first.SOPInstanceUID, found=error) from error
    values = SimpleITK.GetArrayFromImage(pixels)[0]
    if values.dtype not in (np.uint8, np.uint16) or values.ndim not in (2, 3):
        raise DataError("the DICOM image has pixels of another type", expected="8 or 16 bits", found=values.dtype)
    path = files / "image.png"
    write_png(values, path)
    return path


def _as_volume(files: Path) -> Path:
    instances = _sources(files)
    if any(int(instance.get("NumberOfFrames") or 1) > 1 for instance in instances):
        raise DataError("DICOM objects of several frames are not supported", found=instances[0].SOPClassUID.name)
    if not all("ImagePositionPatient" in instance for instance in instances):
        raise DataError("the series is no volume", found="slices without a position", expected="ImagePositionPatient")
    path = files / "image.nii.gz"
    write_nifti(nifti_like_itk(read_volume(files), files), path)
    return path


def _sources(folder: Path) -> list[Dataset]:
    """DICOM objects of an image without their pixels, in the order of its slices."""
    paths = sorted(folder.glob("*.dcm"))
    ordered = series_files(folder) if len(paths) > 1 else [str(path) for path in paths]
    return [dcmread(path, stop_before_pixels=True) for path in ordered]


def _objects(value: Any) -> list[Mapping[str, Any]]:
    """What a client says of each class; nothing if it is not as OHIF sends it."""
    right = isinstance(value, list) and all(isinstance(entry, Mapping) and entry.get("name") for entry in value)
    return list(value) if right else []
