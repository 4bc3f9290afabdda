"""Scores by hand, against MONAI and an exact rank statistic, and at the edges."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric, compute_roc_auc
from skimage.morphology import skeletonize

from topolora_monai.metrics import PooledDice, ThresholdCurve, cldice


def curve_of(probability, target, mask=None):
    curve = ThresholdCurve()
    curve.add(torch.as_tensor(probability), torch.as_tensor(target), None if mask is None else torch.as_tensor(mask))
    return curve


class TestThresholdCurve:
    def test_by_hand(self):
        scores = curve_of([0.9, 0.8, 0.5, 0.4, 0.1, 0.2], [1, 0, 1, 1, 0, 0]).scores(0.5)
        assert (scores.precision, scores.recall) == (2 / 3, 2 / 3)
        assert (scores.dice, scores.iou) == (2 / 3, 0.5)

    def test_equal_to_threshold_is_foreground(self):
        assert curve_of([0.5], [1]).scores(0.5).recall == 1
        assert curve_of([0.25], [1]).scores(0.25).recall == 1
        assert curve_of([0.25 - 1e-4], [1]).scores(0.25).recall == 0

    def test_pools_images_and_merges(self):
        p, t = torch.rand(500), (torch.rand(500) > 0.6).float()
        whole, left, right = curve_of(p, t), curve_of(p[:200], t[:200]), curve_of(p[200:], t[200:])
        left.merge(right)
        assert left.scores(0.37) == whole.scores(0.37)
        assert left.auc() == whole.auc()

    def test_dice_agrees_with_monai(self):
        p, t = torch.rand(1, 1, 40, 30), (torch.rand(1, 1, 40, 30) > 0.7).float()
        expected = DiceMetric()(y_pred=(p >= 0.5).float(), y=t).item()
        assert curve_of(p, t).scores(0.5).dice == pytest.approx(expected, abs=1e-4)

    def test_auc_agrees_with_monai_and_counts_ties_half(self):
        t = (torch.rand(2000) > 0.8).float()
        p = (0.3 * t + 0.7 * torch.rand(2000)).clamp(0, 1)
        assert curve_of(p, t).auc() == pytest.approx(compute_roc_auc(p, t), abs=1e-3)
        assert curve_of([0.5, 0.5, 0.5, 0.5], [1, 0, 1, 0]).auc() == 0.5
        assert curve_of([0.1, 0.9], [1, 0]).auc() == 0

    def test_only_the_mask_counts(self):
        p, t = torch.rand(100), (torch.rand(100) > 0.5).float()
        mask = torch.zeros(100)
        mask[:50] = 1
        other = torch.cat([p[:50], 1 - p[50:]])
        assert curve_of(p, t, mask).scores(0.5) == curve_of(other, t, mask).scores(0.5)
        assert curve_of(p, t, mask).scores(0.5) == curve_of(p[:50], t[:50]).scores(0.5)

    def test_best_threshold_is_best(self):
        t = (torch.rand(3000) > 0.8).float()
        p = (0.25 * t + 0.5 * torch.rand(3000)).clamp(0, 1)
        curve = curve_of(p, t)
        best = curve.best_threshold()
        dices = [curve.scores(k / 100).dice for k in range(1, 100)]
        assert curve.scores(best).dice == max(dices) > curve.scores(0.5).dice

    def test_undefined_is_nan(self):
        empty = curve_of([0.1, 0.2], [0, 0])
        assert math.isnan(empty.scores(0.5).dice)
        assert math.isnan(empty.auc())
        assert empty.scores(0.15).dice == 0
        assert curve_of([0.9, 0.8], [1, 1]).scores(0.5).dice == 1
        assert empty.best_threshold() == pytest.approx(0.19)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="lie in"):
            curve_of([1.5], [1])
        with pytest.raises(ValueError, match="lie in"):
            curve_of([float("nan")], [1])
        with pytest.raises(ValueError, match="size"):
            curve_of([0.5, 0.5], [1])

    def test_half_precision_probabilities(self):
        p, t = torch.rand(1000), (torch.rand(1000) > 0.5).float()
        assert curve_of(p.half(), t).scores(0.5).dice == pytest.approx(curve_of(p, t).scores(0.5).dice, abs=5e-3)


class TestPooledDice:
    def test_pools_over_images_inside_the_field_of_view(self):
        metric, curve = PooledDice(), ThresholdCurve()
        for seed in range(3):
            generator = torch.Generator().manual_seed(seed)
            p, t, fov = (torch.rand(1, 20, 20, generator=generator) for _ in range(3))
            t, fov = (t > 0.8).float(), (fov > 0.3).float()
            metric(y_pred=[p], y=[torch.cat([t, fov])])
            curve.add(p, t, fov)
        assert metric.aggregate().item() == pytest.approx(curve.scores(curve.best_threshold()).dice)
        last = ThresholdCurve()
        last.add(p, t, fov)
        assert len(metric.of_images()) == 3
        assert metric.of_images()[-1] == pytest.approx(last.scores(curve.best_threshold()).dice)
        metric.reset()
        with pytest.raises(ValueError, match="no image"):
            metric.best()


class TestClDice:
    def test_broken_line_costs_more_than_dice_says(self):
        line = np.zeros((40, 40), bool)
        line[19:22, 2:38] = True
        broken = line.copy()
        broken[:, 18:22] = False
        assert cldice(line, line) == 1
        assert cldice(broken, line) < 1

    def test_by_hand(self):
        truth, prediction = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
        truth[10, 2:12] = True
        prediction[10, 7:17] = True  # 5 of 10 pixels shared, both are their own skeletons
        assert skeletonize(truth).sum() == 10
        assert cldice(prediction, truth) == pytest.approx(0.5)

    def test_thickness_does_not_matter(self):
        thin, thick = np.zeros((30, 60), bool), np.zeros((30, 60), bool)
        thin[15, 5:55] = True
        thick[13:18, 3:57] = True
        assert cldice(thin, thick) > 0.97

    def test_edges(self):
        empty, full = np.zeros((8, 8), bool), np.ones((8, 8), bool)
        assert math.isnan(cldice(empty, empty))
        assert cldice(empty, full) == 0
        assert cldice(full, empty) == 0
        mask = np.zeros((8, 8), bool)
        assert math.isnan(cldice(full, full, mask))

    def test_flips_do_not_matter_for_lines(self):
        rng = np.random.default_rng(0)
        a, b = rng.random((30, 30)) > 0.6, rng.random((30, 30)) > 0.6
        assert cldice(a.T, b.T) == pytest.approx(cldice(a, b), abs=0.1)

    def test_shapes_must_agree(self):
        with pytest.raises(ValueError, match="differ in shape"):
            cldice(np.zeros((3, 3)), np.zeros((3, 4)))
