"""The average of what trains: by which steps it moves, who gets it, and that a run takes it up."""

import pytest
import torch
from ignite.engine import Events
from safetensors.torch import load_file

from tests.engines.test_checkpoint import Run, saved
from topolora_monai.engines import AdapterEMA
from topolora_monai.errors import ConfigError


def averaged(folder, decay=0.9, val_interval=1, **settings):
    """A run of four epochs of two batches, validated after each."""
    folder.mkdir(exist_ok=True)
    return Run(folder, epochs=4, val_interval=val_interval, ema_decay=decay, **settings)


def test_it_follows_the_steps_of_the_optimiser(tmp_path):
    run = averaged(tmp_path, accumulation_steps=2)
    expected, seen = {name: tensor.clone() for name, tensor in run.network.state_dict().items()}, []

    def follow(*_):
        seen.append(1)
        decay = min(0.9, (1 + len(seen)) / (10 + len(seen)))
        for name, tensor in run.network.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor

    run.optimizer.register_step_post_hook(follow)
    run()
    state = saved(tmp_path)
    assert len(seen) == state["ema"]["steps"] == 4
    for name, tensor in state["ema"]["average"].items():
        torch.testing.assert_close(tensor, expected[name])
        assert not torch.equal(tensor, state["adapter"][name])


def test_it_is_validated_and_saved_and_does_not_disturb_training(tmp_path):
    run, validated = averaged(tmp_path / "a"), []
    run.checkpoint.evaluator.add_event_handler(
        Events.EPOCH_STARTED, lambda _: validated.append(run.network.weight.detach().clone())
    )
    run()
    averaged(tmp_path / "b", decay=0.0)()
    state, plain = saved(tmp_path / "a"), saved(tmp_path / "b")
    assert plain["ema"] == {}
    assert torch.equal(state["adapter"]["weight"], plain["adapter"]["weight"])
    assert torch.equal(validated[-1], state["ema"]["average"]["weight"])
    best = int(run.checkpoint.best["epoch"])
    file = load_file(tmp_path / "a" / "adapter.safetensors")
    assert torch.equal(file["weight"], validated[best - 1])


def test_a_run_without_validation_saves_it_too(tmp_path):
    averaged(tmp_path, val_interval=10**6)()
    average = saved(tmp_path)["ema"]["average"]
    assert torch.equal(load_file(tmp_path / "adapter.safetensors")["weight"], average["weight"])


def test_a_run_that_was_stopped_takes_it_up_in_every_bit(tmp_path):
    averaged(tmp_path / "whole")()
    stopped = averaged(tmp_path / "parts")

    @stopped.trainer.on(Events.ITERATION_STARTED(once=4))
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert saved(tmp_path / "parts")["epoch"] == 1
    averaged(tmp_path / "parts")()
    whole, parts = saved(tmp_path / "whole"), saved(tmp_path / "parts")
    assert whole["ema"]["steps"] == parts["ema"]["steps"] == 8
    for part in ("weight", "bias"):
        assert torch.equal(whole["ema"]["average"][part], parts["ema"]["average"][part])
    adapters = [load_file(tmp_path / name / "adapter.safetensors") for name in ("whole", "parts")]
    assert torch.equal(adapters[0]["weight"], adapters[1]["weight"])


def test_a_later_start_forgets_it_since_a_server_may_have_sent_other_weights(tmp_path):
    run = averaged(tmp_path)()
    run.network.weight.data.fill_(3.0)
    run.trainer.state.max_epochs = 5
    run.trainer.fire_event(Events.STARTED)
    assert run.checkpoint.ema.state_dict()["steps"] == 0
    assert torch.equal(run.checkpoint.ema.state_dict()["average"]["weight"], run.network.weight)


def test_what_is_counted_is_not_averaged():
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(1))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    ema = AdapterEMA(network, optimizer, 0.9)
    for _ in range(3):
        network(torch.randn(4, 1, 2, 2)).square().sum().backward()
        optimizer.step()
    with ema.swapped():
        assert network[0].num_batches_tracked == 3
        mean = network[0].running_mean.clone()
    assert mean != network[0].running_mean


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_another_decay_is_refused(decay):
    with pytest.raises(ConfigError, match="0 to below 1"):
        AdapterEMA(torch.nn.Linear(1, 1), torch.optim.SGD([torch.zeros(1)], lr=1.0), decay)
