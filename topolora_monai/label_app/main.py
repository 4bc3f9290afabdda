"""The app that MONAI Label's server, and every process it starts, runs."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from topolora_monai.label_app.patches import apply_patches, set_defaults

set_defaults()

from monailabel.config import settings  # noqa: E402 - its values are read on import
from monailabel.interfaces.app import MONAILabelApp  # noqa: E402
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag  # noqa: E402
from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelError, MONAILabelException  # noqa: E402

import topolora_monai  # noqa: E402
from topolora_monai.adapters import read_spec  # noqa: E402
from topolora_monai.annotation.uncertainty import UncertaintyKind  # noqa: E402
from topolora_monai.errors import DataError  # noqa: E402
from topolora_monai.io.geometry import shape_on_grid  # noqa: E402
from topolora_monai.io.images import image_kind  # noqa: E402
from topolora_monai.label_app.datastore import StudyFolder  # noqa: E402
from topolora_monai.label_app.models import Adapters, BundleModel, Model  # noqa: E402
from topolora_monai.label_app.names import checked_name  # noqa: E402
from topolora_monai.label_app.options import LabelOptions  # noqa: E402
from topolora_monai.label_app.other_labels import on_grid  # noqa: E402
from topolora_monai.label_app.sizes import check_image_size, image_shape  # noqa: E402
from topolora_monai.label_app.tasks.choice import MostUncertain, RandomOrder, Scoring  # noqa: E402
from topolora_monai.label_app.tasks.segmentation import Clicks, Segmentation  # noqa: E402
from topolora_monai.label_app.tasks.training import Training  # noqa: E402

__all__ = ["LabelApp", "is_address"]

apply_patches()
_KINDS: tuple[UncertaintyKind, ...] = ("topology", "entropy", "dropout")


class LabelApp(MONAILabelApp):
    """Adapted networks for MONAI Label.

    Args:
        app_dir: folder that MONAI Label keeps logs in.
        studies: folder of images, or address of a DICOMweb server.
        conf: see :class:`~topolora_monai.label_app.options.LabelOptions`.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, Any]) -> None:
        self.options = LabelOptions.from_conf(conf)
        self.adapters = Adapters(self.options)
        super().__init__(
            app_dir=app_dir,
            studies=studies.rstrip("/") if is_address(studies) else studies,
            conf=conf,
            name="topolora_monai",
            description="Networks adapted to thin structures: automatic, by clicks, and retrained from corrections",
            version=topolora_monai.__version__,
        )
        self._auto_update_scoring = False

    def init_datastore(self) -> Datastore:
        """The folder of images, or MONAI Label's own access to DICOMweb."""
        studies: str = self.studies
        return self.init_remote_datastore() if is_address(studies) else StudyFolder(studies)

    def init_infers(self) -> dict[str, Any]:
        """Segmentation by every adapter, automatic as ``NAME`` and by clicks as ``NAME_clicks``, and every bundle."""
        tasks: dict[str, Any] = {}
        for name in self.adapters.names:
            labels = list(read_spec(self.adapters.current(name).path).labels)
            tasks[name] = Segmentation(Model(self.adapters, name), labels, f"adapter {name}")
            tasks[f"{name}_clicks"] = Clicks(Model(self.adapters, name), labels, f"adapter {name}, by clicks and box")
        for name, folder in self.options.bundles.items():
            bundle = BundleModel(name, folder)
            tasks[name] = Segmentation(bundle, bundle.labels, f"released bundle {name}")
        return tasks

    def init_trainers(self) -> dict[str, Any]:
        """Training of every adapter."""
        return {name: Training(self.adapters, name, self.training_folder, self.options) for name in self.adapters.names}

    def init_scoring_methods(self) -> dict[str, Any]:
        """Uncertainty by entropy, by dropout in the adapters, and in topology."""
        return {kind: Scoring(self.adapters, kind) for kind in _KINDS} if self.adapters.names else {}

    def init_strategies(self) -> dict[str, Any]:
        """The most uncertain image first, or a random order."""
        strategies: dict[str, Any] = {"random": RandomOrder()}
        if self.adapters.names:
            strategies.update((kind, MostUncertain(kind)) for kind in _KINDS)
        return strategies

    @property
    def training_folder(self) -> Path:
        """Folder of notes on training."""
        return self.options.folder / "training"

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Segment one image.

        Args:
            request: ``model``; ``image``, the name of one of the studies' images or a file that this server was just
                sent; ``save_label`` and ``label_tag`` to keep the result; further entries as the task takes them.
            datastore: another one than the app's.

        Returns:
            ``file`` and ``params`` of the result; ``label``, its name where it was kept.

        Raises:
            MONAILabelException: for an unknown model.
            ImageNotFoundException: for an unknown image.
            DataError: if the image cannot be used.
        """
        store = datastore or self.datastore()
        model, image = request.get("model"), request.get("image")
        task = self._infers.get(model)
        if task is None:
            raise MONAILabelException(MONAILabelError.INVALID_INPUT, f"there is no model {model!r}")
        path, of_studies = self._image_path(str(image), store)
        check_image_size(path, self.options.max_pixels)
        file, params = task({**request, "image": path})
        tag = str(request.get("label_tag") or DefaultLabelTag.ORIGINAL.value)
        label = file
        if file and of_studies and request.get("save_label") in (True, "true"):
            checked_name(tag, "tag")
            label = store.save_label(str(image), file, tag, {"model": model, "params": params})
        return {"label": label, "tag": tag, "file": file, "params": params}

    def submit_label(self, image: str, path: Path, tag: str, info: dict[str, Any], user: str | None) -> dict[str, Any]:
        """Keep a label that a client sent, after a look at it.

        Args:
            image: name of its image.
            path: the file that was sent.
            tag: to keep it under.
            info: what the client says of it.
            user: who is signed in; where nobody has to, whom ``info`` names as ``user`` is recorded.

        Returns:
            What the client is told.

        Raises:
            ImageNotFoundException: for an unknown image.
            DataError: if the file is no label of the image, or lies elsewhere.
        """
        store = self.datastore()
        if not isinstance(store, StudyFolder):
            checked_name(tag, "tag")
            label = store.save_label(image, str(path), tag, {**info, "user": user})
            return {"image": image, "label": label, "tag": tag}
        if image not in store.list_images():
            raise ImageNotFoundException(f"there is no image {image!r}")
        place = Path(store.get_image_uri(image))
        _check_size(path, place)
        user = user if settings.MONAI_LABEL_AUTH_ENABLE else _named(info)
        with on_grid(path, place) as placed:
            version = store.submit(image, placed, tag, info, user)
        self.on_save_label(image, image)
        told = asdict(version)
        return {"label": image} | {name: told[name] for name in ("image", "tag", "version", "time", "user", "sha256")}

    def _image_path(self, image: str, store: Datastore) -> tuple[str, bool]:
        """Path of an image and whether it is one of the studies'."""
        uploaded = Path(image).is_absolute() and Path(image).exists() and self._is_ours(Path(image))
        if uploaded:
            return image, False
        checked_name(image, "image")
        path = store.get_image_uri(image)
        if not path:
            raise ImageNotFoundException(f"there is no image {image!r}")
        return path, True

    def _is_ours(self, path: Path) -> bool:
        """Whether the server itself wrote a file; clients cannot name one, see ``check_request``."""
        folders = [Path(tempfile.gettempdir())] + ([Path(self._sessions.store_path)] if self._sessions else [])
        return any(path.resolve().is_relative_to(folder.resolve()) for folder in folders)


def is_address(studies: str) -> bool:
    """Whether studies are on a server."""
    return studies.startswith(("http://", "https://"))


def _check_size(label: Path, image: Path) -> None:
    kinds = image_kind(label), image_kind(image)
    expected = image_shape(image)
    found = shape_on_grid(label, image) if kinds == ("volume", "volume") else image_shape(label)
    if kinds[0] != kinds[1]:  # a picture's label as a volume of one slice, as some programs write it
        found = tuple(sorted(side for side in found if side != 1))
        expected = tuple(sorted(side for side in expected if side != 1))
    if found != expected:
        raise DataError("label has another size than its image", expected=expected, found=found)


def _named(info: dict[str, Any]) -> str | None:
    user = info.get("user")
    return None if user is None else str(user)[:100]
