"""The composition: names, weights, ramps, and the defaults' values."""

import math

import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from monai.losses.cldice import soft_skel

from tests.losses.shapes import noisy_logits, several, tree
from topolora_monai.errors import ConfigError
from topolora_monai.losses import LOSS_TERMS, SoftClDiceLoss, TopologyLoss


def default_by_hand(logits, target, mask=None, skeleton=None):
    """BCE over all pixels that count + Dice + half the clDice, from torch and MONAI alone."""
    valid = torch.ones_like(target) if mask is None else mask.expand_as(target)
    probability, target = torch.sigmoid(logits) * valid, target * valid
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, weight=valid, reduction="sum")
    empty = (target.amax(dim=(2, 3), keepdim=True) == 0).float()
    thinned = empty * probability + (1 - empty) * soft_skel(probability, 9)
    exact = soft_skel(target, 9) if skeleton is None else skeleton * valid
    precision = ((thinned * target).sum((2, 3)) + 1) / (thinned.sum((2, 3)) + 1)
    sensitivity = ((exact * probability).sum((2, 3)) + 1) / (exact.sum((2, 3)) + 1)
    cldice = (1 - 2 * precision * sensitivity / (precision + sensitivity)).mean()
    dice = DiceLoss(smooth_nr=1.0, smooth_dr=1.0)(probability, target)
    return entropy / valid.sum() + dice + cldice


class TestDefaults:
    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("exact", [False, True])
    def test_by_hand(self, masked, exact):
        target = torch.cat([tree(), tree() * 0, tree().flip(2)]).repeat(1, 2, 1, 1)
        logits = noisy_logits(target)
        mask = (torch.rand(3, 1, 48, 48) > torch.tensor([0.1, 0.5, 0.9]).view(3, 1, 1, 1)).float() if masked else None
        skeleton = (torch.rand(target.shape) > 0.9).float() * target if exact else None
        value = TopologyLoss()(logits, target, mask=mask, skeleton=skeleton)
        torch.testing.assert_close(value, default_by_hand(logits, target, mask, skeleton), rtol=1e-6, atol=1e-6)

    def test_gradient_by_hand(self):
        target = tree()
        logits = noisy_logits(target).requires_grad_()
        ours = torch.autograd.grad(TopologyLoss()(logits, target), logits)[0]
        theirs = torch.autograd.grad(default_by_hand(logits, target), logits)[0]
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-8)

    def test_gradient_by_finite_differences(self):
        target = torch.zeros(1, 1, 7, 7, dtype=torch.float64)
        target[..., 3, 1:6] = 1
        logits = torch.randn(target.shape, dtype=torch.float64, requires_grad=True)
        loss = TopologyLoss(iterations=2)
        assert torch.autograd.gradcheck(lambda x: loss(x, target), logits, eps=1e-7, atol=1e-5)


class TestComposition:
    def test_is_the_weighted_sum_of_its_terms(self):
        target = tree()
        logits = noisy_logits(target)
        weights = {name: 0.3 + index for index, name in enumerate(LOSS_TERMS) if name != "ce"}
        terms = {
            name: LOSS_TERMS[name](**{"iterations": 4} if name in ("cldice", "clce", "cbdice") else {})
            for name in weights
        }
        expected = sum(weight * terms[name](logits, target) for name, weight in weights.items())
        torch.testing.assert_close(TopologyLoss(weights, iterations=4)(logits, target), expected)

    def test_softmax_and_background_reach_the_terms(self):
        logits, target = several()
        loss = TopologyLoss({"ce": 1.0, "dice": 2.0}, softmax=True, include_background=False)
        expected = torch.nn.functional.cross_entropy(logits, target.argmax(1)) + 2 * DiceLoss(
            softmax=True, include_background=False, smooth_nr=1.0, smooth_dr=1.0
        )(logits, target)
        torch.testing.assert_close(loss(logits, target), expected)

    def test_smoothing_reaches_dice_and_cldice(self):
        logits, target = torch.full((1, 1, 6, 6), -20.0), torch.zeros(1, 1, 6, 6)
        target[0, 0, 2:4] = 1.0
        missed = {
            smooth: TopologyLoss({"dice": 1.0, "cldice": 1.0}, smooth=smooth)(logits, target) for smooth in (1.0, 1e-6)
        }
        # Nothing predicted: Dice is s / (12 + s); clDice's precision is 1, its sensitivity s / (12 + s),
        # since a band two rows thick is its own soft skeleton.
        sensitivity = 1 / 13
        assert missed[1.0].item() == pytest.approx(2 - 1 / 13 - 2 * sensitivity / (1 + sensitivity), abs=1e-3)
        assert missed[1e-6].item() == pytest.approx(2, abs=1e-5)

    def test_terms_of_weight_zero_are_not_computed(self, monkeypatch):
        def fail(*arguments):
            raise AssertionError("computed")

        monkeypatch.setattr(SoftClDiceLoss, "score", fail)
        target = tree()
        TopologyLoss({"bce": 1.0, "cldice": 0.0})(target, target)
        ramped = TopologyLoss({"bce": 1.0, "cldice": 1.0}, ramps={"cldice": 0.5})
        ramped.set_progress(0.0)
        ramped(target, target)
        ramped.set_progress(0.1)
        with pytest.raises(AssertionError, match="computed"):
            ramped(target, target)

    def test_ramps(self):
        loss = TopologyLoss({"bce": 2.0, "cldice": 0.8, "structure": 1.0}, ramps={"cldice": 0.5, "structure": 1.0})
        seen = []
        for progress in (0.0, 0.25, 0.5, 1.0):
            loss.set_progress(progress)
            seen.append((loss.weight("bce"), loss.weight("cldice"), loss.weight("structure"), loss.weight("dice")))
        expected = [(2.0, 0.0, 0.0, 0.0), (2.0, 0.4, 0.25, 0.0), (2.0, 0.8, 0.5, 0.0), (2.0, 0.8, 1.0, 0.0)]
        assert seen == [pytest.approx(row) for row in expected]
        assert TopologyLoss().weight("cldice") == 1.0

    def test_ramp_is_the_weight_in_the_sum(self):
        target = tree()
        logits = noisy_logits(target)
        ramped = TopologyLoss({"bce": 1.0, "cldice": 0.8}, ramps={"cldice": 0.5}, iterations=3)
        ramped.set_progress(0.25)
        expected = TopologyLoss({"bce": 1.0, "cldice": 0.4}, iterations=3)
        assert ramped(logits, target) == expected(logits, target)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
    def test_before_its_only_term_starts_it_is_zero_with_a_gradient(self, dtype):
        loss = TopologyLoss({"cldice": 1.0}, ramps={"cldice": 0.5})
        loss.set_progress(0.0)
        logits = torch.full((1, 1, 8, 8), float("inf"), dtype=dtype, requires_grad=True)
        value = loss(logits, torch.zeros(1, 1, 8, 8))
        value.backward()
        assert value == 0
        assert value.dtype == (dtype if dtype == torch.float64 else torch.float32)
        assert (logits.grad == 0).all()

    def test_method_of_thinning_reaches_the_terms(self):
        target = tree()
        logits = noisy_logits(target)
        logits[..., 28:33, :] *= -1
        for name in ("cldice", "clce", "cbdice"):
            loss = TopologyLoss({name: 1.0}, skeleton="topology_preserving").eval()
            expected = LOSS_TERMS[name](skeleton="topology_preserving").eval()(logits, target)
            torch.testing.assert_close(loss(logits, target), expected)
            assert loss(logits, target) != TopologyLoss({name: 1.0})(logits, target)

    def test_skeleton_is_used_with_terms_on_centrelines_alone(self):
        target = tree()
        logits, skeleton = noisy_logits(target), torch.zeros_like(target)
        on_centrelines = ("cldice", "clce", "cbdice", "skeleton_recall")
        for name in set(LOSS_TERMS) - {"ce"}:
            loss = TopologyLoss({name: 1.0})
            assert (loss(logits, target, skeleton=skeleton) != loss(logits, target)) == (name in on_centrelines)


class TestBadSettings:
    def test_unknown_names_are_answered_with_the_known_ones(self):
        with pytest.raises(ConfigError, match=r"structure_weighted(.|\n)*did you mean cldice"):
            TopologyLoss({"cl_dice": 1.0})
        with pytest.raises(ConfigError, match="unknown loss term"):
            TopologyLoss(ramps={"dise": 0.5})

    @pytest.mark.parametrize(
        ("weights", "ramps"),
        [
            ({"bce": -1.0}, None),
            ({"bce": float("nan")}, None),
            ({"bce": 0.0}, None),
            ({}, None),
            ({"bce": 1.0}, {"bce": 1.5}),
        ],
    )
    def test_impossible_numbers(self, weights, ramps):
        with pytest.raises(ConfigError):
            TopologyLoss(weights, ramps)

    def test_classes_by_cross_entropy_without_a_softmax(self):
        with pytest.raises(ConfigError, match="softmax"):
            TopologyLoss({"ce": 1.0})

    def test_shapes_must_agree(self):
        with pytest.raises(ValueError, match="differ in shape"):
            TopologyLoss()(torch.rand(1, 1, 8, 8), torch.rand(1, 2, 8, 8))


def exclusive(**weights) -> TopologyLoss:
    return TopologyLoss(weights, softmax=True, implicit_background=True)


class TestExclusiveClasses:
    """Classes that exclude each other, the background left out: what a network of several classes is trained with."""

    def test_cross_entropy_is_that_of_torch(self):
        logits, classes = torch.randn(2, 3, 6, 7), torch.randint(0, 4, (2, 6, 7))
        target = F.one_hot(classes, 4).movedim(-1, 1)[:, 1:].float()
        expected = F.cross_entropy(torch.cat([torch.zeros(2, 1, 6, 7), logits], 1), classes)
        torch.testing.assert_close(exclusive(ce=1)(logits, target), expected)

    def test_dice_by_hand(self):
        logits = torch.tensor([40.0, -40.0]).view(1, 2, 1, 1).repeat(1, 1, 2, 2)  # all of class 1
        target = torch.zeros(1, 2, 2, 2)
        target[0, 0, 0], target[0, 1, 1, 0] = 1, 1
        expected = ((1 - (2 * 2 + 1) / (4 + 2 + 1)) + (1 - 1 / (0 + 1 + 1))) / 2
        assert exclusive(dice=1)(logits, target).item() == pytest.approx(expected, abs=1e-5)

    def test_one_class_is_binary(self):
        logits, target = torch.randn(2, 1, 6, 7), torch.rand(2, 1, 6, 7).round()
        expected = F.binary_cross_entropy_with_logits(logits, target)
        torch.testing.assert_close(exclusive(ce=1)(logits, target), expected)

    def test_outside_the_mask_nothing_counts(self):
        logits, target, mask = torch.randn(1, 2, 6, 6), torch.zeros(1, 2, 6, 6), torch.zeros(1, 1, 6, 6)
        target[:, 0, :2], mask[..., :3] = 1, 1
        expected = exclusive(ce=1, dice=1)(logits[..., :3], target[..., :3])
        logits[..., 3:] = math.nan
        target[..., 3:] = 1
        logits.requires_grad_()
        loss = exclusive(ce=1, dice=1)(logits, target, mask=mask)
        torch.testing.assert_close(loss, expected)
        loss.backward()
        assert logits.grad.isfinite().all()

    def test_pixels_given_to_two_classes_count_for_both(self):
        target = torch.ones(1, 2, 1, 1)
        loss = exclusive(ce=1)
        values = [loss(torch.tensor(l).view(1, 2, 1, 1), target).item() for l in ([9.0, 9.0], [9.0, -9.0])]  # noqa: E741
        assert values[0] == pytest.approx(math.log(2), abs=1e-3)
        assert values[1] == pytest.approx(9, abs=1e-3)
