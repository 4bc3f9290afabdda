"""The component-graph loss on hand-made errors, and its guarantee against a plain check of correspondence."""

import numpy as np
import pytest
import torch
from scipy.ndimage import label as scipy_label
from skimage.measure import label

from tests.losses.shapes import certain, tree
from topolora_monai.losses import ComponentGraphLoss, critical_regions


def bar(*gaps):
    """A horizontal bar of three rows with gaps of columns."""
    mask = np.zeros((12, 30), dtype=bool)
    mask[4:7, 3:27] = True
    for start, stop in gaps:
        mask[4:7, start:stop] = False
    return mask


def ring(size=14):
    mask = np.zeros((size, size), dtype=bool)
    mask[3:11, 3:11] = True
    mask[5:9, 5:9] = False
    return mask


class TestErrorsByHand:
    def test_a_broken_line(self):
        regions, count = critical_regions(bar((12, 14)), bar())
        assert count == 1
        assert np.array_equal(regions > 0, bar() & ~bar((12, 14)))

    def test_two_breaks_and_a_spurious_component(self):
        prediction = bar((8, 9), (20, 22))
        prediction[9, 5] = True
        regions, count = critical_regions(prediction, bar())
        assert count == 3
        assert np.array_equal(regions > 0, prediction != bar())

    def test_a_spurious_bridge(self):
        target = bar((12, 16))
        regions, count = critical_regions(bar(), target)
        assert count == 1
        assert np.array_equal(regions > 0, bar() & ~target)

    def test_a_bridge_by_corners(self):
        target = np.zeros((6, 6), dtype=bool)
        target[1, 1] = target[3, 3] = True
        prediction = target.copy()
        prediction[2, 2] = True
        assert critical_regions(prediction, target)[1] == 1

    def test_a_filled_hole_and_a_hole_that_is_none(self):
        filled = ring()
        filled[5:9, 5:9] = True
        assert critical_regions(filled, ring())[1] == 1
        assert critical_regions(ring(), filled)[1] == 1

    def test_an_opened_and_a_divided_ring(self):
        opened, divided = ring(), ring()
        opened[3:5, 6:8] = False
        divided[5:9, 6] = True
        assert critical_regions(opened, ring())[1] == 1
        assert critical_regions(divided, ring())[1] == 1

    def test_a_line_beside_the_target_is_missed_and_spurious(self):
        target = np.zeros((9, 9), dtype=bool)
        target[4, 1:8] = True
        assert critical_regions(np.roll(target, 2, axis=0), target)[1] == 2

    @pytest.mark.parametrize("axis", [0, 1])
    @pytest.mark.parametrize("shape", [bar(), ring()])
    def test_a_moved_edge_is_free(self, shape, axis):
        assert critical_regions(np.roll(shape, 1, axis=axis), shape)[1] == 0

    def test_a_shortened_end_and_a_spur_are_free(self):
        prediction = bar((24, 27))
        prediction[7:10, 9] = True
        assert critical_regions(prediction, bar())[1] == 0

    def test_a_line_that_ends_before_the_border_is_free(self):
        target = np.zeros((5, 20), dtype=bool)
        target[2] = True
        assert critical_regions(target & (np.arange(20) < 16), target)[1] == 0

    def test_a_cavity_and_a_break_in_a_volume(self):
        target = np.zeros((7, 7, 12), dtype=bool)
        target[2:5, 2:5, 1:11] = True
        cavity, broken = target.copy(), target.copy()
        cavity[3, 3, 5] = False
        broken[..., 5] = False
        assert critical_regions(cavity, target)[1] == 1
        assert critical_regions(broken, target)[1] == 1
        assert critical_regions(np.roll(target, 1, axis=0), target)[1] == 0


def corresponds(smaller, larger, connectivity):
    """Whether each component of the larger mask holds exactly one of the smaller."""
    inner, count = label(smaller, connectivity=connectivity, return_num=True)
    outer, others = label(larger, connectivity=connectivity, return_num=True)
    homes = [outer[inner == number].max() for number in range(1, count + 1)]
    return sorted(homes) == list(range(1, others + 1))


def same_topology(prediction, target):
    """The guarantee, checked without regions of error."""
    prediction, target = np.pad(prediction, 1), np.pad(target, 1)
    common = prediction & target
    return all(corresponds(common, mask, 2) and corresponds(~mask, ~common, 1) for mask in (prediction, target))


def betti(mask):
    return label(mask, connectivity=2).max(), label(~np.pad(mask, 1), connectivity=1).max()


class TestGuarantee:
    def test_zero_if_and_only_if_components_and_holes_correspond(self):
        random = np.random.default_rng(0)
        zeros = 0
        for index in range(600):
            target = random.random((6, 6)) < random.choice([0.3, 0.5, 0.7])
            prediction = target ^ (random.random((6, 6)) < random.choice([0.02, 0.06, 0.3]))
            free = critical_regions(prediction, target)[1] == 0
            assert free == same_topology(prediction, target), index
            if free and (prediction != target).any():
                zeros += 1
                assert betti(prediction) == betti(target)
        assert zeros > 20

    def test_prediction_and_target_are_alike(self):
        random = np.random.default_rng(1)
        one, other = random.random((2, 20, 20)) < 0.5
        assert critical_regions(one, other)[1] == critical_regions(other, one)[1] > 0


class TestValue:
    def test_is_the_mean_over_regions_of_the_mean_error(self):
        """A gap of two columns missed at 0.2, 0.4 and a false speck at 0.7."""
        target = torch.from_numpy(bar()).double()[None, None]
        probability = 0.1 + 0.8 * target
        probability[..., 4:7, 12], probability[..., 4:7, 13], probability[..., 9, 5] = 0.2, 0.4, 0.7
        value = ComponentGraphLoss()(torch.logit(probability), target)
        assert value.item() == pytest.approx((0.7 + 0.7) / 2)
        probability[..., 4:7, 13] = 0.45
        assert ComponentGraphLoss()(torch.logit(probability), target).item() == pytest.approx((0.675 + 0.7) / 2)

    def test_gradient_is_in_critical_regions_alone(self):
        target = torch.from_numpy(bar()).float()[None, None]
        broken = torch.from_numpy(bar((12, 14), (25, 27))).float()[None, None]
        logits = (2 * broken - 1).requires_grad_()
        ComponentGraphLoss()(logits, target).backward()
        gap = torch.from_numpy(bar() & ~bar((12, 14)))[None, None]
        assert (logits.grad[gap] < 0).all()
        assert (logits.grad[~gap] == 0).all()

    def test_following_the_gradient_closes_a_break(self):
        target = tree()
        logits = 2 * target - 1
        logits[..., 30:33, :] = -0.5
        logits = logits.requires_grad_()
        loss = ComponentGraphLoss()
        for _ in range(60):
            value = loss(logits, target)
            logits.grad = None
            value.backward()
            with torch.no_grad():
                logits -= 5 * logits.grad
        assert loss(logits, target) == 0
        assert scipy_label((logits.detach() > 0).numpy()[0, 0], np.ones((3, 3)))[1] == 1

    def test_perfect_prediction_is_exactly_zero(self):
        assert ComponentGraphLoss()(certain(tree()), tree()) == 0

    def test_a_break_outside_the_mask_is_free(self):
        target = torch.from_numpy(bar()).float()[None, None]
        broken = torch.from_numpy(bar((12, 14))).float()[None, None]
        mask = torch.ones_like(target)
        mask[..., 11:15] = 0
        assert ComponentGraphLoss()(certain(broken), target) > 0.9
        assert ComponentGraphLoss()(certain(broken), target, mask=mask) == 0
