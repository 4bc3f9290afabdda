"""Known answers of the terms on centrelines and edges, by hand and against independent implementations."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, distance_transform_edt, grey_dilation, grey_erosion
from skimage.morphology import diamond, skeletonize

from tests.losses.shapes import certain, noisy_logits, several, tree
from topolora_monai.errors import ConfigError
from topolora_monai.losses import (
    BoundaryDiceLoss,
    CbDiceLoss,
    ClCrossEntropyLoss,
    SkeletonRecallLoss,
    SoftClDiceLoss,
    exact_skeleton,
)
from topolora_monai.losses.soft_skeleton import soft_skeleton


def broken(target, seed=0):
    """A prediction with noise, a gap and a false branch."""
    logits = noisy_logits(target, seed)
    logits[..., 28:33, :] *= -1
    return logits


def arrays(logits, target):
    """Probability and target of each image and class, in float64."""
    probability = torch.sigmoid(logits.double()).numpy()
    mask = target.double().numpy()
    return zip(*(x.reshape(-1, *logits.shape[2:]) for x in (probability, mask)), strict=True)


class TestSkeletonRecall:
    @staticmethod
    def reference(logits, target, radius):
        """The skeleton widened by a diamond, by scikit-image and scipy."""
        values = []
        for probability, mask in arrays(logits, target):
            skeleton = skeletonize(mask > 0)
            tube = binary_dilation(skeleton, diamond(radius)) & (mask > 0)
            values.append(1 - (probability[tube].sum() + 1) / (tube.sum() + 1))
        return torch.tensor(values).view(target.shape[:2])

    @pytest.mark.parametrize("radius", [0, 1, 2, 5])
    def test_is_the_reference(self, radius):
        target = torch.cat([tree(), tree().flip(2), torch.ones(1, 1, 48, 48)])
        logits = torch.randn(target.shape, dtype=torch.float64)
        values = SkeletonRecallLoss(radius, reduction="none")(logits, target)
        torch.testing.assert_close(values, self.reference(logits, target, radius))

    def test_half_of_a_line(self):
        """A bar of five rows: skeleton of 20 pixels as given, tube of radius 1 three rows, of which half is found."""
        target = torch.zeros(1, 1, 11, 30)
        target[..., 3:8, 5:25] = 1
        skeleton = torch.zeros_like(target)
        skeleton[..., 5, 5:25] = 1
        half = target.clone()
        half[..., 15:] = 0
        value = SkeletonRecallLoss(1)(certain(half), target, skeleton=skeleton)
        assert value.item() == pytest.approx(1 - 31 / 61)

    def test_volume(self):
        target = torch.zeros(1, 1, 9, 10, 24)
        target[..., 2:7, 3:8, 3:20] = 1
        skeleton = exact_skeleton(target)[0, 0].numpy() > 0
        cross = np.zeros((3, 3, 3), dtype=bool)
        cross[1, 1], cross[1, :, 1], cross[:, 1, 1] = True, True, True
        tube = binary_dilation(skeleton, cross, iterations=2) & (target[0, 0].numpy() > 0)
        logits = torch.randn(target.shape)
        expected = 1 - (torch.sigmoid(logits)[0, 0].numpy()[tube].sum() + 1) / (tube.sum() + 1)
        assert SkeletonRecallLoss()(logits, target).item() == pytest.approx(expected, abs=1e-6)

    def test_empty_targets_cost_nothing_and_have_no_gradient(self):
        logits = torch.randn(1, 1, 8, 8, requires_grad=True)
        value = SkeletonRecallLoss()(logits, torch.zeros(1, 1, 8, 8))
        value.backward()
        assert value == 0
        assert (logits.grad == 0).all()

    @pytest.mark.parametrize("arguments", [{"radius": -1}, {"smooth": 0.0}])
    def test_bad_settings(self, arguments):
        with pytest.raises(ConfigError):
            SkeletonRecallLoss(**arguments)


class TestClCrossEntropy:
    def test_known_answer(self):
        """A line of 20 pixels found with odds of 3 to 1: both skeletons are the line, the prediction's is 0.75."""
        target = torch.zeros(1, 1, 9, 30)
        target[..., 4, 5:25] = 1
        logits = torch.full_like(target, -50.0)
        logits[target > 0] = math.log(3)
        expected = 20 / 270 * math.log(4 / 3) * (1 + 0.75)
        assert ClCrossEntropyLoss(2)(logits, target).item() == pytest.approx(expected)

    def test_is_the_reference_on_two_channels(self):
        """Softmax over background and foreground, cross entropy times the foreground's skeletons, plain means."""
        target = torch.cat([tree(), tree().flip(2)])
        foreground, background = broken(target), torch.randn(target.shape) / 3
        logits, both = torch.cat([background, foreground], 1), torch.cat([1 - target, target], 1)
        entropy = torch.nn.functional.cross_entropy(logits, both, reduction="none")
        predicted, true = soft_skeleton(logits.softmax(1), 4)[:, 1], soft_skeleton(target, 4)[:, 0]
        expected = (entropy * true).mean() + (entropy * predicted).mean()
        ours = ClCrossEntropyLoss(4, softmax=True, include_background=False)
        torch.testing.assert_close(ours(logits, both), expected)
        torch.testing.assert_close(ClCrossEntropyLoss(4)(foreground - background, target), expected)

    def test_skeleton_that_is_given_is_the_target_s(self):
        target = tree()
        logits = broken(target)
        given = ClCrossEntropyLoss()(logits, target, skeleton=exact_skeleton(target))
        assert given != ClCrossEntropyLoss()(logits, target)

    def test_a_blob_on_an_empty_target_costs(self):
        empty = torch.zeros(1, 1, 40, 40)
        assert ClCrossEntropyLoss(3)(empty + 5, empty) > 4
        assert soft_skeleton(torch.ones(1, 1, 40, 40), 3).sum() == 0  # where the formula gives nothing


class TestCbDice:
    @staticmethod
    def weights(mask, skeleton, dimensions):
        distance = distance_transform_edt(mask)
        radius = np.where(skeleton, distance, 0)
        largest = max(radius.max(), 1)
        inverse = ((largest - radius + 1) / largest) ** (dimensions - 1)
        return np.minimum(distance, largest) / largest, radius / largest, np.where(skeleton, inverse, 0)

    @classmethod
    def reference(cls, logits, target, iterations):
        """Step by step as the authors' code, one image after another."""
        values = []
        for probability, mask in arrays(logits, target):
            dimensions = mask.ndim
            hard = (probability > 0.5) * 1.0
            thinned = [soft_skeleton(torch.from_numpy(x)[None, None], iterations)[0, 0].numpy() for x in (hard, mask)]
            v_p, r_p, i_p = (x * probability for x in cls.weights(hard, thinned[0] > 0, dimensions))
            v_l, r_l, i_l = cls.weights(mask, thinned[1] > 0, dimensions)
            ideal_p, ideal_l = r_l * i_p, r_p * i_l
            ideal_p[(r_p != 0) & (r_l == 0)] = (r_p * i_p)[(r_p != 0) & (r_l == 0)]
            ideal_l[(r_l != 0) & (r_p == 0)] = (r_l * i_l)[(r_l != 0) & (r_p == 0)]
            precision = ((i_p * v_l).sum() + 1) / (ideal_p.sum() + 1)
            sensitivity = ((i_l * v_p).sum() + 1) / (ideal_l.sum() + 1)
            values.append(1 - 2 * precision * sensitivity / (precision + sensitivity))
        return torch.tensor(values).view(target.shape[:2])

    def test_is_the_reference(self):
        target = torch.cat([tree(), tree().flip(2)], 1).repeat(2, 1, 1, 1)
        target[:, 1, 30:43, 5:12] = 1
        logits = torch.cat([broken(target)[:1], broken(target.roll(1, 2), seed=1)[:1]]).double()
        values = CbDiceLoss(6, reduction="none")(logits, target)
        torch.testing.assert_close(values, self.reference(logits, target, 6))
        assert (values > 0.02).all()

    def test_is_the_reference_in_volumes(self):
        target = torch.zeros(1, 1, 9, 12, 30)
        target[..., 2:7, 3:8, 3:27] = 1
        logits = noisy_logits(target.roll(1, 3)).double()
        logits[..., 12:15] *= -1
        torch.testing.assert_close(CbDiceLoss(6, reduction="none")(logits, target), self.reference(logits, target, 6))

    def test_known_answer_of_a_thinner_bar(self):
        """Bars of 5 and 3 rows: radii 3 and 2, soft skeletons of 26 and 28 pixels.

        The two ends of the predicted skeleton, i = 1 / 2, lie off the target's, with v = 2 / 3 where 1 is ideal.
        """
        target, thin = torch.zeros(1, 1, 11, 40), torch.zeros(1, 1, 11, 40)
        target[..., 3:8, 5:35], thin[..., 4:7, 5:35] = 1, 1
        precision = ((26 + 2 * 2 / 3) / 2 + 1) / (28 / 2 + 1)
        expected = 1 - 2 * precision / (1 + precision)
        assert CbDiceLoss(5)(certain(thin), target).item() == pytest.approx(expected, abs=1e-6)
        moved = target.roll(1, 2)
        assert CbDiceLoss(5)(certain(moved), target) > 0.2
        assert SoftClDiceLoss(5)(certain(moved), target) < 1e-6  # finds no fault with either skeleton

    def test_narrow_vessels_count_more(self):
        """A line of one pixel and a bar of nine: the same loss of length."""
        target = torch.zeros(1, 1, 40, 60)
        target[..., 5, 5:55] = 1
        target[..., 20:29, 5:55] = 1
        without_line, without_bar = target.clone(), target.clone()
        without_line[..., 5, 20:35] = 0
        without_bar[..., 20:29, 20:35] = 0
        skeleton = torch.zeros_like(target)
        skeleton[..., 5, 5:55] = 1
        skeleton[..., 24, 9:51] = 1
        loss = CbDiceLoss(8)
        value = loss(certain(without_line), target, skeleton=skeleton).item()
        # all weights by hand: R = 5; line i = 1, r = v = 1 / 5; bar i = 1 / 5, r = v = 1
        bar = 42 / 5
        sensitivity = (35 / 5 + bar + 1) / (50 / 5 + bar + 1)
        assert value == pytest.approx(1 - 2 * sensitivity / (1 + sensitivity), rel=0.05)
        assert loss(certain(without_bar), target, skeleton=skeleton) > 0.03

    def test_masks_that_agree_cost_nothing_however_unsure(self):
        assert CbDiceLoss()(noisy_logits(tree()), tree()).item() == pytest.approx(0.0, abs=1e-6)

    def test_gradient_is_inside_the_predicted_mask(self):
        target = tree()
        logits = broken(target).requires_grad_()
        CbDiceLoss()(logits, target).backward()
        assert (logits.grad[logits <= 0] == 0).all()
        assert (logits.grad[logits > 0] != 0).any()

    def test_bad_smooth(self):
        with pytest.raises(ConfigError, match="smooth"):
            CbDiceLoss(smooth=0)


class TestBoundaryDice:
    @staticmethod
    def reference(logits, target):
        """The morphological gradient by scipy, with zeros around."""
        values = []
        for pair in arrays(logits, target):
            padded = [np.pad(x, 1) for x in pair]
            size = (3,) * padded[0].ndim
            inner = (slice(1, -1),) * padded[0].ndim
            one, other = ((grey_dilation(x, size) - grey_erosion(x, size))[inner] for x in padded)
            values.append(1 - (2 * (one * other).sum() + 1) / (one.sum() + other.sum() + 1))
        return torch.tensor(values).view(target.shape[:2])

    @pytest.mark.parametrize("shape", [(2, 2, 20, 17), (1, 2, 6, 7, 9)])
    def test_is_the_reference(self, shape):
        generator = torch.Generator().manual_seed(0)
        target = (torch.rand(shape, generator=generator) > 0.6).double()
        logits = torch.randn(shape, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(BoundaryDiceLoss(reduction="none")(logits, target), self.reference(logits, target))

    def test_known_answer_of_a_moved_square(self):
        """Edges of 4 x 4 squares are 6 x 6 less 2 x 2, 32 pixels; what those of two share is counted."""
        target = torch.zeros(1, 1, 12, 12)
        target[..., 3:7, 3:7] = 1
        moved = target.roll(1, 3)

        def edge(first):
            return {(r, c) for r in range(2, 8) for c in range(first - 1, first + 5)} - {
                (r, c) for r in (4, 5) for c in (first + 1, first + 2)
            }

        shared = len(edge(3) & edge(4))
        expected = 1 - (2 * shared + 1) / (2 * 32 + 1)
        assert BoundaryDiceLoss()(certain(moved), target).item() == pytest.approx(expected, abs=1e-6)

    def test_only_edges_inside_the_mask_count(self):
        logits, target = several()
        mask = torch.ones(2, 1, 24, 24)
        mask[..., 12:] = 0
        inside = BoundaryDiceLoss()(logits[..., :12], target[..., :12])
        torch.testing.assert_close(BoundaryDiceLoss()(logits, target, mask=mask), inside)
