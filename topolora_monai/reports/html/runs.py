"""What a run's folder says: its settings, its training curves, its scores and where its pictures are."""

import csv
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topolora_monai.engines import read_json
from topolora_monai.errors import DataError
from topolora_monai.io.csv_cells import text_of
from topolora_monai.reports.layers import ImageLayers, find_layers

_CURVES_FORMAT = 1
_NO_SCORE = ("name", "group", "threshold")
_SCORE_TAGS = ("test/", "validation/")  # evaluation's, which are no curves
_EVALUATE = "score it first: python -m monai.bundle run evaluating --config_file configs/evaluate.yaml --output_dir RUN"


class Scalars(NamedTuple):
    """One training curve, by its name in TensorBoard; steps are iterations or epochs, as it was written."""

    tag: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that was evaluated.

    Args:
        label: what it is called beside others.
        folder: where it is.
        record: settings, provenance and pooled scores, of ``summary.json`` or ``training.json``.
        names: of the images.
        scores: of each image by the score's name; NaN where one is not defined.
        curves: of each class by its name, of ``curves.json``; empty for runs evaluated before there was one.
        scalars: training curves.
    """

    label: str
    folder: Path
    record: dict[str, Any]
    names: tuple[str, ...]
    scores: dict[str, NDArray[np.float64]]
    curves: dict[str, dict[str, Any]]
    scalars: tuple[Scalars, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, the background left out."""
        several = self.record.get("test", {}).get("classes", {})
        return tuple(several or self.curves or ("foreground",))

    def layers(self, name: str) -> ImageLayers:
        """Picture files of one image."""
        return find_layers(_below(self.folder / "evaluation" / "images", name), len(self.classes))

    def figure(self, name: str) -> Path | None:
        """The picture of one image with everything side by side."""
        path = _below(self.folder / "evaluation" / "pictures", f"{name}.png")
        return path if path.is_file() else None


def open_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Read runs and give each a label of its own.

    Args:
        folders: as ``--output_dir`` of training and evaluation named them.

    Raises:
        DataError: if one has not been evaluated, a file is damaged, or a folder is given twice.
    """
    paths = [Path(folder).absolute() for folder in folders]
    for number, path in enumerate(paths):
        if path.resolve() in [earlier.resolve() for earlier in paths[:number]]:
            raise DataError("a run is given twice", path=path, hint="name each run once")
    return [_open_run(path, label) for path, label in zip(paths, _labels(paths), strict=True)]


def _open_run(folder: Path, label: str) -> Run:
    if not folder.is_dir():
        raise DataError("run not found", path=folder, expected="a folder", hint="check the path")
    evaluation = folder / "evaluation"
    names, scores = _read_table(evaluation / "per_image.csv")
    return Run(
        label=label,
        folder=folder,
        record=_read_json(folder / "training.json") | _read_json(evaluation / "summary.json"),
        names=names,
        scores=scores,
        curves=_read_curves(evaluation / "curves.json"),
        scalars=_read_scalars(folder / "tensorboard"),
    )


def _labels(paths: Sequence[Path]) -> list[str]:
    """Shortest ends of the paths that tell them apart."""
    depths = range(1, max(len(path.parts) for path in paths) + 1)
    each = ([str(Path(*path.parts[-depth:])) for path in paths] for depth in depths)
    return next(labels for labels in each if len(set(labels)) == len(labels))


def _read_table(path: Path) -> tuple[tuple[str, ...], dict[str, NDArray[np.float64]]]:
    if not path.is_file():
        raise DataError("run has not been evaluated", path=path.parents[1], expected=path.name, hint=_EVALUATE)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if not rows or "name" not in rows[0]:
            raise ValueError("no images in it, or no column 'name'")
        names = tuple(text_of(row["name"]) for row in rows)
        columns = [column for column in rows[0] if column is not None and column not in _NO_SCORE]
        scores = {column: np.array([_number(row[column]) for row in rows]) for column in columns}
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise DataError("table of scores cannot be read", path=path, found=str(error), hint=_EVALUATE) from error
    if len(set(names)) < len(names):
        raise DataError("two images have one name", path=path, hint=_EVALUATE)
    return names, {column: values for column, values in scores.items() if np.isfinite(values).any()}


def _number(text: str) -> float:
    value = float(text) if text != "" else math.nan
    return value if math.isfinite(value) else math.nan


def _read_json(path: Path) -> dict[str, Any]:
    return read_json(path, _EVALUATE) if path.is_file() else {}


def _read_curves(path: Path) -> dict[str, dict[str, Any]]:
    curves = _read_json(path)
    classes = curves.get("classes", {})
    if curves and (curves.get("format") != _CURVES_FORMAT or not isinstance(classes, dict)):
        raise DataError(
            "curves of another format",
            path=path,
            expected=f"format {_CURVES_FORMAT} with classes",
            found=f"format {curves.get('format')}",
            hint=_EVALUATE,
        )
    return dict(classes)


def _read_scalars(folder: Path) -> tuple[Scalars, ...]:
    if not folder.is_dir():
        return ()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415 - takes time

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    curves = []
    for tag in sorted(tag for tag in events.Tags()["scalars"] if not tag.startswith(_SCORE_TAGS)):
        points = {event.step: event.value for event in events.Scalars(tag)}  # the last, of a step taken up again
        known = sorted((step, value) for step, value in points.items() if math.isfinite(value))
        if known:
            curves.append(Scalars(tag, *zip(*known, strict=True)))
    return tuple(curves)


def _below(folder: Path, name: str) -> Path:
    """A path in a folder; one that a name from a file would lead out of it is none."""
    path = folder / name
    return path if path.resolve().is_relative_to(folder.resolve()) else folder / "no such image"
