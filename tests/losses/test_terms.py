"""Known answers of the single terms, by hand and against independent implementations."""

import math

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss
from scipy.ndimage import uniform_filter
from torch.nn import functional as F

from tests.losses.shapes import certain, noisy_logits, several, tree
from topolora_monai.errors import ConfigError
from topolora_monai.losses import (
    BalancedCrossEntropyLoss,
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    SoftDiceLoss,
    StructureLoss,
)


class TestBinaryCrossEntropy:
    def test_is_torch_s(self):
        target = torch.cat([tree(), tree().flip(3)]).expand(2, 2, 48, 48)
        logits = torch.randn(target.shape)
        expected = F.binary_cross_entropy_with_logits(logits, target)
        torch.testing.assert_close(BinaryCrossEntropyLoss()(logits, target), expected)

    def test_softmax_is_the_cross_entropy_of_its_probability(self):
        logits, target = several()
        expected = F.binary_cross_entropy(logits.softmax(1), target)
        torch.testing.assert_close(BinaryCrossEntropyLoss(softmax=True)(logits, target), expected)

    def test_mean_is_over_all_pixels_that_count(self):
        logits, target = several()
        mask = (torch.rand(2, 1, 24, 24) > torch.tensor([0.2, 0.8]).view(2, 1, 1, 1)).float()
        chosen = mask.expand_as(logits) > 0
        expected = F.binary_cross_entropy_with_logits(logits[chosen], target[chosen])
        torch.testing.assert_close(BinaryCrossEntropyLoss()(logits, target, mask=mask), expected)


class TestBalancedCrossEntropy:
    def test_known_answer(self):
        """A quarter foreground, of which half is found with certainty: (3/4)(1/8)(50)."""
        target = torch.zeros(1, 1, 8, 8)
        target[..., :2, :] = 1
        prediction = target.clone()
        prediction[..., 0, :] = 0
        assert BalancedCrossEntropyLoss()(certain(prediction), target).item() == pytest.approx(0.75 * 50 / 8)

    def test_is_the_reference_on_one_image(self):
        """``w * BCEWithLogits(pos_weight=negatives / positives)``, w the share of positives."""
        target = tree()
        logits = torch.randn(target.shape)
        share = target.mean()
        expected = share * F.binary_cross_entropy_with_logits(logits, target, pos_weight=(1 - share) / share)
        torch.testing.assert_close(BalancedCrossEntropyLoss()(logits, target), expected)

    def test_share_is_of_pixels_that_count(self):
        target, mask = tree(), torch.ones(1, 1, 48, 48)
        mask[..., 20:] = 0
        logits = torch.randn(target.shape)
        inside = BalancedCrossEntropyLoss()(logits[..., :20], target[..., :20])
        torch.testing.assert_close(BalancedCrossEntropyLoss()(logits, target, mask=mask), inside)

    def test_false_positives_on_an_empty_target_cost_where_the_formula_gives_nothing(self):
        target = torch.zeros(1, 1, 8, 8)
        assert BalancedCrossEntropyLoss()(target + 3.0, target).item() == pytest.approx(math.log1p(math.exp(3)))


class TestCrossEntropy:
    def test_is_torch_s(self):
        logits, target = several()
        torch.testing.assert_close(CrossEntropyLoss()(logits, target), F.cross_entropy(logits, target.argmax(1)))

    def test_pixels_without_a_class_or_outside_the_mask_do_not_count(self):
        logits, target = several()
        mask = (torch.rand(2, 1, 24, 24) > 0.3).float()
        target[:, :, 3:9, 2:20] = 0
        classes = target.argmax(1)
        classes[(target.sum(1) == 0) | (mask[:, 0] == 0)] = -100
        torch.testing.assert_close(CrossEntropyLoss()(logits, target, mask=mask), F.cross_entropy(logits, classes))

    def test_needs_a_softmax(self):
        with pytest.raises(ConfigError, match="softmax"):
            CrossEntropyLoss(softmax=False)


class TestDice:
    def test_is_monai_s(self):
        target = torch.cat([tree(), tree().flip(3)]).expand(2, 3, 48, 48)
        logits = torch.randn(target.shape)
        for options in ({}, {"include_background": False}):
            theirs = DiceLoss(smooth_nr=1.0, smooth_dr=1.0, sigmoid=True, **options)(logits, target)
            torch.testing.assert_close(SoftDiceLoss(**options)(logits, target), theirs)

    def test_is_monai_s_with_a_softmax(self):
        logits, target = several()
        theirs = DiceLoss(smooth_nr=0.5, smooth_dr=0.5, softmax=True)(logits, target)
        torch.testing.assert_close(SoftDiceLoss(smooth=0.5, softmax=True)(logits, target), theirs)


class TestStructure:
    @staticmethod
    def reference(logits, target, weighted):
        """In numpy, image by image: the window mean by scipy, with zeros beyond the border."""
        values = []
        for image, mask in zip(logits[:, 0].double().numpy(), target[:, 0].double().numpy(), strict=True):
            mean = uniform_filter(mask, 31, mode="constant")
            weight = 1 + 5 * np.abs(mean - mask)
            entropy = np.log1p(np.exp(-np.abs(image))) + np.maximum(image, 0) - image * mask
            probability = 1 / (1 + np.exp(-image))
            overlap = (probability * mask * weight).sum()
            union = ((probability + mask) * weight).sum()
            share = (overlap + 1) / (union - overlap + 1)
            bce = (entropy * weight).sum() / weight.sum() if weighted else entropy.mean()
            values.append(bce + 1 - share)
        return float(np.mean(values))

    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("size", [12, 48])
    def test_against_an_independent_implementation(self, weighted, size):
        target = torch.cat([tree(max(size, 24)), tree(max(size, 24)).flip(3)])[..., :size, :size]
        logits = noisy_logits(target)
        value = StructureLoss(weighted=weighted)(logits, target).item()
        assert value == pytest.approx(self.reference(logits, target, weighted), rel=1e-5)

    def test_faithful_form_is_the_legacy_argument_s(self):
        """What the reference code computes with ``reduce="none"``: torch takes the string for a yes, to a mean."""
        target = tree()
        logits = noisy_logits(target)
        with pytest.warns(UserWarning, match="reduce"):
            entropy = F.binary_cross_entropy_with_logits(logits, target, reduce="none")
        assert entropy.ndim == 0
        weight = 1 + 5 * (F.avg_pool2d(target, 31, 1, 15) - target).abs()
        entropy = (weight * entropy).sum() / weight.sum()
        overlap, union = (
            (torch.sigmoid(logits) * target * weight).sum(),
            ((torch.sigmoid(logits) + target) * weight).sum(),
        )
        expected = entropy + 1 - (overlap + 1) / (union - overlap + 1)
        torch.testing.assert_close(StructureLoss()(logits, target), expected)
        assert (StructureLoss(weighted=True)(logits, target) - expected).abs() > 1e-4

    def test_masked_pixels_are_like_those_beyond_the_border(self):
        target = tree()
        logits = noisy_logits(target)
        mask = torch.ones(1, 1, 48, 48)
        mask[..., 30:] = 0
        for weighted in (False, True):
            loss = StructureLoss(weighted=weighted)
            torch.testing.assert_close(
                loss(logits, target, mask=mask), loss(logits[..., :30].contiguous(), target[..., :30].contiguous())
            )

    def test_window_of_a_volume_is_a_cube(self):
        target = torch.zeros(1, 1, 40, 8, 8)
        target[:, :, 20:] = 1
        weight = 1 + 5 * np.abs(uniform_filter(target[0, 0].numpy(), 31, mode="constant") - target[0, 0].numpy())
        half = torch.full_like(target, 0.5)
        overlap, union = 0.5 * (target[0, 0].numpy() * weight).sum(), ((half + target)[0, 0].numpy() * weight).sum()
        expected = math.log(2) + 1 - (overlap + 1) / (union - overlap + 1)
        assert StructureLoss()(torch.zeros_like(target), target).item() == pytest.approx(expected, rel=1e-4)
