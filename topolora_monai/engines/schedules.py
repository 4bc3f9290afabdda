"""Learning rate schedules by name, stepped with the optimiser."""

from typing import Any, get_args

from ignite.engine import Engine, Events
from monai.optimizers import WarmupCosineSchedule
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from topolora_monai.engines.handlers import Handler
from topolora_monai.errors import unknown_choice
from topolora_monai.spec import Schedule


def lr_schedule(
    optimizer: Optimizer, schedule: Schedule, total_iterations: int, warmup_fraction: float = 0.0, power: float = 0.9
) -> LambdaLR:
    """Linear warm-up from 0, then decay to 0 at the end of training.

    The rate follows from the iteration alone, unlike in torch's ``PolynomialLR``: a run that has ended at 0 can so be
    taken up with more epochs.

    Args:
        optimizer: whose rates are set.
        schedule: ``"cosine"``, MONAI's ``WarmupCosineSchedule``, or ``"polynomial"``, (1 - t) ** power.
        total_iterations: length of training, in steps of the optimiser.
        warmup_fraction: how much of it the warm-up takes, in [0, 1].
        power: of the polynomial.

    Raises:
        ConfigError: for another name.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        >>> schedule = lr_schedule(optimizer, "polynomial", total_iterations=4, power=2.0)
        >>> for _ in range(2):
        ...     optimizer.step()
        ...     schedule.step()
        >>> schedule.get_last_lr()
        [0.25]
    """
    if schedule not in get_args(Schedule):
        raise unknown_choice("schedule", schedule, get_args(Schedule))
    warmup_iterations = int(warmup_fraction * total_iterations)
    if schedule == "cosine":
        cosine: LambdaLR = WarmupCosineSchedule(optimizer, warmup_iterations, total_iterations)
        return cosine
    decay = max(1, total_iterations - warmup_iterations)

    def share(step: int) -> float:
        if step < warmup_iterations:
            return step / warmup_iterations
        return float(max(0.0, 1 - (step - warmup_iterations) / decay) ** power)

    return LambdaLR(optimizer, share)


class ScheduleSteps(Handler):
    """Step a schedule after each step of the optimiser: not while gradients accumulate, nor where a scaler skips it."""

    event = Events.ITERATION_COMPLETED

    def __init__(self, lr_scheduler: LRScheduler, optimizer: Optimizer) -> None:
        self.lr_scheduler = lr_scheduler
        self._stepped = False
        optimizer.register_step_post_hook(self._note)

    def __call__(self, engine: Engine) -> None:
        """Step, if the optimiser has."""
        if self._stepped:
            self._stepped = False
            self.lr_scheduler.step()

    def _note(self, *_: Any) -> None:
        self._stepped = True
