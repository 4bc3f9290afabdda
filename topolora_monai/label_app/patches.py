"""What is mended in MONAI Label while it runs; nothing of it is needed once upstream has the change.

The patches are written against one version of MONAI Label and refuse to be applied to another. Whatever starts the app
imports :mod:`topolora_monai.label_app.main`, which applies them: the server, and the processes it starts for training,
scoring and batches.
"""

import importlib.metadata
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

from topolora_monai.errors import ConfigError

PATCHED_VERSION = "0.8.5"
"""The version of MONAI Label that the patches are for."""


@dataclass(frozen=True)
class Patch:
    """One defect: what it is, what upstream would need, and what is replaced.

    ``changes`` hold a place in MONAI Label, the name of its attribute, and either the place of what is put there or a
    function that is called with the original before its arguments.
    """

    name: str
    defect: str
    upstream: str
    changes: tuple[tuple[str, str, str | Callable[..., Any]], ...]

    def replacements(self) -> Iterator[tuple[Any, str, Any]]:
        """Object, name of its attribute, and what replaces it; MONAI Label is imported by this."""
        for place, name, change in self.changes:
            owner = resolve_name(f"monailabel.{place}")
            if isinstance(change, str):
                yield owner, name, resolve_name(f"topolora_monai.label_app.{change}")
            else:
                yield owner, name, _wrapped(getattr(owner, name), change)


def check_version() -> None:
    """Make sure that MONAI Label is installed, and in the version the patches are for.

    Raises:
        ConfigError: if it is missing or another version.
    """
    install = f"run `make label`, or install monailabel=={PATCHED_VERSION} as docs/label.md says"
    try:
        found = importlib.metadata.version("monailabel")
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError("MONAI Label is not installed", expected=PATCHED_VERSION, hint=install) from error
    if found != PATCHED_VERSION:
        raise ConfigError(
            "the label app mends defects of one version of MONAI Label and would do harm to another",
            expected=PATCHED_VERSION,
            found=found,
            hint=install,
        )


def apply_patches() -> None:
    """Apply every patch, once for each process.

    Raises:
        ConfigError: as :func:`check_version`.
    """
    check_version()
    for patch in PATCHES:
        for replacement in patch.replacements():
            setattr(*replacement)


def set_defaults() -> None:
    """Settings of MONAI Label that are safe; to be called before it is imported, what is set already stays.

    What it imports and the app does not use is put in place.

    Scoring by itself after every request, experiment tracking in a place MLflow refuses, and downloads are off; the
    folder of images is not watched, since the app looks for itself; of a DICOM server not only CT is listed.
    """
    # MONAI Label imports it for DICOM SEG, which the app does by highdicom; it does not go with pydicom 3.
    sys.modules.setdefault("pydicom_seg", ModuleType("pydicom_seg"))
    defaults = {
        "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",
        "MONAI_LABEL_TRACKING_ENABLED": "false",
        "MONAI_LABEL_DATASTORE_AUTO_RELOAD": "false",
        "MONAI_LABEL_DICOMWEB_SEARCH_FILTER": "{}",
        "MONAI_ZOO_SOURCE": "local",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def in_threads(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """A plain function from an endpoint that is a coroutine but never waits, so that FastAPI gives it a thread.

    Upstream's endpoints are declared ``async`` and then compute for seconds: every other request waits. Upstream
    would need ``def`` in the place of ``async def``.
    """
    if not inspect.iscoroutinefunction(endpoint):
        return endpoint

    def run(*args: Any, **kwargs: Any) -> Any:
        coroutine = endpoint(*args, **kwargs)
        try:
            coroutine.send(None)
        except StopIteration as finished:
            return finished.value
        coroutine.close()
        raise RuntimeError(f"{endpoint.__name__} waits for something and cannot run in a thread")

    run.__name__ = endpoint.__name__
    run.__doc__ = endpoint.__doc__
    # Not functools.wraps: FastAPI would look through it and find the coroutine.
    run.__signature__ = inspect.signature(endpoint, eval_str=True)  # type: ignore[attr-defined]
    return run


def _run_batch(original: Callable[..., Any], task: Any, request: dict[str, Any], *args: Any) -> Any:
    import torch  # noqa: PLC0415 - takes seconds

    several = torch.cuda.device_count() > 0 and request.get("multi_gpu", True)
    return original(task, request | {"multi_gpu": several}, *args)


def _infer_or_go_on(original: Callable[..., Any], request: dict[str, Any], *args: Any) -> Any:
    try:
        return original(request, *args)
    except Exception as error:  # whatever is wrong with one image, the others wait
        logging.getLogger(__name__).warning("no mask of %s: %s", request.get("image"), error)
        return {}


def _check_scoring(original: Callable[..., Any], method: str, params: Any = None, *args: Any) -> Any:
    from monailabel.interfaces.utils.app import app_instance  # noqa: PLC0415

    app_instance()._scoring_methods[method].check(params or {})
    return original(method, params, *args)


def _check_batch(original: Callable[..., Any], model: str, images: Any, params: Any = None, *args: Any) -> Any:
    from monailabel.interfaces.utils.app import app_instance  # noqa: PLC0415

    app_instance().check_batch(params or {})
    return original(model, images, params, *args)


def _without_log(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    found, detail = original(*args, **kwargs)
    return [_told(task) for task in found] if isinstance(found, list) else _told(found), detail


def _told(task: Any) -> Any:
    """The state of a process with a sentence in the place of its log's last lines; 3D Slicer reads the last one."""
    if not isinstance(task, dict) or "request" not in task or "status" not in task:
        return task  # what a task gave that ran in this process
    sentences = {"SUBMITTED": "it waits", "RUNNING": "it runs", "DONE": "it is done"}
    return {**task, "details": [sentences.get(task["status"], "it failed; the server's log says why")]}


def _info_or_missing(original: Callable[..., Any], image: str) -> Any:
    from monailabel.interfaces.exception import ImageNotFoundException  # noqa: PLC0415

    found = original(image)
    if not found:
        raise ImageNotFoundException(f"there is no image {image!r}")
    return found


def _label_info_or_missing(original: Callable[..., Any], label: str, tag: str) -> Any:
    from monailabel.interfaces.exception import LabelNotFoundException  # noqa: PLC0415

    found = original(label, tag)
    if not found:
        raise LabelNotFoundException(f"image {label} has no label {tag}")
    return found


def _load_checkpoint(original: Callable[..., Any], task: Any, path: str, pretrained: bool, handlers: list[Any]) -> None:
    if pretrained:
        original(task, path, pretrained, handlers)


def _score_when_asked(original: Callable[..., Any], app: Any, method: str | None, params: Any = None) -> Any:
    return original(app, method, params) if method else {}


def _download_image(original: Callable[..., Any], image: str, check_only: bool = False, check_sum: Any = None) -> Any:
    from fastapi import HTTPException  # noqa: PLC0415
    from monailabel.interfaces.utils.app import app_instance  # noqa: PLC0415
    from monailabel.utils.others.generic import file_checksum  # noqa: PLC0415

    if not (check_only and check_sum):
        return original(image, check_only, check_sum)
    found = original(image, True)
    algorithm, _, digest = check_sum.rpartition(":")
    computed = file_checksum(app_instance().datastore().get_image_uri(image), algo=algorithm or "SHA256")
    if computed.partition(":")[2] != digest.lower():
        raise HTTPException(404, "image has another checksum")
    return found


def _download_dataset(original: Callable[..., Any], limit_cases: int | None = None) -> Any:
    from fastapi import HTTPException  # noqa: PLC0415
    from monailabel.interfaces.utils.app import app_instance  # noqa: PLC0415
    from starlette.background import BackgroundTask  # noqa: PLC0415

    if not app_instance().datastore().datalist():
        raise HTTPException(404, "no image has a final label yet")
    response = original(limit_cases)
    response.background = BackgroundTask(os.unlink, response.path)
    return response


def _nothing_to_download(app: Any) -> None:
    """DICOM SEG is written without the tools that upstream downloads for it."""


def _run_inference(original: Callable[..., Any], tasks: Any, model: str, image: str, *rest: Any) -> Any:
    session_id, params, *files, output = rest
    if output != "dicom_seg":
        return original(tasks, model, image, *rest)
    from topolora_monai.label_app import dicom_store  # noqa: PLC0415

    answer = original(tasks, model, image, session_id, params, *files, "image")
    return dicom_store.answer_as_segmentation(answer, tasks, model, image, params)


PATCHES = (
    Patch(
        "tokens",
        "every token is refused, since its algorithm is not named when it is decoded; issuer and audience are not"
        " looked at, and keys only come from Keycloak's own page",
        "`algorithms=['RS256']` in `jwt.decode`, keys by `jwks_uri` of the issuer's configuration",
        (("endpoints.user.auth", "from_token", "access:user_from_token"),),
    ),
    Patch(
        "batch_without_gpu",
        "a batch on a machine without GPU divides by the number of GPUs",
        "`multi_gpu` only where `torch.cuda.device_count()` is not 0",
        (("interfaces.tasks.batch_infer:BatchInferTask", "__call__", _run_batch),),
    ),
    Patch(
        "batch_goes_on",
        "a batch with one worker, as on machines of fewer than 8 cores, ends at the first image that cannot be used",
        "the `except` around `run_infer_task` that several workers have",
        (("interfaces.tasks.batch_infer", "run_infer_task", _infer_or_go_on),),
    ),
    Patch(
        "training_from_scratch",
        "training a bundle with `pretrained: false` ends with a TypeError",
        "no `os.path.exists` of None in `BundleTrainTask._load_checkpoint`",
        (("tasks.train.bundle:BundleTrainTask", "_load_checkpoint", _load_checkpoint),),
    ),
    Patch(
        "scoring_storm",
        "every start, every next image and every training starts all scoring methods, each in a process of its own",
        "scoring only when asked for, or when none is running",
        (("interfaces.app:MONAILabelApp", "async_scoring", _score_when_asked),),
    ),
    Patch(
        "checksum",
        "an image whose checksum begins with a character of the algorithm's name is said to be another",
        "`str.removeprefix` in the place of `str.lstrip` in `download_image`",
        (("endpoints.datastore", "download_image", _download_image),),
    ),
    Patch(
        "empty_archive",
        "downloading a data set without labels fails with status 500; each download leaves an archive behind",
        "status 404, and a background task that removes the archive",
        (("endpoints.datastore", "download_dataset", _download_dataset),),
    ),
    Patch(
        "submissions",
        "who submits a label is not kept, and a damaged or wrongly sized file is taken for a label",
        "`user` into the record, and a look at the file before it is taken",
        (
            ("endpoints.datastore", "save_label", "endpoints:save_label"),
            ("endpoints.datastore", "add_image", "endpoints:add_image"),
        ),
    ),
    Patch(
        "archives",
        "an uploaded archive may write outside of its session's folder or fill the disk",
        "`filter='data'` in `shutil.unpack_archive`, and a limit",
        (("endpoints.session", "create_session", "endpoints:create_session"),),
    ),
    Patch(
        "regions",
        "QuPath is sent a mask where it asked for an annotation file, unless the app writes one itself, and every TIFF"
        " is read as a slide",
        "polygons of every mask where `output=asap` is asked for, and a look at the file in the place of its ending",
        (("endpoints.wsi_infer", "run_wsi_inference", "endpoints:infer_region"),),
    ),
    Patch(
        "settings",
        "what is wrong with the settings of scoring or a batch is found in its own process, half a minute later",
        "a look at them before the process is started",
        (
            ("endpoints.scoring", "run_method", _check_scoring),
            ("endpoints.batch_infer", "run", _check_batch),
        ),
    ),
    Patch(
        "log_lines",
        "whoever asks how far a task is gets the last lines of its log, paths and tracebacks among them",
        "a sentence in the place of `details`",
        (
            ("utils.async_tasks.task:AsyncTask", "status", _without_log),
            ("utils.async_tasks.task:AsyncTask", "run", _without_log),
        ),
    ),
    Patch(
        "nothing_known",
        "of an image or label that is not there the answer is {}, with status 200",
        "status 404",
        (
            ("endpoints.datastore", "get_image_info", _info_or_missing),
            ("endpoints.datastore", "get_label_info", _label_info_or_missing),
        ),
    ),
    Patch(
        "log_page",
        "the page of the log loads scripts from elsewhere, which a content policy forbids",
        "a page without scripts",
        (("endpoints.logs", "get_logs", "pages:log_page"),),
    ),
    Patch(
        "proxy",
        "the proxy reaches every page of the DICOM server, not only DICOMweb, has no time limit, and blocks",
        "no `..` in the path, `timeout=`, a thread",
        (("endpoints.proxy", "proxy_dicom", "dicom_server:forward"),),
    ),
    Patch(
        "dicomweb",
        "a DICOM server's list is up to two hours old and of CT alone, a label is read back as the image or not at all,"
        " photographs cannot be labelled, every segment is called spleen, a series that is cut off while it is copied"
        " stays so, who submitted is not kept, and nothing ends when the server hangs",
        "a datastore by instances, with time limits, whose labels are found by their image",
        (
            ("interfaces.app", "DICOMWebDatastore", "dicom_store:open_dicom_studies"),
            ("interfaces.app:MONAILabelApp", "_download_dcmqi_tools", "patches:_nothing_to_download"),
            ("endpoints.infer", "run_inference", _run_inference),
        ),
    ),
)
"""All of them; :func:`in_threads` and the rules of :mod:`~topolora_monai.label_app.server` are applied there."""


def _wrapped(original: Callable[..., Any], replacement: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls the replacement with the original before its arguments; wraps only once."""
    if hasattr(original, "original"):
        return original

    def call(*args: Any, **kwargs: Any) -> Any:
        return replacement(original, *args, **kwargs)

    call.original = original  # type: ignore[attr-defined]
    return call
