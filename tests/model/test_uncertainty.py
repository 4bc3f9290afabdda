"""Uncertainty by hand, of adapters with dropout, and the risk of what is left when the unsure is left out."""

import math

import numpy as np
import pytest
import torch
from monai.inferers import SimpleInferer
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from topolora_monai.errors import ConfigError
from topolora_monai.model.uncertainty import RiskCoverage, UncertaintyInferer
from topolora_monai.networks import probabilities


class Pixels(nn.Module):
    """A linear over channels with normalisation and dropout of its own."""

    def __init__(self, classes=1):
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.9)
        self.last = nn.Linear(8, classes)

    def forward(self, x):
        b, c, h, w = x.shape
        rows = self.drop(self.norm(self.first(x.permute(0, 2, 3, 1).reshape(-1, c))))
        return self.last(rows).view(b, h, w, -1).permute(0, 3, 1, 2)


def adapted(dropout=0.5, classes=1, **options):
    torch.manual_seed(0)
    network = Pixels(classes)
    config = LoraConfig(r=2, lora_alpha=8, lora_dropout=dropout, target_modules=["first"], **options)
    inject_adapter_in_model(config, network)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    return network.eval()


IMAGE = torch.rand(1, 6, 5, 7, generator=torch.Generator().manual_seed(1))


def entropy(*shares):
    return -sum(p * math.log(p) for p in shares if p) / math.log(len(shares))


class TestFlips:
    def test_by_hand(self):
        """Of two pixels the network finds the left one, whichever it is: each is found in half of the answers."""

        def left(x):
            return torch.tensor([30.0, -30.0]).expand_as(x)

        found = UncertaintyInferer(SimpleInferer(), passes=0, axes=1).estimate(torch.rand(1, 1, 1, 2), left)
        torch.testing.assert_close(found.probability, torch.full((1, 1, 1, 2), 0.5))
        torch.testing.assert_close(found.entropy, torch.ones(1, 1, 1, 2))
        torch.testing.assert_close(found.mutual_information, torch.ones(1, 1, 1, 2))

    def test_answers_that_agree_have_entropy_only(self):
        logit = math.log(0.9 / 0.1)
        found = UncertaintyInferer(SimpleInferer(), passes=0).estimate(
            torch.rand(1, 1, 3, 4), lambda x: torch.full_like(x, logit)
        )
        assert found.entropy.flatten().tolist() == pytest.approx([entropy(0.9, 0.1)] * 12, abs=1e-5)
        assert found.mutual_information.max() < 1e-5

    @pytest.mark.parametrize("axes", [1, 2])
    def test_maps_lie_on_the_image(self, axes):
        image = torch.rand(1, 1, 6, 5) * 4
        found = UncertaintyInferer(SimpleInferer(), passes=0, axes=axes).estimate(image, lambda x: x)
        torch.testing.assert_close(found.probability, image.sigmoid())

    def test_classes_that_exclude_one_another(self):
        logits = torch.tensor([2.0, 2.0]).log().view(1, 2, 1, 1)
        inferer = UncertaintyInferer(SimpleInferer(), passes=0, activation="softmax")
        found = inferer.estimate(torch.rand(1, 1, 1, 1), lambda x: logits)
        assert found.entropy.shape == (1, 1, 1, 1)
        assert found.entropy.item() == pytest.approx(entropy(0.4, 0.4, 0.2), abs=1e-5)

    @pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
    def test_call_gives_logits_of_the_mean(self, activation):
        inferer = UncertaintyInferer(SimpleInferer(), passes=0, axes=1, activation=activation)
        logits = inferer(torch.randn(1, 3, 4, 5), lambda x: x + torch.arange(5.0))
        torch.testing.assert_close(probabilities(logits, activation), inferer.latest.probability)


class TestDropout:
    def test_only_adapters_drop(self):
        """Without the update, the answer is the network's for inference: nothing else was switched."""
        network = adapted()
        inferer = UncertaintyInferer(SimpleInferer(), passes=6, axes=0)
        assert inferer.estimate(IMAGE, network).mutual_information.max() > 1e-3
        mean = network.norm.running_mean.clone()
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                nn.init.zeros_(parameter)
        found = inferer.estimate(IMAGE, network)
        torch.testing.assert_close(found.probability, network(IMAGE).sigmoid())
        assert found.mutual_information.max() < 1e-5
        assert torch.equal(network.norm.running_mean, mean)

    def test_weights_and_modes_stay(self):
        network = adapted()
        modes = {name: module.training for name, module in network.named_modules()}
        network.drop.train()
        modes["drop"] = True
        UncertaintyInferer(SimpleInferer(), passes=2).estimate(IMAGE, network)
        assert {name: module.training for name, module in network.named_modules()} == modes

        def fails(*_):
            raise RuntimeError("no memory")

        with pytest.raises(RuntimeError, match="no memory"):
            UncertaintyInferer(fails, passes=2).estimate(IMAGE, network)
        assert {name: module.training for name, module in network.named_modules()} == modes

    def test_seed_decides_and_leaves_the_outer_stream(self):
        network = adapted()
        state = torch.get_rng_state()
        first, again, other = (
            UncertaintyInferer(SimpleInferer(), passes=3, seed=seed).estimate(IMAGE, network) for seed in (1, 1, 2)
        )
        assert torch.equal(first.probability, again.probability)
        assert not torch.equal(first.probability, other.probability)
        assert torch.equal(torch.get_rng_state(), state)

    def test_mean_and_information_of_the_answers(self):
        network = adapted(classes=2)
        inferer = UncertaintyInferer(SimpleInferer(), passes=5, axes=0, seed=9)
        answers = []

        def watched(x, net):
            answers.append(net(x).sigmoid())
            return torch.logit(answers[-1])

        inferer.inferer = watched
        found = inferer.estimate(IMAGE, network)
        stacked = torch.stack(answers).double().detach().numpy()
        assert len(stacked) == 5
        binary = lambda p: -(p * np.log2(p) + (1 - p) * np.log2(1 - p))  # noqa: E731
        mean = stacked.mean(axis=0)
        np.testing.assert_allclose(found.probability.detach(), mean, atol=1e-5)
        np.testing.assert_allclose(found.entropy.detach(), binary(mean), atol=1e-5)
        expected = binary(mean) - binary(stacked).mean(axis=0)
        np.testing.assert_allclose(found.mutual_information.detach(), expected, atol=1e-5)

    def test_dora_drops_too(self):
        found = UncertaintyInferer(SimpleInferer(), passes=6, axes=0).estimate(IMAGE, adapted(use_dora=True))
        assert found.mutual_information.max() > 1e-3

    @pytest.mark.parametrize("network", [adapted(dropout=0.0), Pixels().eval(), lambda x: x])
    def test_without_dropout(self, network):
        with pytest.raises(ConfigError, match="lora_dropout above 0"):
            UncertaintyInferer(SimpleInferer(), passes=2).estimate(IMAGE, network)

    @pytest.mark.parametrize("options", [{"passes": 1, "axes": 0}, {"passes": -1}, {"axes": 3}, {"activation": "relu"}])
    def test_bad_settings(self, options):
        with pytest.raises(ConfigError):
            UncertaintyInferer(SimpleInferer(), **options)


def area_over_pixels(uncertainty, error):
    ordered = error[np.argsort(uncertainty, kind="stable")]
    return (ordered.cumsum() / np.arange(1, len(ordered) + 1)).mean()


class TestRiskCoverage:
    def test_area_is_the_mean_over_prefixes(self):
        rng = np.random.default_rng(0)
        uncertainty = rng.permutation(65536)[:4000] / 65536  # no two of one level
        error = rng.random(4000) < 0.3 * uncertainty
        curve = RiskCoverage()
        curve.add(torch.from_numpy(uncertainty), torch.from_numpy(error))
        assert curve.area() == pytest.approx(area_over_pixels(uncertainty, error), abs=1e-9)
        ordered = error[np.argsort(uncertainty)]
        assert curve.at(0.25) == pytest.approx(ordered[:1000].mean())
        assert curve.points(5)[1][-1] == pytest.approx(error.mean())

    def test_equals_are_in_random_order(self):
        rng = np.random.default_rng(1)
        uncertainty, error = rng.integers(0, 3, 12) / 4, rng.random(12) < 0.4
        curve = RiskCoverage()
        curve.add(torch.from_numpy(uncertainty), torch.from_numpy(error))
        shuffled = [area_over_pixels(uncertainty[p], error[p]) for p in (rng.permutation(12) for _ in range(20000))]
        assert curve.area() == pytest.approx(np.mean(shuffled), abs=3e-3)

    def test_masks_and_merged_images(self):
        u, e, m = torch.rand(60), torch.rand(60) > 0.8, torch.rand(60) > 0.3
        whole, parts, other = RiskCoverage(), RiskCoverage(), RiskCoverage()
        whole.add(u[m], e[m])
        parts.add(u[:20], e[:20], m[:20])
        other.add(u[20:], e[20:], m[20:])
        parts.merge(other)
        assert parts.area() == whole.area()

    def test_edges(self):
        assert math.isnan(RiskCoverage().area()) and math.isnan(RiskCoverage().at(0.5))
        with pytest.raises(ValueError, match="coverage"):
            RiskCoverage().at(0.0)
        with pytest.raises(ValueError, match="lie in"):
            RiskCoverage().add(torch.tensor([1.5]), torch.tensor([1]))
