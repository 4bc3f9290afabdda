"""Pooled scores of validation, and what is decided by them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys as Keys

from topolora_monai.engines import FiniteAnswers, check_threshold_by
from topolora_monai.metrics import ClDiceCurveMetric
from topolora_monai.networks.activation import Activation
from topolora_monai.reports.class_scores import ClassScores

__all__ = ["SplitScores"]


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
