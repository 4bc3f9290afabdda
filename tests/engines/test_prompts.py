"""Training with prompts: where clicks fall, what the network learns of them, and that it is left alone without."""

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch.utils.data import DataLoader

from topolora_monai.adapters import adapt, preset_config
from topolora_monai.data.synthetic_vessels import draw_sample
from topolora_monai.engines import PromptRounds, TargetLoss, prepare_batch, sample_clicks
from topolora_monai.errors import ConfigError
from topolora_monai.losses import TopologyLoss
from topolora_monai.networks import build_network
from topolora_monai.transforms import ExactSkeletond

SIDE = 64


@pytest.fixture(scope="module")
def vessels():
    samples = []
    for number in range(6):
        image, mask, _ = draw_sample(np.random.default_rng([3, number]), SIDE)
        label = torch.from_numpy(mask > 0)[None].float()
        item = {"image": torch.from_numpy(image).permute(2, 0, 1) / 255, "label": label, "fov": torch.ones_like(label)}
        samples.append({**ExactSkeletond(keys="label")(item), "name": str(number)})
    return samples


def masks(*rectangles, side=40):
    """One mask an image, of one rectangle (top, bottom, left, right) or several."""
    found = torch.zeros(len(rectangles), 1, side, side, dtype=torch.bool)
    for mask, parts in zip(found, rectangles, strict=True):
        for top, bottom, left, right in parts:
            mask[0, top:bottom, left:right] = True
    return found


class TestClicks:
    DRAWS = torch.linspace(0, 0.999, 50)[None]

    def test_are_on_the_middle_line_of_what_was_missed(self):
        label = masks([(10, 15, 0, 40), (25, 28, 0, 40)])
        answer = masks([(11, 15, 0, 40)])  # lacks the edge of one line and all of the other
        points, labels = sample_clicks(answer, label, self.DRAWS)
        assert labels.unique().tolist() == [1]
        assert points[0, :, 1].unique().tolist() == [26]
        assert len(points[0, :, 0].unique()) > 30

    def test_are_on_the_given_skeleton(self):
        label = masks([(10, 15, 5, 35)])
        skeleton = masks([(12, 13, 8, 32)])
        answer = masks([(10, 15, 5, 20)])
        points, labels = sample_clicks(answer, label, self.DRAWS, skeleton=skeleton)
        assert labels.unique().tolist() == [1]
        on = points[0, :, 1] == 12
        assert on.float().mean() > 0.6
        assert points[0, :, 0].min() >= 20

    def test_are_negative_in_the_middle_of_what_is_wrong(self):
        points, labels = sample_clicks(masks([(10, 19, 10, 19)]), masks([]), self.DRAWS)
        assert labels.unique().tolist() == [0]
        assert ((points - 14).abs().amax(dim=-1)[0] <= 1).float().mean() > 0.7

    def test_prefer_large_errors(self):
        label = masks([(4, 7, 2, 38), (30, 33, 10, 13)])
        points, _ = sample_clicks(torch.zeros_like(label), label, self.DRAWS)
        assert (points[0, :, 1] == 5).float().mean() > 0.9

    def test_of_an_image_depend_on_it_and_its_draws_alone(self):
        label = masks([(4, 7, 2, 38)], [(20, 30, 5, 30)], [])
        draws = torch.tensor([[0.3, 0.6], [0.1, 0.9], [0.5, 0.5]])
        points, labels = sample_clicks(torch.zeros_like(label), label, draws)
        alone = sample_clicks(torch.zeros_like(label[1:2]), label[1:2], draws[1:2])
        assert torch.equal(points[1:2], alone[0])
        assert labels.tolist() == [[1, 1], [1, 1], [-1, -1]]

    def test_leave_what_does_not_count(self):
        label = masks([(4, 7, 2, 38), (30, 33, 10, 13)])
        points, _ = sample_clicks(torch.zeros_like(label), label, self.DRAWS, valid=masks([(20, 40, 0, 40)]))
        assert points[0, :, 1].unique().tolist() == [31]


def trained(vessels, epochs=2, plain=False, side=SIDE, **settings):
    """Losses, and what was trained."""
    torch.manual_seed(0)
    network = build_network("vit_tiny_test", image_size=side)
    adaptation = adapt(network, preset_config("topolora"))
    prompts = PromptRounds(network, **settings)
    losses = []
    trainer = SupervisedTrainer(
        "cpu", epochs, DataLoader(vessels[:4], batch_size=2), network,
        torch.optim.AdamW(adaptation.trainable().values(), lr=2e-3),
        TargetLoss(TopologyLoss({"bce": 1.0, "dice": 1.0})),
        prepare_batch=prepare_batch if plain else prompts.prepare_batch, train_handlers=[prompts],
    )  # fmt: skip
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output[0]["loss"]))
    trainer.run()
    return losses, network.eval()


def test_without_a_share_training_is_as_before_in_every_bit(vessels):
    (losses, network), (plain_losses, plain) = trained(vessels), trained(vessels, plain=True)
    assert losses == plain_losses
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in network.state_dict().items())


def test_one_seed_is_one_training(vessels):
    settings = {"share": 0.5, "rounds": 2, "seed": 1}
    (losses, _), (again, _), (other, _) = (trained(vessels, **settings | {"seed": seed}) for seed in (1, 1, 2))
    assert losses == again
    assert losses != other


def test_network_learns_to_hear_clicks():
    """Of two equal images one is all foreground, the other holds nothing: only clicks tell them apart."""
    image, everywhere = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.ones(1, 32, 32)
    items = [{"image": image, "label": label * everywhere, "fov": everywhere, "name": "same"} for label in (1, 0)]
    _, network = trained(items, epochs=15, share=1.0, rounds=2, side=32)
    point = torch.tensor([[[12.0, 20.0]]])
    with torch.inference_mode():
        answers = [network(image[None], points=point, point_labels=torch.tensor([[told]])) for told in (1.0, 0.0)]
        raised = (answers[0] - answers[1])[0, 0, 17:24, 9:16]
    assert raised.min() > 0.5


def test_prompts_belong_to_seed_step_and_place(vessels):
    network = build_network("vit_tiny_test", image_size=SIDE)
    batch = next(iter(DataLoader(vessels, batch_size=4)))

    def asked(step, seed=0, share=1.0):
        prompts, engine = PromptRounds(network, share=share, seed=seed), Engine(lambda *_: None)
        engine.state.iteration = step
        prompts(engine)
        _, _, *more = prompts.prepare_batch(batch)
        if not more:
            return None
        ask, rounds = more[1]["next_prompts"], []
        while (told := ask(torch.full((4, 1, SIDE, SIDE), -1.0))) is not None:
            rounds.append(sorted((name, value.tolist()) for name, value in told.items() if name != "mask_prompt"))
        return rounds

    assert asked(7) == asked(7)
    assert asked(7) != asked(8)
    assert asked(7) != asked(7, seed=1)
    kinds = [asked(step) for step in range(20)]
    assert all(len(rounds) == 3 for rounds in kinds)
    assert {len(rounds[-1]) for rounds in kinds} == {2, 3}  # points and labels; in some steps a box, too
    assert 2 <= sum(asked(step, share=0.5) is None for step in range(20)) <= 18


@pytest.mark.parametrize(
    ("settings", "network", "message"),
    [
        ({"share": 2}, {}, "share of steps"),
        ({"rounds": 0}, {}, "rounds of prompts"),
        ({"clicks": 0}, {}, "clicks of prompts"),
        ({"share": 0.5}, {"out_channels": 2}, "one class"),
        ({"share": 0.5}, {"network_name": "little_wnet"}, "takes no prompts"),
    ],
)
def test_settings_that_cannot_be(settings, network, message):
    built = build_network(**{"network_name": "vit_tiny_test", "image_size": 64} | network)
    with pytest.raises(ConfigError, match=message):
        PromptRounds(built, **settings)
    PromptRounds(built, share=0)
