"""Scores of a split: pooled ones to choose a threshold from; a table per image, a summary, and pictures to look at."""

import csv
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor

from topolora_monai.engines import (
    FiniteAnswers,
    RiskCoverage,
    UncertaintyInferer,
    batch_items,
    check_threshold_by,
    provenance,
    read_json,
    write_json,
)
from topolora_monai.io.atomic import atomic_write
from topolora_monai.io.csv_cells import cell_of
from topolora_monai.metrics import ClDiceCurveMetric
from topolora_monai.networks.activation import Activation
from topolora_monai.reports.class_scores import ClassScores
from topolora_monai.reports.curves import curves_record
from topolora_monai.reports.figures import comparison_figure
from topolora_monai.reports.image_scores import ImageScores
from topolora_monai.reports.layers import write_layers


class EvaluationReport:
    """Write ``per_image.csv``, ``curves.json``, the pictures of each image, and keep the summary of a split.

    An image's pictures are ``pictures/NAME.png``, all side by side, and the files of
    :func:`~topolora_monai.reports.write_layers` in ``images/NAME``, which the HTML report lays over one another.

    Overlap and calibration are pooled over the pixels of all images inside the field of view, at native size; what
    ``scores`` names is the mean over images. Of several classes there are the scores of each and their mean. Images
    that belong to a group have it in the table.

    Args:
        folder: where the table and the pictures go.
        threshold: called once at the start; foreground is ``probability >= threshold()``, unless classes exclude one
            another.
        pictures: draw those of each image.
        classes: names, the background first.
        activation: what made the probabilities; ``"softmax"`` makes several classes exclude one another.
        scores: of single images, as of :func:`~topolora_monai.reports.check_scores`.
        spacing: size of a pixel, for distances.
        boundary_tolerance: how far off a boundary may lie, in the same unit.
        uncertainty: the inferer of the engine, whose maps are drawn and compared with where the answer is wrong.

    Raises:
        ConfigError: for a score that is not one of them.
    """

    def __init__(
        self,
        folder: str | Path,
        threshold: Callable[[], float],
        pictures: bool = True,
        classes: Sequence[str] = ("background", "foreground"),
        activation: Activation = "sigmoid",
        scores: str | Sequence[str] = ("cldice",),
        spacing: float = 1.0,
        boundary_tolerance: float = 2.0,
        uncertainty: UncertaintyInferer | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._choose = threshold
        self.pictures = pictures
        self.uncertainty = uncertainty
        self._image_scores = ImageScores(scores, spacing, boundary_tolerance)
        self._empty = partial(ClassScores, classes, activation)
        self._reset()

    def attach(self, engine: Engine) -> None:
        """Act after each image, if its answer is in numbers, and at the end."""
        FiniteAnswers().attach(engine)
        engine.add_event_handler(Events.STARTED, lambda _: self._start())
        engine.add_event_handler(Events.ITERATION_STARTED, lambda _: self._answer_from())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._score)
        engine.add_event_handler(Events.COMPLETED, lambda _: self._write())

    def summary(self) -> dict[str, Any]:
        """Scores of the split; see :meth:`ClassScores.summary`."""
        return self.scores.summary(self.threshold)

    def seconds_per_image(self) -> float | None:
        """What the network's answer to an image took in the middle; of a processor those of all cores added up."""
        return round(statistics.median(self._seconds), 4) if self._seconds else None

    def _reset(self) -> None:
        self.scores = self._empty()
        self.risks = [RiskCoverage() for _ in self.scores.foreground if self.uncertainty is not None]
        self.rows: list[dict[str, Any]] = []
        self.threshold = 0.5
        self._seconds: list[float] = []
        self._began: float | None = None

    def _start(self) -> None:
        self._reset()
        self.threshold = self._choose()
        (self.folder / "pictures").mkdir(parents=True, exist_ok=True)

    def _answer_from(self) -> None:
        self._began = _clock()

    def _score(self, engine: Engine) -> None:
        output, items = engine.state.output, batch_items(engine.state.batch)
        if self._began is not None:
            self._seconds.append((_clock() - self._began) / len(output))
        for one, item, uncertainty in zip(output, items, self._uncertainties(len(output)), strict=True):
            probability = one[Keys.PRED].float().cpu()
            label, fov = one[Keys.LABEL]["label"].cpu(), one[Keys.LABEL]["fov"].cpu()
            scores = self._empty()
            scores.add(probability, label, fov)
            predicted = scores.predicted(probability, self.threshold)
            scores.add_image_scores(self._image_scores.of(probability, predicted, label, fov))
            self.scores.merge(scores)
            truth, inside = label.numpy() > 0.5, fov[0].numpy() > 0.5
            if uncertainty is not None:
                for risk, one_class, wrong in zip(self.risks, uncertainty, predicted != truth, strict=True):
                    risk.add(one_class, torch.from_numpy(wrong), fov)
            name = str(item["name"])
            group = {"group": str(item["group"])} if "group" in item else {}
            row = {"name": name, **group, **scores.row(self.threshold)}
            self.rows.append(row)
            if self.pictures:
                image = one[Keys.IMAGE].float().cpu().numpy()
                figure = comparison_figure(image, truth, predicted, inside, self._caption(row), scores.foreground)
                figure.save(self.folder / "pictures" / f"{name}.png")
                unsure = None if uncertainty is None else uncertainty.numpy()
                answer = predicted & inside, probability.numpy()
                write_layers(self.folder / "images" / name, image, truth, *answer, inside, unsure)

    def _uncertainties(self, images: int) -> Sequence[Tensor | None]:
        """Entropy of each image of the batch, shape (K, H, W); classes that exclude one another share theirs."""
        if self.uncertainty is None or self.uncertainty.latest is None:
            return [None] * images
        return list(self.uncertainty.latest.entropy.float().cpu().expand(-1, len(self.risks), -1, -1))

    def _caption(self, row: Mapping[str, Any]) -> str:
        told = {"dice": "Dice {:.3f}", "cldice": "clDice {:.3f}", "threshold": "threshold {:.2f}"}
        return "   ".join([row["name"], *(words.format(row[score]) for score, words in told.items() if score in row)])

    def _write(self) -> None:
        if not self.rows:
            return
        path = self.folder / "per_image.csv"
        with atomic_write(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]))
            writer.writeheader()
            writer.writerows({key: _cell(value) for key, value in row.items()} for row in self.rows)
        curves = dict(zip(self.scores.foreground, self.scores.curves, strict=True))
        risks = dict(zip(curves, self.risks, strict=False))  # of all classes, or of none
        write_json(curves_record(curves, self.threshold, risks), self.folder / "curves.json")


def _clock() -> float:
    """Seconds of the processor, which other work on the machine does not lengthen; of the wall clock with a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return cell_of(value)
    return f"{value:.6f}" if isinstance(value, float) else value


class SplitScores:
    """Pooled scores of a split, to choose a threshold from; attach it to the evaluation engine of validation.

    Args:
        classes: names, the background first.
        activation: what made the probabilities; ``"softmax"`` makes several classes exclude one another.
        threshold_by: what the threshold is best for, ``"dice"``, pooled over images, or ``"cldice"``, mean over images.

    Raises:
        ConfigError: for another name.
    """

    def __init__(
        self,
        classes: Sequence[str] = ("background", "foreground"),
        activation: Activation = "sigmoid",
        threshold_by: str = "dice",
    ) -> None:
        self._empty = partial(ClassScores, classes, activation)
        self.scores = self._empty()
        self.threshold_by = check_threshold_by(threshold_by)
        self._cldice = ClDiceCurveMetric()

    def attach(self, engine: Engine) -> None:
        """Act after each image, if its answer is in numbers, and start afresh with each run."""
        FiniteAnswers().attach(engine)
        engine.add_event_handler(Events.STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)

    def threshold(self) -> float:
        """Best threshold on the images seen; 0.5 before any was, and where there is none to choose."""
        if self.threshold_by == "dice" or self.scores.exclusive or self._cldice.get_buffer() is None:
            return self.scores.best_threshold()
        return self._cldice.best_threshold()

    def summary(self) -> dict[str, Any]:
        """Pooled scores, at the chosen threshold where there is one; see :meth:`ClassScores.summary`."""
        return self.scores.summary(self.threshold())

    def _reset(self, engine: Engine) -> None:
        self.scores = self._empty()
        self._cldice.reset()

    def _collect(self, engine: Engine) -> None:
        for one in engine.state.output:
            probability, label, fov = one[Keys.PRED].float(), one[Keys.LABEL]["label"], one[Keys.LABEL]["fov"]
            self.scores.add(probability, label, fov)
            if self.threshold_by == "cldice" and not self.scores.exclusive:
                self._cldice(y_pred=probability[None], y=label[None], mask=fov[None])


def run_record(output_dir: str | Path) -> dict[str, Any]:
    """What a finished training says about itself; empty where there is none.

    Raises:
        DataError: if its file is damaged.
    """
    path = Path(output_dir) / "training.json"
    hint = "start the training again with its command: it writes the file anew"
    return read_json(path, hint) if path.exists() else {}


def write_summary(
    output_dir: str | Path,
    report: EvaluationReport,
    validation: SplitScores,
    data: Mapping[str, Any],
    temperature: float = 1.0,
    scale: Mapping[str, Any] | None = None,
) -> None:
    """Write ``summary.json``: the run's own description, and its scores on validation and test.

    Args:
        output_dir: folder of the run; its ``training.json``, where there is one, gives the description.
        report: after its engine has run.
        validation: likewise.
        data: what was scored, as the data set describes itself; a part of one is said to be one.
        temperature: what the logits were divided by.
        scale: how the pixel scale was matched, where it was.
    """
    record = run_record(output_dir)
    record.pop("split", None)  # which stays with the run
    record |= {"evaluation_command": provenance()["command"]} if record else provenance()
    record |= {"evaluated_on": dict(data), "temperature": temperature, "threshold_by": validation.threshold_by}
    record |= {"seconds_per_image": report.seconds_per_image()}
    record |= {"scale": dict(scale)} if scale else {}
    record |= {"validation": validation.summary(), "test": report.summary()}
    write_json(record, Path(output_dir) / "evaluation" / "summary.json")
    test = {name: value for name, value in record["test"].items() if name != "classes"}
    shown = "  ".join(f"{name} {value:.4f}" for name, value in test.items())
    for name, scores in record["test"].get("classes", {}).items():
        shown += f"\n  {name}: " + "  ".join(f"{score} {value:.4f}" for score, value in scores.items())
    part = f" of a part, {data['partial']}" if "partial" in data else ""
    print(f"test ({len(report.rows)} images{part}): {shown}\nwritten to {report.folder}")
