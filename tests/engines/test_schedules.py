"""Learning rates of the schedules, iteration by iteration."""

import math

import pytest
import torch

from topolora_monai.engines.schedules import lr_schedule
from topolora_monai.errors import ConfigError


def rates(name, steps, **options):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.2)
    schedule = lr_schedule(optimizer, name, **options)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_cosine_by_hand():
    expected = [0.0, 0.1] + [0.1 * (1 + math.cos(math.pi * i / 8)) for i in range(8)]
    assert rates("cosine", 10, total_iterations=10, warmup_fraction=0.2) == pytest.approx(expected)


def test_polynomial_is_torch_s():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.2)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=10, power=0.9)
    expected = []
    for _ in range(12):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates("polynomial", 12, total_iterations=10) == pytest.approx(expected)


def test_polynomial_after_a_warm_up():
    expected = [0.0, 0.05, 0.1, 0.15] + [0.2 * (1 - i / 6) ** 2 for i in range(6)] + [0.0]
    assert rates("polynomial", 11, total_iterations=10, warmup_fraction=0.4, power=2) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["cosine", "polynomial"])
def test_a_run_that_ended_goes_on_with_more_iterations(name):
    """By the position that RunCheckpoint keeps: not by the rate, which has reached 0."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.2)
    first = lr_schedule(optimizer, name, total_iterations=4)
    for _ in range(4):
        optimizer.step()
        first.step()
    state = {key: first.state_dict()[key] for key in ("last_epoch", "_last_lr", "_step_count")}
    kept = optimizer.state_dict()
    other = torch.optim.SGD([torch.zeros(1)], lr=0.2)
    second = lr_schedule(other, name, total_iterations=8)
    other.load_state_dict(kept)
    second.load_state_dict(second.state_dict() | state)
    other.step()
    second.step()
    assert second.get_last_lr() == pytest.approx([rates(name, 6, total_iterations=8)[5]])


def test_unknown_name():
    with pytest.raises(ConfigError, match="did you mean polynomial"):
        lr_schedule(torch.optim.SGD([torch.zeros(1)], lr=0.2), "polynomal", 10)
