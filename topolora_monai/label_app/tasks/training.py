"""Training from submitted labels, in a process of its own, and how far it is."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil
import torch
from filelock import FileLock, Timeout
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from topolora_monai.adapters import read_spec
from topolora_monai.annotation.training import Progress, TrainingSettings, fine_tune
from topolora_monai.errors import ConfigError, DataError, TopoLoRAError
from topolora_monai.io.images import image_kind
from topolora_monai.io.json_files import write_json
from topolora_monai.label_app.models import Adapters
from topolora_monai.label_app.options import LabelOptions

_INTERVAL = 0.5
"""Least seconds between two notes of progress."""


class Training(TrainTask):
    """Fine-tune an adapter with the images that have a final label, and use the result only if it is surely better.

    A request may have the fields of :class:`~topolora_monai.annotation.training.TrainingSettings`; ``max_epochs``
    means ``epochs``, as MONAI Label's clients say; its ``user`` is the author of a new version. The folder is for notes
    of progress.
    """

    def __init__(self, adapters: Adapters, name: str, folder: Path, options: LabelOptions) -> None:
        super().__init__(f"fine-tunes adapter {name}; the old one stays if validation does not surely improve")
        self._adapters = adapters
        self._name = name
        self._folder = folder
        self._options = options

    def config(self) -> dict[str, Any]:
        """What a client may change; values of the adapter's own recipe stand in where it has some."""
        recipe = read_spec(self._adapters.current(self._name).path).recipe
        defaults = dataclasses.asdict(TrainingSettings())
        settings = {"max_epochs": defaults.pop("epochs")}
        settings |= {name: getattr(recipe, name, None) if value is None else value for name, value in defaults.items()}
        return {name: value for name, value in settings.items() if value is not None}

    def check(self, request: Mapping[str, Any]) -> None:
        """Refuse what a request cannot ask for, before a process is started for it.

        Raises:
            ConfigError: for a setting of another kind, or an impossible value.
        """
        _settings(request)

    def stats(self) -> dict[str, Any]:
        """As :func:`training_status`."""
        return training_status(self._folder, self._name)

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train; progress can be read meanwhile, by any process.

        Returns:
            The status at the end.

        Raises:
            ConfigError: if another training is under way; others as of
                :func:`~topolora_monai.annotation.training.fine_tune`.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        notes = _Notes(self._folder / f"{self._name}.json", self._name)
        try:
            with FileLock(self._folder / ".lock", timeout=0):
                return self._train(request, datastore, notes)
        except Timeout as error:
            raise ConfigError("another training is under way", hint="wait, or stop it") from error

    def _train(self, request: dict[str, Any], datastore: Datastore, notes: _Notes) -> dict[str, Any]:
        notes.write(state="running", fraction=0.0)
        server = os.getppid()
        try:
            pairs = [(pair["image"], pair["label"]) for pair in datastore.datalist()]
            pictures = [pair for pair in pairs if image_kind(pair[0]) != "volume"]
            if pairs and not pictures:
                raise DataError("no picture has a final label", found="labels of volumes, which are not trained on")
            tuned = fine_tune(
                pictures,
                self._adapters.versions(self._name),
                weights=self._options.weights,
                field_of_view=self._options.field_of_view,
                settings=_settings(request),
                device="cuda" if torch.cuda.is_available() else "cpu",
                author=str(request.get("user") or "nobody named"),
                note=f"from {len(pictures)} labels",
                progress=notes.tell,
                cancelled=lambda: os.getppid() != server,  # a killed server leaves nobody to follow it
            )
        except Exception as error:
            failed = f"the server failed ({type(error).__name__}); its log says more"
            notes.write(state="failed", error=str(error) if isinstance(error, TopoLoRAError) else failed)
            raise
        if tuned.cancelled:
            return notes.write(state="stopped")
        told = ("in_use", "reason", "before", "after", "training", "validation")
        result = {name: getattr(tuned, name) for name in told}
        result["version"] = tuned.version and tuned.version.number
        result["test"] = tuned.test and dataclasses.asdict(tuned.test)
        return notes.write(state="finished", fraction=1.0, seconds_left=0.0, result=result)


def training_status(folder: Path, name: str) -> dict[str, Any]:
    """How far training of an adapter is.

    Returns:
        ``state``: ``never``, ``running``, ``finished``, ``failed`` or ``stopped``; ``fraction`` in [0, 1]; ``loss``;
        ``seconds_left``; ``started`` and ``updated``, ISO 8601; ``result`` of a finished one: ``version`` (null if it
        is not better), ``in_use`` and else the ``reason``, ``before`` and ``after`` (Dice on the validation images),
        ``test`` (:class:`~topolora_monai.metrics.PairedTest` of them), ``training`` and ``validation`` (names of
        images); ``error`` of one that failed.
    """
    path = folder / f"{name}.json"
    try:
        status: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {"adapter": name, "state": "never"}
    if not _is_running(*status.pop("process")) and status["state"] == "running":
        status["state"] = "stopped"
    return status


class _Notes:
    """Progress in a file, replaced as a whole."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._last = 0.0
        own = psutil.Process()
        self._status: dict[str, Any] = {"adapter": name, "started": _now(), "process": [own.pid, own.create_time()]}

    def tell(self, progress: Progress) -> None:
        """Note a step, if the last note is old enough."""
        if time.monotonic() - self._last > _INTERVAL:
            self._last = time.monotonic()
            self.write(state="running", **dataclasses.asdict(progress))

    def write(self, **changes: Any) -> dict[str, Any]:
        """Note changes; returns all that is noted, in which null stands for what is no number."""
        self._status |= changes | {"updated": _now()}
        write_json(self._status, self._path)
        noted: dict[str, Any] = json.loads(self._path.read_text())
        return noted


def _settings(request: Mapping[str, Any]) -> TrainingSettings:
    known = {entry.name: str(entry.type) for entry in dataclasses.fields(TrainingSettings)}
    chosen = {name: request[name] for name in known if request.get(name) is not None}
    if request.get("max_epochs") is not None:
        chosen["epochs"] = request["max_epochs"]
    for name, value in chosen.items():
        kind = int if "int" in known[name] else int | float
        if not isinstance(value, kind) or isinstance(value, bool):
            words = "a whole number" if kind is int else "a number"
            raise ConfigError(f"{name} must be {words}", found=repr(value)[:60])
    return TrainingSettings(**chosen)


def _is_running(pid: int, started: float) -> bool:
    try:
        found = psutil.Process(pid)
        return bool(abs(found.create_time() - started) < 1 and found.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
