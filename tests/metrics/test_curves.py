"""Average precision against scikit-learn on quantised probabilities, clDice at thresholds against the single score."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from topolora_monai.metrics import (
    ClDiceCurveMetric,
    ThresholdCurve,
    average_precision,
    cldice,
    predicted_masks,
    to_16_bit,
)


def counted(p, y):
    curve = ThresholdCurve()
    curve.add(p, y)
    return curve


def cases():
    generator = torch.Generator().manual_seed(0)
    for levels in (3, 50, 65536):
        for rate in (0.02, 0.5):
            p = torch.rand(3000, generator=generator, dtype=torch.float64)
            y = (torch.rand(3000, generator=generator) < rate * (0.5 + p)).double()
            yield (p * levels).floor() / levels, y


class TestAgainstScikitLearn:
    @pytest.mark.parametrize(("p", "y"), list(cases()))
    def test_areas(self, p, y):
        metrics = pytest.importorskip("sklearn.metrics")
        curve, rounded = counted(p, y), to_16_bit(p.float()).numpy() / 65536
        assert average_precision(curve) == pytest.approx(metrics.average_precision_score(y, rounded), abs=1e-6)
        assert curve.auc() == pytest.approx(metrics.roc_auc_score(y, rounded), abs=1e-6)


class TestAveragePrecision:
    def test_by_hand(self):
        curve = counted(torch.tensor([0.75, 0.75, 0.5, 0.25]), torch.tensor([1.0, 0.0, 1.0, 0.0]))
        assert average_precision(curve) == pytest.approx((1 / 2 + 2 / 3) / 2)

    def test_absent_foreground(self):
        curve = counted(torch.rand(9), torch.zeros(9))
        assert math.isnan(average_precision(curve))
        assert math.isnan(average_precision(ThresholdCurve()))


@pytest.fixture
def scenes():
    rng = np.random.default_rng(0)
    fields = [gaussian_filter(rng.standard_normal((40, 50)), 2) for _ in range(3)]
    y = np.stack([field > np.quantile(field, 0.8) for field in fields])[:, None]
    p = np.clip(0.6 * y + 0.5 * rng.random(y.shape), 0, 1) * 0.6
    mask = rng.random(y.shape) > 0.1
    return tuple(torch.from_numpy(a.astype(np.float64)) for a in (p, y, mask))


class TestClDiceCurve:
    def test_each_is_the_single_score(self, scenes):
        p, y, mask = scenes
        metric = ClDiceCurveMetric([0.2, 0.35, 0.5])
        metric(y_pred=p, y=y, mask=mask)
        values = metric.get_buffer()
        for image in range(3):
            for k, threshold in enumerate(metric.thresholds):
                answer = predicted_masks(p[image], threshold)[0]  # at 16 bits, as masks are made
                expected = cldice(answer, y[image, 0].numpy(), mask[image, 0].numpy())
                assert values[image, 0, k].item() == pytest.approx(expected, abs=1e-12)
        torch.testing.assert_close(metric.aggregate(), values.mean(dim=0))
        assert metric.best_threshold() == metric.thresholds[values.mean(dim=0)[0].argmax()]

    def test_lists_with_the_mask_as_a_channel(self, scenes):
        p, y, mask = scenes
        one, other = ClDiceCurveMetric([0.3]), ClDiceCurveMetric([0.3])
        one(y_pred=p, y=y, mask=mask)
        other(y_pred=list(p), y=list(torch.cat([y, mask], dim=1)))
        torch.testing.assert_close(one.get_buffer(), other.get_buffer())

    def test_empty(self):
        metric = ClDiceCurveMetric([0.5, 0.9])
        metric(y_pred=torch.full((1, 1, 5, 5), 0.6), y=torch.zeros(1, 1, 5, 5))
        assert metric.get_buffer()[0, 0, 0] == 0
        assert metric.get_buffer()[0, 0, 1].isnan()

    def test_bad_input(self):
        for thresholds in ([], [0.0], [0.5, 1.0]):
            with pytest.raises(ValueError, match="thresholds"):
                ClDiceCurveMetric(thresholds)
        with pytest.raises(ValueError, match="differ"):
            ClDiceCurveMetric()(y_pred=torch.rand(1, 1, 4, 4), y=torch.rand(1, 1, 4, 5))


def test_best_threshold_by_dice_and_by_cldice():
    """A thick halo of 0.4 costs Dice much and clDice nothing; half of the line is only found with it."""
    line = torch.zeros(1, 1, 21, 40)
    line[:, :, 10, 2:38] = 1
    halo = torch.zeros_like(line)
    halo[:, :, 9:12, 2:38] = 1
    p = 0.05 + 0.37 * halo
    p[:, :, 10, 2:20] = 0.9
    metric = ClDiceCurveMetric()
    metric(y_pred=p, y=line)
    assert metric.best_threshold() <= 0.42
    assert counted(p, line).best_threshold() > 0.42
