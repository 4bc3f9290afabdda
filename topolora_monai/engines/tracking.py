"""Scalars and pictures of a run in TensorBoard and MLflow, the same in both."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler, TensorBoardStatsHandler
from monai.utils.enums import CommonKeys as Keys
from PIL import Image

from topolora_monai.engines.batches import image_names
from topolora_monai.errors import ConfigError, first_line
from topolora_monai.extras import import_extra
from topolora_monai.io.csv_cells import text_of
from topolora_monai.io.json_files import read_json, write_json
from topolora_monai.metrics import predicted_masks
from topolora_monai.networks.activation import Activation

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.utils.tensorboard import SummaryWriter

_EXPERIMENT = "topolora_monai"
_RUN_FILE = "mlflow_run.json"
_MOST_PICTURES = 32  # of an evaluation
_THRESHOLD = 0.5  # of the masks in the picture of a validation, before one is chosen


def tracker_names(trackers: Any) -> tuple[str, ...]:
    """Names of trackers as YAML or MONAI's command line gives them: a list, or words parted by commas.

    Raises:
        ConfigError: for one that is not known.

    Example:
        >>> tracker_names("tensorboard, mlflow"), tracker_names([]), tracker_names(None)
        (('tensorboard', 'mlflow'), (), ())
    """
    words = trackers.strip("[]").split(",") if isinstance(trackers, str) else trackers or ()
    chosen = dict.fromkeys(str(word).strip().lower() for word in words)
    for name in chosen.keys() - {"", "none", "tensorboard", "mlflow"}:
        raise ConfigError(
            "unknown tracker",
            expected="some of tensorboard, mlflow",
            found=repr(name),
            hint="give names parted by commas, or [] for none",
        )
    return tuple(name for name in chosen if name not in ("", "none"))


class Tracker:
    """Where a run's scalars and pictures go; only the first of several processes sends any.

    TensorBoard's files are in ``OUTPUT_DIR/tensorboard``. ``OUTPUT_DIR/mlflow_run.json`` names the run in MLflow, so
    that training which is taken up again, and its evaluation, go on in the same one. Nothing is opened before the
    first use.

    Args:
        trackers: ``"tensorboard"``, ``"mlflow"``, both or none, as :func:`tracker_names` takes them.
        output_dir: folder of the run.
        mlflow_uri: of MLflow's database or server; None for ``mlflow.db`` in ``output_dir``. The environment variable
            ``MLFLOW_TRACKING_URI`` goes before it.

    Raises:
        ConfigError: for a tracker that is not known. On first use, if MLflow is not installed or cannot use the
            address.
    """

    def __init__(self, trackers: Any, output_dir: str | Path, mlflow_uri: str | None = None) -> None:
        self.names = tracker_names(trackers)
        self.folder = Path(output_dir).absolute()
        self.mlflow_uri = mlflow_uri or f"sqlite:///{self.folder / 'mlflow.db'}"
        self.active = bool(self.names) and idist.get_rank() == 0  # whether this process sends anything

    @cached_property
    def tensorboard(self) -> SummaryWriter | None:
        """What writes for TensorBoard; None where it is not asked for."""
        if not self.active or "tensorboard" not in self.names:
            return None
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - takes time

        return SummaryWriter(str(self.folder / "tensorboard"))

    @cached_property
    def mlflow(self) -> _MLflowRun | None:
        """The run in MLflow; None where it is not asked for."""
        return _MLflowRun(self.mlflow_uri, self.folder) if self.active and "mlflow" in self.names else None

    def attach(self, engine: Engine, iterations: Callable[[Any], dict[str, float]] | None = None) -> None:
        """Send an engine's metrics after each epoch by MONAI's handlers, and ``iterations`` of each output."""
        settings: dict[str, Any] = {"iteration_log": iterations is not None}
        if iterations is not None:
            settings["output_transform"] = iterations
        if self.tensorboard is not None:
            TensorBoardStatsHandler(summary_writer=self.tensorboard, **settings).attach(engine)
        if self.mlflow is not None:
            self.mlflow.handler(**settings).attach(engine)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Send numbers by their name; those that are not finite are left out."""
        for name, value in values.items():
            if self.tensorboard is not None and math.isfinite(value):
                self.tensorboard.add_scalar(_safe(name), value, step)
            if self.mlflow is not None and math.isfinite(value):
                self.mlflow.client.log_metric(self.mlflow.run_id, _safe(name), value, step=step)

    def picture(self, name: str, picture: Image.Image, step: int) -> None:
        """Send an RGB picture; in MLflow it is the artifact ``NAME/step_000000.png``."""
        if self.tensorboard is not None:
            self.tensorboard.add_image(_safe(name), np.asarray(picture), step, dataformats="HWC")
        if self.mlflow is not None:
            self.mlflow.client.log_image(
                self.mlflow.run_id, picture, artifact_file=f"{_safe(name)}/step_{step:06d}.png"
            )

    def record_evaluation(self) -> None:
        """Send what an evaluation has left in the run's folder: its scores, and the pictures of the first 32 images.

        They are called ``test/dice``, of several classes ``test/cup/dice``, ``validation/dice``, and ``test/NAME``.
        """
        if not self.active:
            return
        folder = self.folder / "evaluation"
        summary = read_json(folder / "summary.json", "evaluate again")
        for split in ("validation", "test"):
            self.scalars(_flat(summary.get(split, {}), split), step=0)
        with (folder / "per_image.csv").open(newline="", encoding="utf-8") as file:
            names = [text_of(row["name"]) for row in csv.DictReader(file)]
        for name in names[:_MOST_PICTURES]:
            path = folder / "pictures" / f"{name}.png"
            if path.is_file():
                with Image.open(path) as picture:
                    self.picture(f"test/{name}", picture.convert("RGB"), step=0)
        self.close()

    def close(self) -> None:
        """Send what is still waiting, and say that the run is finished."""
        if self.tensorboard is not None:
            self.tensorboard.flush()
        if self.mlflow is not None:
            self.mlflow.handler().close()


class TrainingTracking:
    """Send ``train_loss`` and ``learning_rate`` of each iteration; attach it before what steps the learning rate."""

    def __init__(self, tracker: Tracker, optimizer: Optimizer) -> None:
        self.tracker = tracker
        self.optimizer = optimizer

    def attach(self, engine: Engine) -> None:
        """Act after each iteration and at the end."""
        if self.tracker.active:
            self.tracker.attach(engine, self._scalars)
            engine.add_event_handler(Events.COMPLETED, lambda _: self.tracker.close())

    def _scalars(self, output: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        rate = float(self.optimizer.param_groups[0]["lr"])
        return {"train_loss": float(output[0][Keys.LOSS]), "learning_rate": rate}


class ValidationTracking:
    """Send the metrics of each validation, and a picture of its first image as ``validation_picture``.

    Args:
        tracker: where to.
        figure: makes the picture, as :func:`~topolora_monai.reports.comparison_figure`.
        classes: names, the background first.
        activation: what made the probabilities.
    """

    def __init__(
        self,
        tracker: Tracker,
        figure: Callable[..., Image.Image],
        classes: Sequence[str] = ("background", "foreground"),
        activation: Activation = "sigmoid",
    ) -> None:
        self.tracker = tracker
        self.figure = figure
        self.foreground = tuple(classes[1:])
        self.exclusive = activation == "softmax" and len(self.foreground) > 1

    def attach(self, engine: Engine) -> None:
        """Act after the first image of each validation and at its end."""
        if self.tracker.active:
            self.tracker.attach(engine)
            engine.add_event_handler(Events.ITERATION_COMPLETED(once=1), self._picture)

    def _picture(self, engine: Engine) -> None:
        one, name = engine.state.output[0], image_names(engine.state.batch)[0]
        predicted = predicted_masks(one[Keys.PRED].float().cpu(), None if self.exclusive else _THRESHOLD)
        truth, fov = (one[Keys.LABEL][key].cpu().numpy() > 0.5 for key in ("label", "fov"))
        caption = f"{name}   epoch {engine.state.epoch}" + ("" if self.exclusive else f"   threshold {_THRESHOLD:.2f}")
        image = one[Keys.IMAGE].float().cpu().numpy()
        picture = self.figure(image, truth, predicted, fov[0], caption, self.foreground)
        self.tracker.picture("validation_picture", picture, engine.state.epoch)


class _MLflowRun:
    """One run in MLflow, found again by the file in its folder; MONAI's handler would start another one each time."""

    def __init__(self, uri: str, folder: Path) -> None:
        for module in ("mlflow", "sqlalchemy", "alembic"):
            import_extra(module, extra="tracking", user="MLflow")
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - an extra

        _no_telemetry()
        self._uri = uri
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handler = self._handler()
            self.client: Any = handler.client
            self.run_id = self._known(folder / _RUN_FILE) or self._new(folder, handler.artifact_location)
        except (ValueError, MlflowException) as error:
            raise ConfigError(
                "MLflow cannot be used",
                expected="the address of a database or server, as sqlite:///PATH/mlflow.db or http://HOST:PORT",
                found=f"{uri}: {first_line(error)}",
                hint="give another mlflow_uri, or leave mlflow out of the trackers",
            ) from error

    def handler(self, **settings: Any) -> MLFlowHandler:
        """MONAI's handler for this run, that logs no more than TensorBoard's."""
        handler = self._handler(**settings)
        handler.cur_run = self.client.get_run(self.run_id)
        return handler

    def _handler(self, **settings: Any) -> MLFlowHandler:
        return MLFlowHandler(self._uri, experiment_name=_EXPERIMENT, optimizer_param_names=(), **settings)

    def _known(self, file: Path) -> str | None:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        known = read_json(file, "delete it to start another run in MLflow") if file.is_file() else {}
        if known.get("uri") != self.client.tracking_uri:
            return None
        try:
            self.client.update_run(known["run_id"], status="RUNNING")
        except MlflowException:  # deleted there
            return None
        return str(known["run_id"])

    def _new(self, folder: Path, artifacts: str | None) -> str:
        experiment = self.client.get_experiment_by_name(_EXPERIMENT)
        if experiment is None:
            number = self.client.create_experiment(_EXPERIMENT, artifact_location=artifacts)
        else:
            number = experiment.experiment_id
        run_id = self.client.create_run(number, run_name=folder.name, tags={"output_dir": str(folder)}).info.run_id
        write_json({"uri": self.client.tracking_uri, "run_id": run_id}, folder / _RUN_FILE)
        return str(run_id)


def _flat(scores: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Numbers by their path; those of the classes without the word."""
    flat: dict[str, float] = {}
    for name, value in scores.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, prefix if name == "classes" else f"{prefix}/{name}")
        elif isinstance(value, int | float):
            flat[f"{prefix}/{name}"] = float(value)
    return flat


def _safe(name: str) -> str:
    """A name as MLflow allows it; TensorBoard gets the same.

    Example:
        >>> _safe("test/../a(1)")
        'test/a_1_'
    """
    parts = [re.sub(r"[^\w. -]", "_", part) for part in name.split("/") if part not in ("", ".", "..")]
    return "/".join(parts)


def _no_telemetry() -> None:
    """Nothing about hospitals' work goes to MLflow's makers, unless MLFLOW_DISABLE_TELEMETRY=false asks for it."""
    from mlflow.telemetry import set_telemetry_client  # noqa: PLC0415 - an extra

    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    set_telemetry_client()  # read anew: MONAI has imported MLflow already
