"""What AdaLoRA does while training: sharing out ranks, and keeping directions orthogonal."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from peft import AdaLoraConfig
from peft.tuners.adalora import AdaLoraLayer, RankAllocator
from torch import Tensor, nn

from topolora_monai.adapters import AdaLoraSettings, Adaptation

__all__ = ["RankAllocation", "orthogonality_loss"]

_MOMENTS = {"exp_avg_ipt": "importance", "exp_avg_unc": "importance_spread"}
"""PEFT's running means to their names in the optimiser's state, with which they are saved and resumed."""


class RankAllocation:
    """Take ranks from AdaLoRA's updates after each optimiser step (arXiv 2303.10512), by PEFT's allocator.

    Also adds the loss that keeps the directions of an update orthogonal, so attach it before what checks the
    loss. Does nothing for a network without AdaLoRA. The schedule spans the whole run, counted in optimiser
    steps; a step whose gradient is not finite, which mixed precision leaves out, is not counted in the scores.

    Args:
        adaptation: the adapted network.
    """

    def __init__(self, adaptation: Adaptation) -> None:
        self.settings: AdaLoraSettings | None = adaptation.config.adalora
        layers = (module for module in adaptation.network.modules() if isinstance(module, AdaLoraLayer))
        self.layers = nn.ModuleList(layers)
        self.allocator: RankAllocator | None = None
        self.kept: dict[str, list[bool]] = {}

    def attach(self, engine: Engine) -> None:
        """Act on the loss, and once the optimiser has stepped."""
        if self.settings is not None:
            engine.add_event_handler(Events.EPOCH_STARTED, self._prepare)
            engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._add_loss)
            engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Share out ranks, if this iteration ended with an optimiser step."""
        within_epoch = (engine.state.iteration - 1) % engine.state.epoch_length + 1
        if within_epoch % engine.accumulation_steps and within_epoch != engine.state.epoch_length:
            return
        steps_per_epoch = -(-engine.state.epoch_length // engine.accumulation_steps)
        self._share_out(
            (engine.state.epoch - 1) * steps_per_epoch + -(-within_epoch // engine.accumulation_steps), engine.optimizer
        )

    def _prepare(self, engine: Any) -> None:
        """Plan the run, and take up the scores of a resumed one."""
        if self.allocator is not None or self.settings is None:
            return
        total = (engine.state.max_epochs or 1) * -(-engine.state.epoch_length // engine.accumulation_steps)
        self.allocator = RankAllocator(self.layers, _peft_config(self.settings, total), "default")
        for name, parameter in self._updates():
            state = engine.optimizer.state.get(parameter, {})
            for moment, key in _MOMENTS.items():
                if key in state:
                    getattr(self.allocator, moment)[name] = state[key].to(parameter)
                    self.allocator.ipt[name] = torch.zeros_like(parameter)
        values = {name: parameter for name, parameter in self._updates() if ".lora_E." in name}
        if any(parameter.any() for parameter in values.values()):  # all are zero before the first step
            self.kept = {name: (parameter != 0).flatten().tolist() for name, parameter in values.items()}

    def _add_loss(self, engine: Any) -> None:
        if self.settings is not None:
            loss = engine.state.output[Keys.LOSS]
            regularisation = self.settings.orthogonality_weight * orthogonality_loss(self.layers)
            engine.state.output[Keys.LOSS] = loss + regularisation.to(loss)

    def _share_out(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        allocator = self.allocator
        if allocator is None:
            return
        last = allocator.peft_config.total_step - allocator.peft_config.tfinal
        if step > last:
            self._mask()
            return
        updates = self._updates()
        if all(parameter.grad is not None and parameter.grad.isfinite().all() for _, parameter in updates):
            allocator.update_ipt(self.layers)
        budget, due = allocator.budget_schedule(step)
        if (due or step == last) and allocator.exp_avg_ipt:
            self.kept = allocator.mask_to_budget(self.layers, budget)
        for name, parameter in updates:
            state = optimizer.state.get(parameter)
            if state and name in allocator.exp_avg_ipt:  # an optimiser that has not stepped must find no state
                state.update({key: getattr(allocator, moment)[name] for moment, key in _MOMENTS.items()})

    @torch.no_grad()
    def _mask(self) -> None:
        """Set again to zero what the optimiser has moved of the ranks that were taken away."""
        for name, parameter in self._updates():
            if name in self.kept:
                parameter.mul_(parameter.new_tensor(self.kept[name])[:, None])

    def _updates(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, parameter) for name, parameter in self.layers.named_parameters() if ".lora_" in name]


def orthogonality_loss(network: nn.Module) -> Tensor:
    """How far the directions of AdaLoRA's updates are from orthonormal.

    Args:
        network: any module.

    Returns:
        A scalar: the mean over all factors P of the Frobenius norm of ``P P^T - I``; zero for a network
        without AdaLoRA.

    Example:
        >>> orthogonality_loss(nn.Linear(2, 2))
        tensor(0.)
    """
    layers = [module for module in network.modules() if isinstance(module, AdaLoraLayer)]
    factors = [factor for layer in layers for factor in layer.lora_A.values()]
    factors += [factor.T for layer in layers for factor in layer.lora_B.values()]
    if not factors:
        return torch.zeros(())
    return torch.stack([_from_orthonormal(factor.float()) for factor in factors]).mean()


def _from_orthonormal(factor: Tensor) -> Tensor:
    distance: Tensor = torch.linalg.matrix_norm(factor @ factor.T - torch.eye(len(factor), device=factor.device))
    return distance


def _peft_config(settings: AdaLoraSettings, total_step: int) -> AdaLoraConfig:
    return AdaLoraConfig(
        init_r=settings.rank,
        target_r=settings.target_rank,
        tinit=int(settings.initial_fraction * total_step),
        tfinal=int(settings.final_fraction * total_step),
        deltaT=settings.interval,
        total_step=total_step,
    )
