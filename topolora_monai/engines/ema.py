"""The moving average of what trains, which validation and the adapter file get in its place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from topolora_monai.adapters import adapter_state
from topolora_monai.errors import ConfigError


class AdapterEMA:
    """Exponential moving average of what trains.

    As Ignite's ``EMAHandler`` and torch's ``AveragedModel``, which copy and average a whole network: here what is
    frozen is left alone, in every bit. The average follows the steps of the optimiser, so that it does not move while
    gradients accumulate. The decay grows into its value, ``min(decay, (1 + n) / (10 + n))`` after ``n`` steps, so that
    a short training does not keep its start.

    Args:
        network: adapted, on the device where it is trained.
        optimizer: of its training.
        decay: share of the average that a step keeps, from 0, below 1; 0 averages nothing.

    Raises:
        ConfigError: for another decay.

    Example:
        >>> network = nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
        >>> ema = AdapterEMA(network, optimizer, decay=0.9)
        >>> before, network.weight.grad = network.weight.item(), torch.ones(1, 1)
        >>> optimizer.step()
        >>> with ema.swapped():
        ...     print(round(before - network.weight.item(), 3))
        0.818
    """

    def __init__(self, network: nn.Module, optimizer: Optimizer, decay: float = 0.0) -> None:
        if not 0 <= decay < 1:
            raise ConfigError("decay of the average of weights", expected="0 to below 1", found=decay)
        self.decay = decay
        self._steps = 0
        self._live = adapter_state(network) if decay else {}  # not copies: they change as the network does
        self._average = {name: tensor.clone() for name, tensor in self._live.items()}
        if decay:
            optimizer.register_step_post_hook(self._update)

    def attach(self, evaluator: Engine) -> None:
        """Let an engine run with the average. What it has to see there, too, is to be attached before."""
        evaluator.add_event_handler(Events.STARTED, self._swap)
        evaluator.add_event_handler(Events.COMPLETED, self._swap)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Give the network the average for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def restart(self) -> None:
        """Forget the average, after the network was given other weights."""
        self._steps = 0
        for name, tensor in self._live.items():
            self._average[name].copy_(tensor)

    def state_dict(self) -> dict[str, Any]:
        """Steps so far, and the average by name; empty without one."""
        return {"steps": self._steps, "average": dict(self._average)} if self.decay else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` gave; a ``KeyError`` or ``RuntimeError`` if it is of another network."""
        if self.decay:
            self._steps = state["steps"]
            for name, tensor in self._average.items():
                tensor.copy_(state["average"][name])

    def _update(self, *_: Any) -> None:
        self._steps += 1
        decay = min(self.decay, (1 + self._steps) / (10 + self._steps))
        floating = [name for name, tensor in self._average.items() if tensor.is_floating_point()]
        average, live = ([of[name] for name in floating] for of in (self._average, self._live))
        get_ema_multi_avg_fn(decay)(average, live, None)
        for name in self._average.keys() - set(floating):  # what is counted is not averaged
            self._average[name].copy_(self._live[name])

    @torch.no_grad()
    def _swap(self, *_: Any) -> None:
        for name, tensor in self._live.items():
            kept = tensor.clone()
            tensor.copy_(self._average[name])
            self._average[name].copy_(kept)
