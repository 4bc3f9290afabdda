"""The last state to resume from and the best adapter so far, both always whole on disk."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator, Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from topolora_monai.adapters import Adaptation, adapter_state, save_adapter
from topolora_monai.adapters.files import describe_model
from topolora_monai.engines.output import provenance, write_json
from topolora_monai.errors import ConfigError, OutputError
from topolora_monai.metrics import BestClDice, PooledDice, apply_temperature

__all__ = ["RunCheckpoint"]

_logger = logging.getLogger(__name__)


class RunCheckpoint:
    """Save ``last.pt`` after every epoch, ``adapter.safetensors`` at every best validation, and resume.

    Files are written beside their place and renamed, so a run killed at any moment leaves the previous
    state. Only what training changes is stored. ``training.json`` describes the finished run.

    Args:
        output_dir: folder of the run.
        adaptation: the adapted network.
        optimizer: its optimiser.
        lr_scheduler: its schedule, stepped each iteration.
        evaluator: the validation engine.
        dice: its metric, which chooses the best state, its threshold and its temperature.
        cldice: a further metric of the evaluator, which chooses the threshold instead.
        calibrate: store the temperature that makes probabilities mean what they say, and the threshold with it.
        settings: what identifies the run; a folder with a run of other settings is not resumed.
        properties: stored in the adapter file for its users.
        resume: take up the folder's last state; False starts over.

    Raises:
        AdapterFileError: for a property that no adapter file could be read with.
    """

    def __init__(
        self,
        output_dir: str | Path,
        adaptation: Adaptation,
        optimizer: Optimizer,
        lr_scheduler: LRScheduler,
        evaluator: Evaluator,
        dice: PooledDice,
        settings: dict[str, Any],
        properties: dict[str, Any],
        resume: bool = True,
        cldice: BestClDice | None = None,
        calibrate: bool = True,
    ) -> None:
        self.folder = Path(output_dir)
        self.adaptation = adaptation
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.evaluator = evaluator
        self.dice = dice
        self.cldice = cldice
        self.calibrate = calibrate
        self.settings = json.loads(json.dumps(settings | {"base_sha256": adaptation.base_sha256}))
        self.properties = properties
        describe_model(adaptation, self.adapter, **properties)  # or the first validation's work would be lost
        self.resume = resume
        self.best: dict[str, float] = {}
        self._provenance = provenance()  # of the code that trains, whatever is committed meanwhile
        self._seconds_before = 0.0
        self._started = time.monotonic()

    @property
    def last(self) -> Path:
        """File of the last state."""
        return self.folder / "last.pt"

    @property
    def adapter(self) -> Path:
        """File of the best adapter."""
        return self.folder / "adapter.safetensors"

    def attach(self, engine: Trainer) -> None:
        """Resume when the trainer starts; save after each of its epochs. Attach after the validation handler."""
        engine.add_event_handler(Events.STARTED, self._resume)
        if idist.get_rank() == 0:  # every process resumes, one writes
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._save_last)
            engine.add_event_handler(Events.COMPLETED, self._describe)
            self.evaluator.add_event_handler(Events.COMPLETED, self._save_best)

    def seconds(self) -> float:
        """Wall time of the run so far, over all its starts."""
        return self._seconds_before + time.monotonic() - self._started

    def _resume(self, trainer: Trainer) -> None:
        self._started = time.monotonic()
        if not self.resume or not self.last.is_file():
            return
        state = self._read_last()
        if state["settings"] != self.settings:
            keys = sorted(state["settings"].keys() | self.settings.keys())
            changed = [key for key in keys if state["settings"].get(key) != self.settings.get(key)]
            raise ConfigError(
                "output_dir holds a run with other settings",
                path=self.folder,
                expected={key: state["settings"].get(key) for key in changed},
                found={key: self.settings.get(key) for key in changed},
                hint="choose another --output_dir, or --resume false to overwrite that run",
            )
        self.adaptation.network.load_state_dict(state["adapter"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_scheduler.load_state_dict(self.lr_scheduler.state_dict() | state["lr_scheduler"])
        if trainer.scaler is not None and state["scaler"]:
            trainer.scaler.load_state_dict(state["scaler"])
        self.best, self._seconds_before = state["best"], state["seconds"]
        trainer.state.epoch = state["epoch"]
        trainer.state.iteration = state["epoch"] * (trainer.state.epoch_length or 0)
        done, wanted = trainer.state.epoch, trainer.state.max_epochs or 0
        if done >= wanted:
            _logger.warning(
                "%s is finished: %d of %d epochs. Raise --epochs, or --resume false.", self.folder, done, wanted
            )
        else:
            _logger.info("resuming %s after epoch %d of %d", self.folder, done, wanted)

    def _read_last(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = torch.load(self.last, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load has no error of its own
            raise ConfigError(
                "the run's last state cannot be read",
                path=self.last,
                found=str(error).splitlines()[0],
                hint="--resume false starts this run over",
            ) from error
        return state

    def _save_last(self, trainer: Trainer) -> None:
        schedule = self.lr_scheduler.state_dict()  # only its position: its length follows --epochs
        state = {
            "settings": self.settings,
            "epoch": trainer.state.epoch,
            "adapter": adapter_state(self.adaptation.network),
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": {key: schedule[key] for key in ("last_epoch", "_last_lr", "_step_count")},
            "scaler": trainer.scaler.state_dict() if trainer.scaler is not None else {},
            "best": self.best,
            "seconds": self.seconds(),
        }
        beside = self.last.with_name(f".{self.last.name}.part")
        try:
            torch.save(state, beside)
            os.replace(beside, self.last)
        except (OSError, RuntimeError) as error:
            raise self._cannot_save(self.last, error) from error
        finally:
            beside.unlink(missing_ok=True)

    def _save_best(self, evaluator: Engine) -> None:
        value, threshold = self.dice.best()
        if self.best and not value > self.best["dice"]:
            return
        if self.cldice is not None:
            threshold = self.cldice.best_threshold()
        temperature = self.dice.temperature() if self.calibrate else 1.0
        threshold = float(apply_temperature(torch.tensor(threshold, dtype=torch.float64), temperature))
        decision = {"threshold": threshold, "temperature": temperature}
        self.best = {"dice": value, **decision, "epoch": float(evaluator.state.epoch)}
        by = "dice" if self.cldice is None else "cldice"
        self._save_adapter(validation_dice=value, threshold_by=by, **decision)

    def _save_adapter(self, **scores: float | str) -> None:
        try:
            save_adapter(self.adaptation, self.adapter, **self.properties, **scores)
        except OSError as error:
            raise self._cannot_save(self.adapter, error) from error

    def _describe(self, trainer: Trainer) -> None:
        if not self.best:  # no epoch was validated
            self._save_adapter(threshold=0.5)
        record = {
            **self.settings,
            "trainable": self.adaptation.trainable_count,
            "published_trainable": self.adaptation.published_trainable_count,
            "epochs": trainer.state.epoch,
            "seconds": round(self.seconds(), 1),
            "validation": self.best,
            **self._provenance,
            "peak_memory_bytes": provenance()["peak_memory_bytes"],
        }
        write_json(record, self.folder / "training.json")

    @staticmethod
    def _cannot_save(path: Path, error: Exception) -> OutputError:
        return OutputError(
            "cannot save the run's state",
            path=path,
            found=str(error).splitlines()[0],
            hint="free some space and start again with the same command: it resumes from the last epoch saved",
        )
