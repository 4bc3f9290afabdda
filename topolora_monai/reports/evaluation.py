"""Scores of a split: a table per image, a summary, and pictures to look at."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys as Keys

from topolora_monai.engines import image_names, provenance, write_json
from topolora_monai.metrics import ThresholdCurve, cldice, threshold_bin, to_16_bit
from topolora_monai.reports.figures import comparison_figure

__all__ = ["EvaluationReport", "SplitScores", "write_summary"]


class SplitScores:
    """Pooled curve of a split, to choose a threshold from; attach it to the evaluation engine of validation."""

    def __init__(self) -> None:
        self.curve = ThresholdCurve()

    def attach(self, engine: Engine) -> None:
        """Act after each image, and start afresh with each run."""
        engine.add_event_handler(Events.STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)

    def threshold(self) -> float:
        """Best threshold on the images seen, 0.5 before any was."""
        return self.curve.best_threshold() if self.curve.positives.any() else 0.5

    def summary(self) -> dict[str, float]:
        """Pooled scores at the chosen threshold and Dice at 0.5."""
        return summary(self.curve, self.threshold())

    def _reset(self, engine: Engine) -> None:
        self.curve = ThresholdCurve()

    def _collect(self, engine: Engine) -> None:
        for one in engine.state.output:
            self.curve.add(one[Keys.PRED], one[Keys.LABEL]["label"], one[Keys.LABEL]["fov"])


class EvaluationReport:
    """Write ``per_image.csv``, ``pictures/NAME.png`` and keep the summary of a split.

    Overlap scores are pooled over the pixels of all images inside the field of view, at native size; clDice
    is the mean over images, on exact skeletons.

    Args:
        folder: where the table and the pictures go.
        threshold: called once at the start; foreground is ``probability >= threshold()``.
        pictures: draw one for each image.
    """

    def __init__(self, folder: str | Path, threshold: Callable[[], float], pictures: bool = True) -> None:
        self.folder = Path(folder)
        self._choose = threshold
        self.pictures = pictures
        self._reset()

    def attach(self, engine: Engine) -> None:
        """Act after each image and at the end."""
        engine.add_event_handler(Events.STARTED, lambda _: self._start())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._score)
        engine.add_event_handler(Events.COMPLETED, lambda _: self._write())

    def summary(self) -> dict[str, float]:
        """Scores of the split: dice, iou, precision, recall, auc, cldice, threshold, dice_at_half."""
        values = [row["cldice"] for row in self.rows if not math.isnan(row["cldice"])]
        return summary(self.curve, self.threshold) | {"cldice": float(np.mean(values)) if values else float("nan")}

    def _reset(self) -> None:
        self.curve = ThresholdCurve()
        self.rows: list[dict[str, Any]] = []
        self.threshold = 0.5

    def _start(self) -> None:
        self._reset()
        self.threshold = self._choose()
        (self.folder / "pictures").mkdir(parents=True, exist_ok=True)

    def _score(self, engine: Engine) -> None:
        for one, name in zip(engine.state.output, image_names(engine.state.batch), strict=True):
            probability = one[Keys.PRED].float().cpu()
            label, fov = one[Keys.LABEL]["label"].cpu(), one[Keys.LABEL]["fov"].cpu()
            curve = ThresholdCurve()
            curve.add(probability, label, fov)
            self.curve.merge(curve)
            predicted = to_16_bit(probability[0]).numpy() >= threshold_bin(self.threshold)  # as the curve rounds
            truth, inside = label[0].numpy() > 0.5, fov[0].numpy() > 0.5
            row = {"name": name, **summary(curve, self.threshold), "cldice": cldice(predicted, truth, inside)}
            self.rows.append(row)
            if self.pictures:
                caption = (
                    f"{name}   Dice {row['dice']:.3f}   clDice {row['cldice']:.3f}   threshold {self.threshold:.2f}"
                )
                image = one[Keys.IMAGE].float().cpu().numpy()
                figure = comparison_figure(image, truth, predicted, inside, caption)
                figure.save(self.folder / "pictures" / f"{name}.png")

    def _write(self) -> None:
        if not self.rows:
            return
        beside = self.folder / ".per_image.csv.part"
        with beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]))
            writer.writeheader()
            writer.writerows(
                {k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()} for row in self.rows
            )
        os.replace(beside, self.folder / "per_image.csv")


def write_summary(
    output_dir: str | Path, report: EvaluationReport, validation: SplitScores, data: Mapping[str, Any]
) -> None:
    """Write ``summary.json``: the run's own description, and its scores on validation and test.

    Args:
        output_dir: folder of the run; its ``training.json``, where there is one, gives the description.
        report: after its engine has run.
        validation: likewise.
        data: what was scored, as the data set describes itself; a part of one is said to be one.
    """
    training = Path(output_dir) / "training.json"
    record: dict[str, Any] = json.loads(training.read_text()) if training.is_file() else {}
    if record:
        record["evaluation_command"] = provenance()["command"]
    else:
        record = provenance()
    record["evaluated_on"] = dict(data)
    record |= {"validation": validation.summary(), "test": report.summary()}
    write_json(record, Path(output_dir) / "evaluation" / "summary.json")
    shown = "  ".join(f"{name} {value:.4f}" for name, value in record["test"].items())
    part = f" of a part, {data['partial']}" if "partial" in data else ""
    print(f"test ({len(report.rows)} images{part}): {shown}\nwritten to {report.folder}")


def summary(curve: ThresholdCurve, threshold: float) -> dict[str, float]:
    """Scores of a curve at a threshold, with its AUC and the Dice at one half."""
    return {
        **dataclasses.asdict(curve.scores(threshold)),
        "auc": curve.auc(),
        "threshold": threshold,
        "dice_at_half": curve.scores(0.5).dice,
    }
