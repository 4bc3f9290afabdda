"""The topology-preserving skeleton: components, holes, thinness, its sample and its gradient."""

import numpy as np
import pytest
import torch
from skimage.measure import label

from tests.losses.shapes import certain, noisy_logits, tree
from topolora_monai.errors import ConfigError
from topolora_monai.losses import (
    CbDiceLoss,
    ClCrossEntropyLoss,
    SoftClDiceLoss,
    exact_skeleton,
    soft_skeleton,
    topology_skeleton,
)


def masks(shape, share, count=20, seed=0):
    """Random masks, smooth enough to have wide parts and holes."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, 1, *shape, generator=generator)
    smooth = torch.nn.functional.avg_pool2d(noise, 3, 1, 1, count_include_pad=False)
    return torch.cat([(noise < share).float(), (smooth < 0.5).float()])


def betti(mask):
    """Components by corners and, without the outside, of the background by sides."""
    return label(mask, connectivity=2).max(), label(~np.pad(mask, 1), connectivity=1).max()


def is_simple(window):
    """Whether the middle of nine may go: it touches one component by corners and one of the background by sides."""
    around = window.copy()
    around[1, 1] = False
    back = ~around
    back[1, 1] = False
    parts = label(back, connectivity=1)
    touched = {parts[0, 1], parts[1, 0], parts[1, 2], parts[2, 1]} - {0}
    return label(around, connectivity=2).max() == 1 and len(touched) == 1


@pytest.mark.parametrize("iterations", [1, 2, 20])
@pytest.mark.parametrize("shape", [(24, 24), (17, 32), (1, 9), (9, 1)])
def test_components_and_holes_stay(iterations, shape):
    for mask in masks(shape, 0.6, count=10):
        skeleton = topology_skeleton(mask[None], iterations, noise=0)[0, 0].bool().numpy()
        before = mask[0].bool().numpy()
        assert betti(skeleton) == betti(before)
        assert not (skeleton & ~before).any()


def test_nothing_but_ends_is_left_to_delete():
    for mask in masks((24, 24), 0.6, count=10):
        skeleton = np.pad(topology_skeleton(mask[None], 40, noise=0)[0, 0].bool().numpy(), 1)
        for row, column in np.argwhere(skeleton):
            window = skeleton[row - 1 : row + 2, column - 1 : column + 2]
            assert window.sum() <= 2 or not is_simple(window)


def test_a_bar_becomes_its_middle():
    mask = torch.zeros(1, 1, 9, 30)
    mask[..., 2:7, 2:28] = 1
    skeleton = topology_skeleton(mask, noise=0)
    assert skeleton.sum() == skeleton[..., 4, :].sum() >= 20


def test_wide_structures_and_noisy_ones_do_not_vanish_or_fall_apart():
    wide = torch.ones(1, 1, 60, 60)
    assert soft_skeleton(wide, 3).sum() == 0
    assert topology_skeleton(wide, 3, noise=0).sum() > 0
    ragged = torch.sigmoid(noisy_logits(tree()))
    assert betti(topology_skeleton(ragged, noise=0)[0, 0].bool().numpy()) == betti(tree()[0, 0].bool().numpy())


def test_iterations_take_one_pixel_off_every_side():
    mask = torch.zeros(1, 1, 24, 40)
    mask[..., 2:22, 2:38] = 1
    once = topology_skeleton(mask, 1, noise=0)
    assert (once[..., 4:20, 4:36] == 1).all()
    assert once.sum() < mask.sum()
    assert topology_skeleton(mask, 5, noise=0).sum() < once.sum()


def test_volumes_are_thinned_by_the_exact_skeleton():
    mask = torch.zeros(1, 2, 9, 10, 20)
    mask[:, 0, 2:7, 3:8, 2:18] = 1
    skeleton = topology_skeleton(mask, noise=0)
    assert torch.equal(skeleton, exact_skeleton(mask))
    assert 8 <= skeleton.sum() < 20


class TestSample:
    def test_without_noise_it_is_the_mask_at_one_half(self):
        image = torch.tensor([0.4, 0.5, 0.51, 0.0, 1.0]).view(1, 1, 1, 5)
        assert topology_skeleton(image, noise=0).flatten().tolist() == [0, 0, 1, 0, 1]

    def test_noise_is_logistic_and_seeded(self):
        """Isolated pixels are not thinned: P(logit(0.6) + 0.33 noise > 0) = sigmoid(logit(0.6) / 0.33)."""
        image = torch.zeros(1, 1, 400, 400)
        image[..., ::2, ::2] = 0.6
        torch.manual_seed(0)
        first = topology_skeleton(image)
        torch.manual_seed(0)
        assert torch.equal(topology_skeleton(image), first)
        assert not torch.equal(topology_skeleton(image), first)
        expected = torch.sigmoid(torch.logit(torch.tensor(0.6)) / 0.33).item()
        assert first[..., ::2, ::2].mean().item() == pytest.approx(expected, abs=0.01)
        assert first.sum() == first[..., ::2, ::2].sum()

    def test_zeros_and_ones_are_certain(self):
        torch.manual_seed(0)
        mask = torch.zeros(1, 1, 200, 200)
        mask[..., ::2, ::2] = 1
        assert torch.equal(topology_skeleton(mask), mask)

    def test_gradient_is_straight_through_except_where_deleted(self):
        image = torch.zeros(1, 1, 7, 20, dtype=torch.float64)
        image[..., 2:5, 2:18] = 0.8
        image.requires_grad_()
        skeleton = topology_skeleton(image, noise=0)
        weight = torch.rand_like(image)
        (skeleton * weight).sum().backward()
        deleted = (image > 0.5) & (skeleton == 0)
        assert deleted.sum() > 20
        assert torch.equal(image.grad, weight * ~deleted)

    def test_gradient_of_a_noisy_sample(self):
        image = torch.full((1, 1, 1, 1), 0.7, dtype=torch.float64, requires_grad=True)
        torch.manual_seed(3)
        noise = torch.rand(1, dtype=torch.float64).logit().item()
        torch.manual_seed(3)
        topology_skeleton(image).sum().backward()
        relaxed = torch.sigmoid(torch.logit(torch.tensor(0.7, dtype=torch.float64)) + 0.33 * noise).item()
        assert image.grad.item() == pytest.approx(relaxed * (1 - relaxed) / (0.7 * 0.3))

    @pytest.mark.parametrize("arguments", [{"iterations": 0}, {"noise": -0.1}, {"image": torch.zeros(3, 3)}])
    def test_bad_arguments(self, arguments):
        with pytest.raises(ValueError, match="must"):
            topology_skeleton(**{"image": torch.zeros(1, 1, 3, 3)} | arguments)


@pytest.mark.parametrize("loss", [SoftClDiceLoss, ClCrossEntropyLoss, CbDiceLoss])
class TestInLosses:
    def test_is_drawn_in_training_and_not_after(self, loss):
        target = tree()
        logits = noisy_logits(target) / 4
        one = loss(skeleton="topology_preserving")
        torch.manual_seed(0)
        first, second = one(logits, target), one(logits, target)
        torch.manual_seed(0)
        assert one(logits, target) == first
        assert (first == second) == (loss is CbDiceLoss)  # which thins masks
        one.eval()
        assert one(logits, target) == one(logits, target)

    def test_scores_what_is_too_wide_for_the_soft_skeleton(self, loss):
        """A bar of 30 pixels of which the middle third is missing."""
        target = torch.zeros(1, 1, 60, 120)
        target[..., 15:45, 10:110] = 1
        broken = target.clone()
        broken[..., 43:77] = 0
        soft = loss(3)(certain(broken), target)
        thinned = loss(3, skeleton="topology_preserving").eval()(certain(broken), target)
        assert soft < 0.05
        assert thinned > 0.15

    def test_gradient_reaches_the_logits(self, loss):
        target = tree()
        logits = noisy_logits(target)
        logits[..., 30:33, :] *= -1
        logits = logits.requires_grad_()
        loss(skeleton="topology_preserving")(logits, target).backward()
        assert logits.grad.isfinite().all()
        assert (logits.grad != 0).any()

    def test_bad_settings(self, loss):
        with pytest.raises(ConfigError, match="skeleton method"):
            loss(skeleton="exact")
        with pytest.raises(ConfigError, match="iterations"):
            loss(0)
