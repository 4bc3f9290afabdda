"""Ignite handlers that MONAI's trainer lacks."""

import contextlib
import logging
import sys
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, EventEnum, Events
from ignite.handlers import EarlyStopping as IgniteEarlyStopping
from monai.engines import Evaluator
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from tqdm import tqdm

from topolora_monai.adapters.conv_lora import balance_loss
from topolora_monai.data.sample_seeds import SampleSeeds
from topolora_monai.errors import ConfigError, TopoLoRAError

_logger = logging.getLogger(__name__)

DIVERGENCE_HINT = (
    "lower --learning_rate or --max_grad_norm, or use --precision fp32, and start again: the run goes on after its "
    "last good epoch; --resume false starts over"
)
"""What to do about a training that has diverged."""


class Handler:
    """What acts at one event of an engine."""

    event: EventEnum

    def attach(self, engine: Engine) -> None:
        """Act at ``event`` from now on."""
        engine.add_event_handler(self.event, self)

    def __call__(self, engine: Any) -> None:
        """Act."""
        raise NotImplementedError


class EpochSeed(Handler):
    """Seed the order of a training set, and each of its items, by (seed, epoch): a resumed run repeats the other."""

    event = Events.EPOCH_STARTED  # before the loader draws its order

    def __init__(self, seed: int, dataset: SampleSeeds) -> None:
        self.seed = seed
        self.dataset = dataset

    def __call__(self, engine: Engine) -> None:
        """Reseed."""
        torch.manual_seed((self.seed * 1_000_003 + engine.state.epoch) % 2**32)
        self.dataset.set_epoch(engine.state.epoch)


class BatchMixing(Handler):
    """Mix the crops of a batch with one another, such as by MONAI's ``CutMixd``, seeded by the step.

    In whatever process and run, a step mixes alike; but several processes mix their own crops alone.

    Args:
        transform: of a batch of ``batch_size`` crops as the loader gives it.
        prob: share of batches that are mixed, in [0, 1].
        batch_size: crops in a batch.
        seed: of the run.

    Raises:
        ConfigError: for another share, or if one crop alone is to be mixed.
    """

    event = Events.ITERATION_STARTED

    def __init__(self, transform: Any, prob: float, batch_size: int, seed: int = 0) -> None:
        if not 0 <= prob <= 1:
            raise ConfigError("share of batches that are mixed", expected="0 to 1", found=prob)
        if prob and batch_size < 2:
            raise ConfigError(
                "one crop alone is not mixed", expected="batch_size from 2", found=batch_size, hint="raise --batch_size"
            )
        self.transform = transform
        self.prob = prob
        self.seed = seed

    def __call__(self, engine: Engine) -> None:
        """Mix the batch that the engine is about to learn from, or leave it."""
        drawn = np.random.default_rng([self.seed, engine.state.iteration, idist.get_rank()])
        if drawn.random() < self.prob:
            self.transform.set_random_state(seed=int(drawn.integers(2**32)))
            engine.state.batch = self.transform(engine.state.batch)


class LossRamp(Handler):
    """Tell the loss how much of training is done.

    Args:
        loss: has ``set_progress``, as :class:`~topolora_monai.losses.TopologyLoss`.
        epochs: of the whole training, over all starts of the trainer.
    """

    event = Events.ITERATION_STARTED

    def __init__(self, loss: Any, epochs: int) -> None:
        self.loss = loss
        self.epochs = epochs

    def __call__(self, engine: Engine) -> None:
        """Set the progress, from 0 at the first iteration to just under 1 at the last."""
        total = self.epochs * (engine.state.epoch_length or 1)
        self.loss.set_progress((engine.state.iteration - 1) / total)


class BalanceLoss(Handler):
    """Add the balance loss that Conv-LoRA layers left in the forward pass; attach it before what checks the loss."""

    event = IterationEvents.LOSS_COMPLETED

    def __call__(self, engine: Any) -> None:
        """Add it; zero for a network without such layers."""
        loss = engine.state.output[Keys.LOSS]
        engine.state.output[Keys.LOSS] = loss + balance_loss(engine.network).to(loss)


class GradientClipping(Handler):
    """Clip the norm of the gradient just before the optimiser steps, after accumulation and unscaling.

    Args:
        max_norm: upper bound of the 2-norm over all trainable parameters.
    """

    event = IterationEvents.BACKWARD_COMPLETED

    def __init__(self, max_norm: float) -> None:
        self.max_norm = max_norm

    def __call__(self, engine: Any) -> None:
        """Clip, if this iteration ends an accumulation."""
        within_epoch = (engine.state.iteration - 1) % engine.state.epoch_length + 1
        if within_epoch % engine.accumulation_steps and within_epoch != engine.state.epoch_length:
            return
        if engine.amp and engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)
        parameters = [p for group in engine.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, self.max_norm)


class NonFiniteGuard:
    """Stop a trainer before a loss that is no number reaches the weights, an evaluator before it scores such logits."""

    def attach(self, engine: Engine) -> None:
        """Act once a trainer's loss, or an evaluator's logits, are known."""
        if isinstance(engine, Evaluator):
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self, Keys.PRED, "the network's answer")
        else:
            engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine: Any, key: str = Keys.LOSS, what: str = "the loss") -> None:
        """Check an entry of the engine's output.

        Raises:
            TopoLoRAError: if it is not finite; names the images of the batch.
        """
        values = engine.state.output[key].detach()
        if not values.isfinite().all():
            batch = engine.state.batch if isinstance(engine.state.batch, dict) else {}
            became = f"became {float(values)}" if values.numel() == 1 else "is no longer finite"
            raise TopoLoRAError(
                f"{what} {became} in epoch {engine.state.epoch}, iteration {engine.state.iteration}",
                found=f"images {batch.get('name', 'unknown')}",
                hint=f"look at these images, or {DIVERGENCE_HINT}",
            )


class EarlyStopping:
    """Stop a trainer when ``patience`` validations have not raised a metric, by Ignite's handler; 0 never stops."""

    def __init__(self, patience: int, evaluator: Engine, metric: str) -> None:
        self.patience = patience
        self.evaluator = evaluator
        self.metric = metric

    def attach(self, engine: Engine) -> None:
        """Judge after each validation."""
        if self.patience > 0:
            judge = IgniteEarlyStopping(
                patience=self.patience,
                score_function=lambda evaluator: evaluator.state.metrics[self.metric],
                trainer=engine,
            )
            self.evaluator.add_event_handler(Events.COMPLETED, judge)


class _Bar(tqdm):  # type: ignore[type-arg]  # tqdm[Any] is for type checkers alone
    """One that disables itself where what it writes cannot be read any more; tqdm's own would keep the lock of all."""

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        try:
            return super().display(msg, pos)
        except OSError:  # the process that started this one, and read this, is gone
            self.disable = True
            return False


class TimeLeft:
    """One progress bar over a whole run, with the loss and the time left; it ends where nobody reads it any more.

    Args:
        description: what is being done.
        keep: whether the bar stays where it is when that has ended.
    """

    def __init__(self, description: str, keep: bool = True) -> None:
        self.description = description
        self.keep = keep
        self.bar: tqdm[Any] | None = None

    def attach(self, engine: Engine) -> None:
        """Advance with each iteration; in a log file, twice a minute."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
        engine.add_event_handler(Events.COMPLETED | Events.EXCEPTION_RAISED, self._close)

    def _open(self, engine: Engine) -> None:
        self.bar = _Bar(
            desc=self.description,
            total=(engine.state.max_epochs or 1) * (engine.state.epoch_length or 1),
            initial=engine.state.iteration,
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
            dynamic_ncols=True,
            leave=self.keep,
            disable=idist.get_rank() != 0,
        )

    def _advance(self, engine: Engine) -> None:
        if self.bar is not None:
            output: Any = engine.state.output
            if isinstance(output, list) and output and Keys.LOSS in output[0]:
                self.bar.set_postfix(epoch=engine.state.epoch, loss=f"{float(output[0][Keys.LOSS]):.3f}", refresh=False)
            self.bar.update()

    def _close(self, engine: Engine, *error: BaseException) -> None:
        if self.bar is not None:
            with contextlib.suppress(OSError):
                self.bar.close()
            self.bar = None
        if error:
            raise error[0]


def say_validation(engine: Any) -> None:
    """Log what a validation gave in one line; for ``epoch_print_logger`` of MONAI's ``StatsHandler``.

    Args:
        engine: an evaluator with a key metric, after its run.
    """
    state = engine.state
    scores = ", ".join(f"{name.removeprefix('val_')} {value:.3f}" for name, value in state.metrics.items())
    best = (
        "the best so far" if state.best_metric_epoch == state.epoch else f"best after epoch {state.best_metric_epoch}"
    )
    _logger.info("epoch %d: %s on validation, %s", state.epoch, scores, best)
