"""The last state to resume from and the best adapter so far, both always whole on disk."""

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator, Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from topolora_monai.adapters import Adaptation, adapter_state, save_adapter
from topolora_monai.adapters.files import check_fit, describe_model
from topolora_monai.adapters.tensor_files import non_finite
from topolora_monai.data.items import SPLITS
from topolora_monai.data.split_record import SPLIT_FILE, SplitRecord, some, split_changes
from topolora_monai.engines.ema import AdapterEMA
from topolora_monai.engines.handlers import DIVERGENCE_HINT
from topolora_monai.engines.output import provenance, say_if_stopped
from topolora_monai.engines.recipe import Change, Recipe
from topolora_monai.errors import ConfigError, DataError, OutputError, TopoLoRAError, first_line
from topolora_monai.io.atomic import atomic_write
from topolora_monai.io.json_files import write_json
from topolora_monai.metrics import BestClDice, PooledDice, apply_temperature
from topolora_monai.parsing import parse_bool

_logger = logging.getLogger(__name__)

LAST_STATE = "last.pt"
"""Name of the last state in a run's folder."""

_STATE = {
    "recipe": dict,
    "split": dict,
    "changes": list,
    "epoch": int,
    "adapter": dict,
    "optimizer": dict,
    "lr_scheduler": dict,
    "scaler": dict,
    "ema": dict,
    "best": dict,
    "seconds": float,
}
"""Entries of ``last.pt`` and their types."""

_START_OVER = "--resume false starts this run over"


class RunCheckpoint:
    """Save ``last.pt`` after every epoch, ``adapter.safetensors`` at every best validation, and resume.

    A run killed at any moment leaves the previous state whole; one with values that are not finite is not written at
    all. Only what training changes is stored. ``split.json`` says from the start which images the run learns from,
    ``training.json`` describes the finished run.

    A run is taken up if its images for training and validation are the same, by name and content, and so is its
    recipe, but for what the recipe lets change: such a change is logged and kept in ``training.json``.

    Args:
        output_dir: folder of the run.
        adaptation: the adapted network, trained by ``optimizer`` with its ``lr_scheduler``.
        optimizer: its state is kept, as is that of ``lr_scheduler``.
        lr_scheduler: stepped each iteration.
        evaluator: the validation engine.
        dice: its metric, which chooses the best state, its threshold and its temperature.
        cldice: a further metric of the evaluator, which chooses the threshold instead.
        calibrate: store the temperature that makes probabilities mean what they say, and the threshold with it.
        settings: what ``training.json`` says about the run beside the properties.
        recipe: what shapes the result; a folder with a run of another recipe is not resumed.
        split: the images, as :func:`~topolora_monai.data.record_split` gives them.
        properties: stored in the adapter file for its users.
        resume: take up the folder's last state; False starts over.
        ema: the average that is validated and saved in an adapter's place; None for none.

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
        recipe: Recipe,
        split: SplitRecord,
        properties: dict[str, Any],
        resume: bool = True,
        cldice: BestClDice | None = None,
        calibrate: bool = True,
        ema: AdapterEMA | None = None,
    ) -> None:
        self.folder = Path(output_dir)
        self.last, self.adapter = self.folder / LAST_STATE, self.folder / "adapter.safetensors"
        self.adaptation = adaptation
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.evaluator = evaluator
        self.dice = dice
        self.cldice = cldice
        self.calibrate = parse_bool(calibrate)
        self.ema = ema or AdapterEMA(adaptation.network, optimizer)
        self.settings = json.loads(json.dumps({**properties, **settings, "base_sha256": adaptation.base_sha256}))
        self.recipe = recipe
        self.split = split
        self.properties = properties | {"recipe": recipe.remembered(idist.get_world_size()).to_dict()}
        describe_model(adaptation, self.adapter, **self.properties)  # or the first validation's work would be lost
        self.resume = parse_bool(resume)
        self.best: dict[str, float] = {}
        self.changes: list[dict[str, Any]] = []
        self._provenance = provenance()  # of the code that trains, whatever is committed meanwhile
        self._begun = False
        self._epochs_before = 0
        self._scaler: dict[str, Any] = {}
        self._started = time.monotonic()  # less what earlier starts took

    def attach(self, engine: Trainer) -> None:
        """Resume, once, so that what a server sends before later starts stays, and save after each epoch.

        Attach after the validation handler.
        """
        self._shaped_by = self.recipe.settings() | {
            "number of processes": {"text": idist.get_world_size()},
            "SHA-256 of the base weights": {"text": self.adaptation.base_sha256},
        }
        if self.resume and self.last.is_file():
            self._take_up(engine, self._read_last())
        engine.add_event_handler(Events.STARTED, self._begin)
        if idist.get_rank() == 0:  # every process resumes, one writes
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._save_last)
            engine.add_event_handler(Events.COMPLETED, self._describe)
            self.evaluator.add_event_handler(Events.COMPLETED, self._save_best)
        self.ema.attach(self.evaluator)  # which leaves it in place until the best adapter has been saved

    def _take_up(self, trainer: Trainer, state: dict[str, Any]) -> None:
        changed = self._check_same(state)
        with self._reading():
            check_fit(
                adapter_state(self.adaptation.network),
                state["adapter"],
                self.last,
                "the run's last state",
                hint=_START_OVER,
            )
            self._load_optimizer(state["optimizer"])
            self.ema.load_state_dict(state["ema"])
            self.lr_scheduler.load_state_dict(self.lr_scheduler.state_dict() | state["lr_scheduler"])
        self.adaptation.network.load_state_dict(state["adapter"], strict=False)
        self.best, self.changes = state["best"], state["changes"]
        self._started -= state["seconds"]
        self._scaler = state["scaler"]
        self._epochs_before = trainer.state.epoch = done = state["epoch"]
        wanted_epochs = trainer.state.max_epochs or 0
        trainer.state.max_epochs = max(done, wanted_epochs)  # or Ignite would refuse to start
        if changed:
            noted = {name: list(change) for name, change in changed.items()}
            self.changes = [*self.changes, {"after_epoch": done} | noted]
            for name, (before, now) in changed.items():
                _logger.warning("%s %s from epoch %d on, %s before", name, now, done + 1, before)
        if done >= wanted_epochs:
            _logger.warning(
                "%s is finished: %d of %d epochs. Raise --epochs, or --resume false.", self.folder, done, wanted_epochs
            )
        else:
            _logger.info("resuming %s after epoch %d of %d", self.folder, done, wanted_epochs)
        say_if_stopped(f"the same command resumes after epoch {done}")

    def _begin(self, trainer: Trainer) -> None:
        """Act at the first start of the trainer, for which Ignite and MONAI make epoch and scaler anew."""
        if self._begun:
            self.ema.restart()  # a server may have sent other weights
            return
        self._begun = True
        trainer.state.epoch = self._epochs_before
        trainer.state.iteration = self._epochs_before * (trainer.state.epoch_length or 0)
        if trainer.scaler is not None and self._scaler:
            with self._reading():
                trainer.scaler.load_state_dict(self._scaler)
        if idist.get_rank() != 0:
            return
        if not self._epochs_before:
            (self.folder / "training.json").unlink(missing_ok=True)  # of the run that is started over
            say_if_stopped("nothing is kept before the first epoch ends; the same command starts over")
        self._write_json(self.split, SPLIT_FILE)

    def _check_same(self, state: Mapping[str, Any]) -> dict[str, Change]:
        """Refuse another run; gives what has changed and may."""
        refused, allowed = self.recipe.compare(state["recipe"], self._shaped_by)
        if refused:
            raise ConfigError(
                "output_dir holds a run with other settings",
                path=self.folder,
                found=some([_said(name, change) for name, change in refused.items()], "; "),
                hint="take these back, choose another --output_dir, or --resume false to overwrite that run; only "
                f"{', '.join(self.recipe.may_change)} may change between starts",
            )
        moved = split_changes(state["split"], self.split, ("training", "validation"))
        if moved:
            raise DataError(
                "the images are others than those that output_dir's run was started with",
                path=self.folder,
                found=some(moved, "; "),
                hint="bring them back, choose another --output_dir, or --resume false to train on today's images",
            )
        return allowed

    def _load_optimizer(self, state: dict[str, Any]) -> None:
        """Load moments and rates; a learning rate that was changed scales the rate where the schedule stands."""
        rates = [group["initial_lr"] for group in self.optimizer.param_groups]
        shapes = [parameter.shape for group in self.optimizer.param_groups for parameter in group["params"]]
        for index, kept in state["state"].items():
            moments = [value for value in kept.values() if isinstance(value, Tensor) and value.dim()]
            if any(moment.shape != shapes[index] for moment in moments):
                raise ValueError(f"the optimiser's state of parameter {index} has another shape")
        self.optimizer.load_state_dict(state)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] *= rate / group["initial_lr"]
            group["initial_lr"] = rate

    def _read_last(self) -> dict[str, Any]:
        with self._reading():
            state: Any = torch.load(self.last, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or any(not isinstance(state.get(key), kind) for key, kind in _STATE.items()):
            raise ConfigError(
                "the run's last state is of another version",
                path=self.last,
                expected=", ".join(_STATE),
                found=", ".join(map(str, state)) if isinstance(state, dict) else type(state).__name__,
                hint=_START_OVER,
            )
        return state

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except TopoLoRAError:
            raise
        except Exception as error:  # torch.load has no error of its own
            raise ConfigError(
                "the run's last state cannot be read", path=self.last, found=first_line(error), hint=_START_OVER
            ) from error

    @contextlib.contextmanager
    def _saving(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:
            if not self.folder.is_dir():
                raise OutputError(
                    "output_dir was removed while the run was writing to it",
                    path=self.folder,
                    hint="start again with the same command; it starts over",
                ) from error
            raise OutputError(
                "cannot save the run's state",
                path=path,
                found=first_line(error),
                hint="free some space and start again with the same command: it resumes from the last epoch saved",
            ) from error

    def _save_last(self, trainer: Trainer) -> None:
        schedule = self.lr_scheduler.state_dict()  # only its position: its length follows --epochs
        state = {
            "recipe": self._shaped_by,
            "split": self.split,
            "changes": self.changes,
            "epoch": trainer.state.epoch,
            "adapter": adapter_state(self.adaptation.network),
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": {key: schedule[key] for key in ("last_epoch", "_last_lr", "_step_count")},
            "scaler": trainer.scaler.state_dict() if trainer.scaler is not None else {},
            "ema": self.ema.state_dict(),
            "best": self.best,
            "seconds": time.monotonic() - self._started,
        }
        self._check_finite(dict(_tensors(state)))
        with self._saving(self.last), atomic_write(self.last) as beside:
            torch.save(state, beside)
        say_if_stopped(f"the same command resumes after epoch {trainer.state.epoch}")

    def _check_finite(self, state: Mapping[str, Tensor]) -> None:
        broken = non_finite(state)
        if broken:
            raise TopoLoRAError(
                "training has diverged: its state holds values that are not finite, and was not saved",
                path=self.folder,
                found=f"{len(broken)} of {len(state)} tensors, {broken[0]} among them",
                hint=DIVERGENCE_HINT,
            )

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
        self._check_finite(adapter_state(self.adaptation.network))
        with self._saving(self.adapter):
            save_adapter(self.adaptation, self.adapter, **self.properties, **scores)

    def _describe(self, trainer: Trainer) -> None:
        if not self.best:  # no epoch was validated
            with self.ema.swapped():
                self._save_adapter(threshold=0.5)
        record = {
            **self.settings,
            "trainable": self.adaptation.trainable_count,
            "published_trainable": self.adaptation.published_trainable_count,
            "epochs": trainer.state.epoch,
            "processes": idist.get_world_size(),
            "seconds": round(time.monotonic() - self._started, 1),
            "validation": self.best,
            "changes": self.changes,
            "images": {split: len(self.split[split]) for split in SPLITS},
            "split": self.split,
            **self._provenance,
            "peak_memory_bytes": provenance()["peak_memory_bytes"],
        }
        self._write_json(record, "training.json")
        say_if_stopped("the run is finished")

    def _write_json(self, content: dict[str, Any], name: str) -> None:
        with self._saving(self.folder / name):
            write_json(content, self.folder / name)


def _tensors(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in mappings within one another, by the keys that lead to it."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, Mapping):
        for key, part in state.items():
            yield from _tensors(part, f"{name}.{key}" if name else str(key))


def _said(name: str, change: Change) -> str:
    before, now = change
    option = f"--{name}" if " " not in name else name
    return f"{option} {now}, was {before}"
