"""Known answers, gradients by finite differences, edge cases, and where MONAI agrees."""

import pytest
import torch
from monai.losses import DiceLoss, SoftclDiceLoss
from monai.losses.cldice import soft_skel
from skimage.morphology import skeletonize

from topolora_monai.losses import SoftClDiceLoss, TopologyLoss, soft_skeleton


def tree(size=48):
    mask = torch.zeros(1, 1, size, size)
    mask[..., 5:-5, size // 2 - 2 : size // 2 + 2] = 1
    mask[..., size // 3 : size // 3 + 2, 4:-4] = 1
    return mask


def noisy(target, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (0.7 * target + 0.3 * torch.rand(target.shape, generator=generator)).clamp(0, 1)


class TestSoftSkeleton:
    @pytest.mark.parametrize("iterations", [1, 3, 10])
    def test_carried_erosion_is_bit_identical_to_monai(self, iterations):
        image = torch.rand(2, 3, 40, 33)
        assert torch.equal(soft_skeleton(image, iterations), soft_skel(image, iterations - 1))

    def test_gradient_is_monais(self):
        image = torch.rand(1, 1, 24, 24, dtype=torch.float64, requires_grad=True)
        ours = torch.autograd.grad(soft_skeleton(image, 4).square().sum(), image)[0]
        theirs = torch.autograd.grad(soft_skel(image, 3).square().sum(), image)[0]
        torch.testing.assert_close(ours, theirs)

    def test_keeps_thin_lines_and_loses_what_is_too_wide(self):
        line, block = torch.zeros(1, 1, 20, 20), torch.zeros(1, 1, 40, 40)
        line[..., 10, 2:18] = 1
        block[..., 5:35, 5:35] = 1
        assert torch.equal(soft_skeleton(line, 3), line)
        assert soft_skeleton(block, 3).sum() < 20  # corners at most
        assert soft_skeleton(block, 20).sum() > soft_skeleton(block, 3).sum()

    def test_flips_commute(self):
        image = torch.rand(1, 1, 31, 26)
        for axes in ((-1,), (-2,), (-1, -2)):
            assert torch.equal(soft_skeleton(image.flip(axes), 5), soft_skeleton(image, 5).flip(axes))

    def test_bad_arguments(self):
        with pytest.raises(ValueError, match="iterations"):
            soft_skeleton(torch.rand(1, 1, 4, 4), 0)
        with pytest.raises(ValueError, match="shape"):
            soft_skeleton(torch.rand(4, 4))


class TestClDice:
    def test_equals_monai_on_one_class_with_a_target(self):
        target = tree()
        probability = noisy(target)
        theirs = SoftclDiceLoss(iter_=4, smooth=1e-12)(input=probability, target=target)
        torch.testing.assert_close(SoftClDiceLoss(5)(probability, target), theirs, rtol=1e-5, atol=1e-6)

    def test_differs_from_monai_on_several_classes_which_it_pools(self):
        target = torch.cat([tree(), tree().transpose(2, 3) * 0], dim=1)
        target[:, 1, 20, 20:26] = 1  # a rare class
        probability = target.clone()
        probability[:, 1] = 0  # missed whole
        theirs = SoftclDiceLoss(iter_=4)(input=probability, target=target)
        ours = SoftClDiceLoss(5)(probability, target)
        assert theirs < 0.1
        assert ours > 0.3

    def test_differs_from_monai_on_an_empty_target_where_a_blob_costs_it_nothing(self):
        empty, full = torch.zeros(1, 1, 64, 64), torch.ones(1, 1, 64, 64)
        assert SoftclDiceLoss(iter_=4)(input=full, target=empty) < 0.01
        assert SoftClDiceLoss(5)(full, empty) > 0.99
        assert SoftClDiceLoss(5)(empty, empty) == 0
        few = empty.clone()
        few[..., 3, 3:9] = 1
        assert 0 < SoftClDiceLoss(5)(few, empty) < SoftClDiceLoss(5)(full, empty)

    def test_known_answer_for_half_a_line(self):
        target = torch.zeros(1, 1, 12, 42)
        target[..., 6, 1:41] = 1
        half = target.clone()
        half[..., 21:] = 0
        # precision 1; sensitivity (20 + 1) / (40 + 1)
        expected = 1 - 2 * (21 / 41) / (1 + 21 / 41)
        assert SoftClDiceLoss(3)(half, target).item() == pytest.approx(expected, abs=1e-6)

    def test_exact_skeleton_is_used_when_given(self):
        target = tree()
        exact = torch.from_numpy(skeletonize(target[0, 0].numpy() > 0))[None, None].float()
        loss = SoftClDiceLoss(5)
        probability = noisy(target)
        assert loss(probability, target, exact) != loss(probability, target)
        missing = probability * (1 - exact)  # only the exact skeleton's pixels are lost
        assert loss(missing, target, exact) > loss(probability, target, exact) + 0.1

    def test_shapes_must_agree(self):
        with pytest.raises(ValueError, match="differ in shape"):
            SoftClDiceLoss()(torch.rand(1, 1, 8, 8), torch.rand(1, 2, 8, 8))


class TestTopologyLoss:
    def test_gradient_by_finite_differences(self):
        """In float64 throughout: the loss computes in float32 by design, so the terms are checked there."""
        target = torch.zeros(1, 1, 7, 7, dtype=torch.float64)
        target[..., 3, 1:6] = 1
        logits = torch.randn(1, 1, 7, 7, dtype=torch.float64, requires_grad=True)
        loss = TopologyLoss(cldice_weight=0.5, iterations=2)
        gradient = torch.autograd.grad(loss(logits, target), logits)[0]
        for row, column in ((3, 3), (0, 0), (2, 5), (6, 1)):
            step = torch.zeros_like(logits)
            step[..., row, column] = 2e-2
            numeric = (loss(logits.detach() + step, target) - loss(logits.detach() - step, target)) / 4e-2
            assert gradient[0, 0, row, column].item() == pytest.approx(numeric.item(), rel=0.05, abs=2e-4)

    @pytest.mark.parametrize("iterations", [1, 3])
    def test_soft_skeleton_gradient_in_float64(self, iterations):
        image = torch.rand(1, 1, 6, 6, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: soft_skeleton(x, iterations), image, eps=1e-7, atol=1e-5)

    def test_is_the_sum_of_its_terms(self):
        target = tree()
        logits = torch.randn(target.shape)
        probability = torch.sigmoid(logits)
        expected = (
            2.0 * torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
            + 3.0 * DiceLoss(smooth_nr=1.0, smooth_dr=1.0)(probability, target)
            + 0.25 * SoftClDiceLoss(10)(probability, target)
        )
        torch.testing.assert_close(TopologyLoss(2.0, 3.0, 0.25)(logits, target), expected)

    def test_pixels_outside_the_mask_have_no_influence(self):
        target, mask = tree(), torch.ones(1, 1, 48, 48)
        mask[..., :, 30:] = 0
        logits = torch.randn(target.shape)
        other_logits, other_target = logits.clone(), target.clone()
        other_logits[..., 30:] = 50.0
        other_target[..., 30:] = 1 - other_target[..., 30:]
        loss = TopologyLoss()
        assert torch.equal(loss(logits, target, mask=mask), loss(other_logits, other_target, mask=mask))
        assert loss(logits, target, mask=mask) != loss(logits, target)

    def test_full_mask_equals_no_mask_and_empty_mask_is_finite(self):
        target, logits = tree(), torch.randn(1, 1, 48, 48)
        loss = TopologyLoss()
        torch.testing.assert_close(loss(logits, target, mask=torch.ones_like(target)), loss(logits, target))
        assert loss(logits, target, mask=torch.zeros_like(target)).isfinite()

    @pytest.mark.parametrize("fill", [0.0, 1.0])
    def test_empty_and_full_targets(self, fill):
        target = torch.full((1, 1, 32, 32), fill)
        loss = TopologyLoss()
        right, wrong = loss(40 * target - 20, target), loss(20 - 40 * target, target)
        assert right.isfinite()
        assert wrong.isfinite()
        assert right < 0.05
        assert wrong > 2

    def test_flips_do_not_matter(self):
        target, logits = tree(), torch.randn(1, 1, 48, 48)
        loss = TopologyLoss()
        torch.testing.assert_close(loss(logits.flip(-1), target.flip(-1)), loss(logits, target))

    def test_batch_is_the_mean_of_singles(self):
        target = torch.cat([tree(), tree().transpose(2, 3)])
        logits = torch.randn(target.shape)
        loss = TopologyLoss()
        singles = torch.stack([loss(logits[i : i + 1], target[i : i + 1]) for i in range(2)])
        torch.testing.assert_close(loss(logits, target), singles.mean())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype):
        target = tree(256)
        logits = (12 * target - 6 + torch.randn(target.shape)).to(dtype).requires_grad_()
        loss = TopologyLoss()(logits, target.to(dtype))
        loss.backward()
        assert logits.grad.isfinite().all()
        torch.testing.assert_close(loss, TopologyLoss()(logits.detach().float(), target))

    def test_ramp(self):
        loss = TopologyLoss(cldice_weight=0.8, ramp=0.5)
        weights = []
        for progress in (0.0, 0.25, 0.5, 1.0):
            loss.set_progress(progress)
            weights.append(loss.topology_weight)
        assert weights == pytest.approx([0.0, 0.4, 0.8, 0.8])
        assert TopologyLoss(cldice_weight=0.8).topology_weight == 0.8

    @pytest.mark.parametrize("arguments", [{"bce_weight": -1}, {"ramp": 1.5}])
    def test_bad_settings(self, arguments):
        with pytest.raises(ValueError, match=r"must not be negative|fraction"):
            TopologyLoss(**arguments)

    def test_shapes_must_agree(self):
        with pytest.raises(ValueError, match="differ in shape"):
            TopologyLoss()(torch.rand(1, 1, 8, 8), torch.rand(1, 2, 8, 8))
