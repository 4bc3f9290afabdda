"""Several classes: decisions and scores with answers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from topolora_monai.metrics import (
    OverlapScores,
    PooledDice,
    class_counts,
    class_indices,
    class_masks,
    predicted_masks,
    to_16_bit,
)
from topolora_monai.reports.class_scores import ClassScores

# Four pixels: background, cup, cup, window; answered cup, cup, window, window.
PROBABILITY = torch.tensor([[0.6, 0.7, 0.2, 0.1], [0.1, 0.2, 0.5, 0.8]]).view(2, 1, 4)
LABEL = torch.tensor([[0.0, 1, 1, 0], [0, 0, 0, 1]]).view(2, 1, 4)
FOV = torch.tensor([0.0, 1, 1, 1]).view(1, 1, 4)


class TestDecision:
    def test_most_probable_of_all(self):
        stored = to_16_bit(torch.tensor([[0.4, 0.2, 0.0, 0.34], [0.3, 0.3, 0.9, 0.33]])).numpy().astype(np.uint16)
        assert class_indices(stored).tolist() == [1, 0, 2, 1]
        assert class_indices(stored).dtype == np.uint8

    def test_background_of_equals(self):
        assert class_indices(np.uint16([[32768], [0]])).tolist() == [0]
        assert class_indices(np.uint16([[20000], [20000]])).tolist() == [0]
        assert class_indices(np.uint16([[30000], [30000]])).tolist() == [1]

    def test_certain_probability_does_not_overflow(self):
        assert class_indices(np.full((3, 2), 65535, np.uint16)).tolist() == [1, 1]

    def test_masks_with_and_without_a_threshold(self):
        expected = [[[True, True, False, False]], [[False, False, True, True]]]
        assert predicted_masks(PROBABILITY, None).tolist() == expected
        assert predicted_masks(PROBABILITY, 0.15).tolist() == [[[True] * 3 + [False]], [[False, True, True, True]]]

    def test_masks_of_numbers(self):
        assert class_masks(np.uint8([[0, 3], [1, 3]]), 3).astype(int).sum(axis=(1, 2)).tolist() == [1, 0, 2]


class TestClassCounts:
    def test_by_hand(self):
        counts = class_counts(predicted_masks(PROBABILITY, None), LABEL)
        cup, window = (OverlapScores.of_counts(*row) for row in counts.tolist())
        assert (cup.dice, cup.iou, cup.precision, cup.recall) == (0.5, 1 / 3, 0.5, 0.5)
        assert (window.dice, window.iou, window.precision, window.recall) == (2 / 3, 0.5, 0.5, 1)
        counts += class_counts(predicted_masks(PROBABILITY, None), LABEL, FOV)
        assert OverlapScores.of_counts(*counts[0].tolist()).precision == 2 / 3

    def test_shapes(self):
        with pytest.raises(ValueError, match="differ in shape"):
            class_counts(np.zeros((3, 4), bool), torch.zeros(2, 4))


class TestPooledDice:
    def test_exclusive_classes(self):
        metric = PooledDice("softmax")
        metric(y_pred=[PROBABILITY], y=[LABEL])
        assert metric.aggregate().item() == pytest.approx((1 / 2 + 2 / 3) / 2)
        metric(y_pred=[PROBABILITY], y=[torch.cat([LABEL, FOV])])
        cup, window = 2 * 2 / (2 * 2 + 1 + 2), 2 * 2 / (2 * 2 + 2 + 0)
        assert metric.best() == (pytest.approx((cup + window) / 2), 0.5)
        assert metric.of_images()[0] == pytest.approx((1 / 2 + 2 / 3) / 2)

    def test_class_that_is_nowhere_is_left_out(self):
        metric = PooledDice("softmax")
        metric(y_pred=[torch.tensor([[[0.9]], [[0.0]]])], y=[torch.tensor([[[1.0]], [[0.0]]])])
        assert metric.aggregate().item() == 1

    def test_overlapping_classes_share_a_threshold(self):
        """Above 0.3 and below 0.8 all is right for one class, for the other between 0.1 and 0.4."""
        first, second = torch.tensor([[[0.8, 0.3]]]), torch.tensor([[[0.4, 0.1]]])
        metric = PooledDice()
        metric(y_pred=[torch.cat([first, second])], y=[torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])])
        dice, threshold = metric.best()
        assert dice == 1
        assert 0.3 < threshold <= 0.4

    def test_softmax_of_one_class_has_a_threshold(self):
        metric = PooledDice("softmax")
        metric(y_pred=[torch.tensor([[[0.3, 0.1]]])], y=[torch.tensor([[[1.0, 0.0]]])])
        assert metric.best() == (1.0, 0.29)  # 0.3 is stored a little lower


class TestClassScores:
    def test_each_class_and_the_mean(self):
        scores = ClassScores(["background", "cup", "window"], "softmax")
        scores.add(PROBABILITY, LABEL)
        summary = scores.summary()
        assert summary["iou"] == pytest.approx((1 / 3 + 1 / 2) / 2)
        assert summary["classes"]["window"] == pytest.approx(
            {"dice": 2 / 3, "iou": 0.5, "precision": 0.5, "recall": 1.0}
        )
        assert scores.best_threshold() == 0.5
        assert scores.row(0.5)["iou_cup"] == pytest.approx(1 / 3)

    def test_overlapping(self):
        scores = ClassScores(["background", "cup", "window"])
        scores.add(PROBABILITY, LABEL, FOV)
        summary = scores.summary(0.5)
        assert summary["classes"]["cup"]["recall"] == 0.5
        assert summary["classes"]["cup"]["auc"] == 1
        assert summary["threshold"] == 0.5

    def test_merged_images_are_pooled(self):
        whole, parts = (ClassScores(["background", "cup", "window"], "softmax") for _ in range(2))
        whole.add(PROBABILITY, LABEL)
        for columns in (slice(0, 2), slice(2, 4)):
            part = ClassScores(["background", "cup", "window"], "softmax")
            part.add(PROBABILITY[..., columns], LABEL[..., columns])
            parts.merge(part)
        assert parts.summary() == whole.summary()

    def test_nothing_seen(self):
        assert math.isnan(ClassScores(["background", "cup", "window"], "softmax").summary()["dice"])
