"""The app that MONAI Label's server, and every process it starts, runs."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from topolora_monai.label_app.patches import apply_patches, set_defaults

set_defaults()

from monailabel.config import settings  # noqa: E402 - its values are read on import
from monailabel.interfaces.app import MONAILabelApp  # noqa: E402
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag  # noqa: E402
from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelError, MONAILabelException  # noqa: E402

import topolora_monai  # noqa: E402
from topolora_monai.adapters import read_spec  # noqa: E402
from topolora_monai.annotation.uncertainty import UncertaintyKind  # noqa: E402
from topolora_monai.errors import ConfigError, DataError  # noqa: E402
from topolora_monai.io.geometry import shape_on_grid  # noqa: E402
from topolora_monai.io.images import image_kind  # noqa: E402
from topolora_monai.label_app.datastore import StudyFolder, made_by  # noqa: E402
from topolora_monai.label_app.models import Adapters, BundleModel, Model  # noqa: E402
from topolora_monai.label_app.names import checked_name  # noqa: E402
from topolora_monai.label_app.options import LabelOptions  # noqa: E402
from topolora_monai.label_app.other_labels import on_grid  # noqa: E402
from topolora_monai.label_app.rendering import check_image_size, image_shape  # noqa: E402
from topolora_monai.label_app.tasks.choice import NextImage, Scoring  # noqa: E402
from topolora_monai.label_app.tasks.segmentation import Clicks, Segmentation  # noqa: E402
from topolora_monai.label_app.tasks.training import Training  # noqa: E402

apply_patches()
_KINDS: tuple[UncertaintyKind, ...] = get_args(UncertaintyKind)


class LabelApp(MONAILabelApp):
    """Adapted networks for MONAI Label, which keeps logs in ``app_dir``.

    ``studies`` is a folder of images or the address of a DICOMweb server, ``conf`` as
    :class:`~topolora_monai.label_app.options.LabelOptions` writes it.
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
        """The folder of images, or the DICOM server's, see :mod:`~topolora_monai.label_app.dicom_store`."""
        studies: str = self.studies
        return self._init_dicomweb_datastore() if is_address(studies) else StudyFolder(studies)

    def init_infers(self) -> dict[str, Any]:
        """Segmentation by every adapter, automatic as ``NAME`` and by clicks as ``NAME_clicks``, and every bundle."""
        tasks: dict[str, Any] = {}
        for name in self.adapters.names:
            labels = read_spec(self.adapters.current(name).path).labels
            tasks[name] = Segmentation(Model(self.adapters, name), labels, f"adapter {name}")
            tasks[f"{name}_clicks"] = Clicks(Model(self.adapters, name), labels, f"adapter {name}, by clicks and box")
        for name, folder in self.options.bundles.items():
            bundle = BundleModel(name, folder)
            tasks[name] = Segmentation(bundle, bundle.spec.labels, f"released bundle {name}")
        return tasks

    def init_trainers(self) -> dict[str, Any]:
        """Training of every adapter."""
        return {name: Training(self.adapters, name, self.training_folder, self.options) for name in self.adapters.names}

    def init_scoring_methods(self) -> dict[str, Any]:
        """Uncertainty by entropy, by dropout in the adapters, and in topology."""
        return {kind: Scoring(self.adapters, kind) for kind in _KINDS} if self.adapters.names else {}

    def init_strategies(self) -> dict[str, Any]:
        """The most uncertain image first, or a random order."""
        kinds = _KINDS if self.adapters.names else ()
        return {"random": NextImage(None), **{kind: NextImage(kind) for kind in kinds}}

    @property
    def training_folder(self) -> Path:
        """Folder of notes on training."""
        return self.options.folder / "training"

    def infer(self, request: dict[str, Any], datastore: StudyFolder | None = None) -> dict[str, Any]:
        """Segment one image.

        The request has ``model``; ``image``, the name of one of the studies' images or a file that this server was just
        sent; ``save_label`` and ``label_tag`` to keep the result; further entries as the task takes them.

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

    def check_batch(self, params: Mapping[str, Any]) -> None:
        """Refuse what a batch cannot be asked for.

        Raises:
            ConfigError: for a number that is none.
            ImageNotFoundException: for an image that is not here.
        """
        for name in ("max_batch_size", "max_workers"):
            value = params.get(name, 0)
            if not isinstance(value, int) or value < 0:
                raise ConfigError(f"{name} must be a whole number, 0 for no limit", found=repr(value)[:60])
        images = params.get("images")
        unknown = set(images if isinstance(images, list) else ()).difference(self.datastore().list_images())
        if unknown:
            raise ImageNotFoundException(f"there is no image {min(map(str, unknown))!r}")

    def batch_infer(self, request: dict[str, Any], datastore: StudyFolder | None = None) -> dict[str, Any]:
        """Segment many images and keep the masks under ``label_tag``.

        Of ``images``, ``unlabeled`` means those without final label whose mask another version of the adapter, or
        another model, has made, or nobody yet; what a person has sent under the tag stays.
        """
        store = datastore or self.datastore()
        if request.get("images") == "unlabeled":
            model, tag = request.get("model"), str(request.get("label_tag") or DefaultLabelTag.ORIGINAL.value)
            present = {"model": model, "model_version": self._infers[model].model.told().get("version")}
            found = ((name, store.get_label_info(name, tag)) for name in store.get_unlabeled_images())
            wanted = [name for name, info in found if not info or ("params" in info and made_by(info) != present)]
            request = {**request, "images": wanted}
        answers: dict[str, Any] = super().batch_infer(request, store)
        return answers

    def submit_label(self, image: str, path: Path, tag: str, info: dict[str, Any], user: str | None) -> dict[str, Any]:
        """Keep a label file that a client sent, after a look at it; returns what the client is told.

        Who is signed in is recorded; where nobody has to, whom ``info``, what the client says of it, names as ``user``.

        Raises:
            ImageNotFoundException: for an unknown image.
            DataError: if the file is no label of the image, or lies elsewhere.
        """
        store = self.datastore()
        place = store.image_path(image)
        _check_size(path, place)
        if not settings.MONAI_LABEL_AUTH_ENABLE:
            user = None if info.get("user") is None else str(info["user"])[:100]
        with on_grid(path, place) as placed:
            version = store.submit(image, placed, tag, info, user)
        self.on_save_label(image, image)
        told = asdict(version)
        return {"label": image} | {name: told[name] for name in ("image", "tag", "version", "time", "user", "sha256")}

    def _image_path(self, image: str, store: StudyFolder) -> tuple[str, bool]:
        """Path of an image and whether it is one of the studies'."""
        if Path(image).is_absolute() and Path(image).exists() and self._is_ours(Path(image)):
            return image, False
        return str(store.image_path(checked_name(image, "image"))), True

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
        found, expected = (tuple(sorted(side for side in shape if side != 1)) for shape in (found, expected))
    if found != expected:
        raise DataError("label has another size than its image", expected=expected, found=found)
