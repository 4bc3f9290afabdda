"""Intervals and tests with known answers."""

import math

import numpy as np
import pytest
from scipy import stats

from topolora_monai.metrics.statistics import Interval, bootstrap_interval, paired_test


class TestBootstrapInterval:
    def test_mean_of_many_is_the_normal_interval(self):
        values = np.random.default_rng(0).normal(0.8, 0.05, 400)
        interval = bootstrap_interval(values)
        half = 1.959964 * values.std(ddof=1) / 20
        assert interval.value == pytest.approx(values.mean())
        assert interval.low == pytest.approx(values.mean() - half, abs=0.06 * half)
        assert interval.high == pytest.approx(values.mean() + half, abs=0.06 * half)

    def test_seed_decides(self):
        values = np.random.default_rng(1).random(12)
        assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
        assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)

    def test_level_widens(self):
        values = np.random.default_rng(1).random(20)
        narrow, wide = (bootstrap_interval(values, level=level) for level in (0.8, 0.99))
        assert wide.low < narrow.low < narrow.high < wide.high

    def test_covers_as_often_as_it_says(self):
        rng, covered = np.random.default_rng(0), 0
        for _ in range(200):
            interval = bootstrap_interval(rng.normal(size=40), resamples=500)
            covered += interval.low <= 0 <= interval.high
        assert 0.89 <= covered / 200 <= 0.985

    def test_pooled_dice_resamples_images(self):
        counts = np.array([[90, 10, 10], [10, 40, 50], [30, 5, 15], [60, 20, 0], [5, 5, 5]])
        interval = bootstrap_interval(counts, "dice", resamples=4000, seed=2)
        hits, alarms, missed = counts.sum(axis=0)
        assert interval.value == pytest.approx(2 * hits / (2 * hits + alarms + missed))
        drawn = counts[np.random.default_rng(5).integers(0, 5, (20000, 5))].sum(axis=1)
        pooled = 2 * drawn[:, 0] / (2 * drawn[:, 0] + drawn[:, 1] + drawn[:, 2])
        spread = np.quantile(pooled, 0.975) - np.quantile(pooled, 0.025)
        assert interval.high - interval.low == pytest.approx(spread, rel=0.35)
        assert bootstrap_interval(counts, "iou", resamples=50).value == pytest.approx(hits / (hits + alarms + missed))

    def test_counts_of_an_image_stay_together(self):
        """Images of very different sizes, each with the same Dice: whichever are drawn, the pooled one is that."""
        counts = np.array([[8, 1, 3]]) * np.array([[1], [10], [100], [1000]])
        interval = bootstrap_interval(counts, "dice", resamples=500)
        assert (interval.low, interval.high) == pytest.approx((0.8, 0.8))

    def test_function_of_columns(self):
        table = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]])
        ratio = bootstrap_interval(table, lambda a, b, axis: a.sum(axis) / b.sum(axis), resamples=200)
        assert ratio.value == pytest.approx(9 / 15)

    def test_edges(self):
        assert bootstrap_interval([0.5, 0.5, 0.5]) == Interval(0.5, 0.5, 0.5)
        assert bootstrap_interval([0.1, math.nan, 0.3], "median", resamples=50).value == pytest.approx(0.2)
        single, none = bootstrap_interval([0.7]), bootstrap_interval([math.nan])
        assert single.value == 0.7
        assert math.isnan(single.low) and math.isnan(none.value)

    @pytest.mark.parametrize(
        ("values", "options"),
        [([1, 2], {"statistic": "best"}), ([1, 2], {"statistic": "dice"}), ([1, 2], {"level": 1.0})],
    )
    def test_bad_settings(self, values, options):
        with pytest.raises(ValueError):
            bootstrap_interval(values, **options)


class TestPairedTest:
    def test_known_answer(self):
        """Of six differences without ties the one negative has rank 1: W = 1, so 2 * 2 / 2**6 by counting."""
        second = np.zeros(6)
        test = paired_test([0.2, 0.3, 0.4, 0.5, 0.6, -0.1], second)
        assert test.p_value == pytest.approx(4 / 64)
        assert test.effect_size == pytest.approx((20 - 1) / 21)
        assert (test.images, test.better, test.worse) == (6, 5, 1)
        assert test.difference == pytest.approx(1.9 / 6)
        assert test.low < test.difference < test.high

    def test_swapped(self):
        one, other = np.random.default_rng(0).random((2, 15))
        there, back = paired_test(one, other), paired_test(other, one)
        assert there.effect_size == pytest.approx(-back.effect_size)
        assert there.p_value == pytest.approx(back.p_value) == pytest.approx(stats.wilcoxon(one, other).pvalue)

    def test_equal_runs(self):
        test = paired_test([0.5, 0.6, 0.7], [0.5, 0.6, 0.7])
        assert (test.p_value, test.effect_size, test.low, test.high) == (1.0, 0.0, 0.0, 0.0)

    def test_pairs_that_are_not_defined(self):
        assert paired_test([0.5, math.nan, 0.7], [0.4, 0.1, math.nan]).images == 1

    def test_shapes(self):
        with pytest.raises(ValueError, match="same images"):
            paired_test([1, 2], [1])
