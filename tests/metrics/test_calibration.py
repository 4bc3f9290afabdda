"""Calibration by hand and against sums over all pixels; temperatures against those that made the data."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from topolora_monai.metrics import PooledDice, ThresholdCurve
from topolora_monai.metrics.calibration import (
    apply_temperature,
    fit_temperature,
    reliability_diagram,
)


def error_over_pixels(claimed, right, bins):
    """The definition, bin by bin."""
    total = 0.0
    for k in range(bins):
        chosen = (claimed >= k / bins) & ((claimed < (k + 1) / bins) | (k == bins - 1))
        if chosen.any():
            total += chosen.sum() * abs(claimed[chosen].mean() - right[chosen].mean())
    return total / len(claimed)


def counted(p, y):
    curve = ThresholdCurve()
    curve.add(p, y)
    return curve


def at_levels(p):
    """In the middle of 16-bit levels, where counts are exact."""
    return (p.double() * 65536).floor().clamp(max=65535).add(0.5) / 65536


class TestReliability:
    @pytest.mark.parametrize("bins", [1, 10, 15])
    def test_agrees_with_the_definition_inside_the_mask(self, bins):
        p = at_levels(torch.rand(2, 1, 40, 50))
        y, inside = (torch.rand_like(p) < p**2).double(), torch.rand(2, 1, 40, 50) > 0.4
        curve = ThresholdCurve()
        for one, true, mask in zip(p, y, inside, strict=True):
            curve.add(one, true, mask)
        claimed, true = p[inside].numpy(), y[inside].numpy()
        diagram = reliability_diagram(curve, bins)
        assert diagram.expected_error == pytest.approx(error_over_pixels(claimed, true, bins), abs=1e-9)
        assert diagram.brier == pytest.approx(((claimed - true) ** 2).mean(), abs=1e-9)

    def test_bins(self):
        p, y = torch.tensor([0.1, 0.15, 0.9, 1.0]), torch.tensor([0.0, 1.0, 1.0, 1.0])
        diagram = reliability_diagram(counted(p, y), bins=5)
        assert diagram.counts.tolist() == [2, 0, 0, 0, 2]
        assert diagram.confidence[[0, 4]] == pytest.approx([0.125, 0.95], abs=1e-4)
        assert diagram.accuracy[[0, 4]].tolist() == [0.5, 1.0]
        assert math.isnan(diagram.confidence[2])
        assert diagram.expected_error == pytest.approx((0.375 + 0.05) / 2, abs=1e-4)

    def test_nothing_counts(self):
        diagram = reliability_diagram(ThresholdCurve())
        assert math.isnan(diagram.expected_error)
        assert math.isnan(diagram.brier)


class TestTemperature:
    @pytest.mark.parametrize("made_with", [0.5, 1.0, 2.5])
    def test_finds_the_one_that_made_the_data(self, made_with):
        logits = torch.randn(200_000) * 2
        y = (torch.rand(200_000) < logits.sigmoid()).float()
        p = (logits * made_with).sigmoid()
        found = fit_temperature(counted(p, y))
        assert found == pytest.approx(made_with, rel=0.02)
        errors = [reliability_diagram(counted(q, y)).expected_error for q in (p, apply_temperature(p, found))]
        assert errors[1] < 0.01
        assert made_with == 1 or errors[1] < errors[0] / 3

    def test_is_least_on_the_pixels_themselves(self):
        logits = torch.randn(5000) * 3
        y = (torch.rand(5000) < (logits / 2).sigmoid()).float()
        curve = counted(logits.sigmoid(), y)
        losses = {t: F.binary_cross_entropy_with_logits(logits / t, y).item() for t in np.linspace(1, 4, 301)}
        assert fit_temperature(curve) == pytest.approx(min(losses, key=losses.get), abs=0.011)

    def test_classes_share_one(self):
        first, second = (counted(torch.rand(300), (torch.rand(300) > 0.5).float()) for _ in range(2))
        both = ThresholdCurve()
        both.merge(first)
        both.merge(second)
        assert fit_temperature([first, second]) == fit_temperature(both)

    def test_apply(self):
        logits = torch.linspace(-8, 8, 33, dtype=torch.float64)
        torch.testing.assert_close(apply_temperature(logits.sigmoid(), 1.7), (logits / 1.7).sigmoid())
        assert apply_temperature(torch.tensor([0.0, 1.0]), 3.0).tolist() == [0, 1]
        assert apply_temperature(torch.tensor([0.3]).half(), 2.0).dtype == torch.float16

    def test_order_of_pixels_stays(self):
        p, y = torch.rand(500), (torch.rand(500) > 0.7).float()
        assert counted(apply_temperature(p, 3.0), y).auc() == pytest.approx(counted(p, y).auc(), abs=1e-3)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="both"):
            fit_temperature(counted(torch.rand(5), torch.ones(5)))
        with pytest.raises(ValueError, match="no counts"):
            fit_temperature([])
        with pytest.raises(ValueError, match="above 0"):
            apply_temperature(torch.rand(3), 0.0)


class TestPooledDice:
    def test_pooled_dice_fits_the_same_temperature(self):
        generator = torch.Generator().manual_seed(4)
        logits = 3 * torch.randn(2, 2, 30, 30, generator=generator)
        target = (torch.rand(2, 2, 30, 30, generator=generator) < (logits / 3).sigmoid()).float()
        metric, curves = PooledDice(), [ThresholdCurve(), ThresholdCurve()]
        for p, true in zip(logits.sigmoid(), target, strict=True):
            metric(y_pred=[p], y=[true])
            for curve, one, truth in zip(curves, p, true, strict=True):
                curve.add(one, truth)
        assert metric.temperature() == pytest.approx(fit_temperature(curves))
        assert metric.temperature() == pytest.approx(3, rel=0.15)

    @pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
    def test_no_temperature_where_none_can_be_told(self, activation):
        metric = PooledDice(activation)
        metric(y_pred=[torch.full((2, 4, 4), 0.3)], y=[torch.zeros(2, 4, 4)])
        assert metric.temperature() == 1.0
