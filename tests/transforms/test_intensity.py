"""Scaling of raw values against numbers worked out by hand."""

import json
import math

import numpy as np
import pytest

from topolora_monai.errors import ConfigError, DataError
from topolora_monai.transforms.intensity import IntensityScaling


def rayleigh(shape=(2, 40, 50), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).rayleigh(30.0, shape).astype(np.float32) + 1e-3


def percentile_by_hand(pixels, percent: float) -> float:
    """Linear interpolation between order statistics."""
    ranked = sorted(float(pixel) for pixel in pixels)
    position = percent / 100 * (len(ranked) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (position - below) * (ranked[above] - ranked[below])


class TestLimits:
    @pytest.mark.parametrize(("pixel_values", "factor"), [("amplitude", 20), ("intensity", 10)])
    def test_are_percentiles_in_decibels_of_each_channel(self, pixel_values, factor):
        image = rayleigh()
        found = IntensityScaling(pixel_values, (2, 97)).limits(image)
        for channel, limits in zip(image, found, strict=True):
            decibels = [factor * math.log10(value) for value in channel.ravel()]
            expected = [percentile_by_hand(decibels, 2), percentile_by_hand(decibels, 97)]
            np.testing.assert_allclose(limits, expected, rtol=1e-5)
        assert found.shape == (2, 2)
        assert found.dtype == np.float64
        assert found[0, 0] != found[1, 0]

    @pytest.mark.parametrize("pixel_values", ["linear", "db"])
    def test_take_other_values_as_they_are(self, pixel_values):
        image = rayleigh((1, 20, 20)) - 50
        expected = [[percentile_by_hand(image.ravel(), 1), percentile_by_hand(image.ravel(), 99)]]
        np.testing.assert_allclose(IntensityScaling(pixel_values).limits(image), expected, rtol=1e-6)

    def test_leave_invalid_pixels_out(self):
        image = rayleigh()
        valid = np.zeros(image.shape[1:], bool)
        valid[5:20, 7:30] = True
        spoilt = np.where(valid, image, 1e6)
        scaling = IntensityScaling("intensity")
        np.testing.assert_array_equal(scaling.limits(spoilt, valid), scaling.limits(image[:, 5:20, 7:30]))

    def test_leave_out_what_has_no_number_or_no_logarithm(self):
        image = rayleigh((1, 20, 20))
        spoilt = np.concatenate([image, np.full((1, 20, 20), np.nan, np.float32)], axis=2)
        spoilt[0, :5, 20:] = 0
        spoilt[0, 5:10, 20:] = -3
        spoilt[0, 10:15, 20:] = np.inf
        scaling = IntensityScaling("amplitude")
        np.testing.assert_array_equal(scaling.limits(spoilt), scaling.limits(image))

    def test_of_no_valid_pixel_are_zero_and_one_in_that_channel_only(self):
        image = rayleigh()
        image[1] = 0
        found = IntensityScaling("amplitude").limits(image)
        assert found[1].tolist() == [0, 1]
        assert found[0, 0] > 1
        assert IntensityScaling().limits(image, np.zeros(image.shape[1:], bool)).tolist() == [[0, 1], [0, 1]]

    def test_are_the_given_range_whatever_the_image(self):
        assert IntensityScaling("db", value_range=(-25, 0)).limits(rayleigh()).tolist() == [[-25, 0], [-25, 0]]

    def test_refuse_a_mask_of_another_shape(self):
        with pytest.raises(DataError, match=r"\(40, 50\)"):
            IntensityScaling().limits(rayleigh(), np.ones((50, 40), bool))


class TestApply:
    def test_scales_linearly_between_the_limits_and_clips(self):
        values = np.array([[-100.0, -20.0, -15.0, -2.5, 0.0, 7.0]], np.float32)
        scaled = IntensityScaling("db").apply(values, [[-20, 0]])
        np.testing.assert_allclose(scaled, [[0, 0, 0.25, 0.875, 1, 1]], rtol=1e-6)
        assert scaled.dtype == np.float32

    def test_uses_each_channels_own_limits(self):
        values = np.array([[5.0], [5.0]], np.float32)
        assert IntensityScaling().apply(values, [[0, 10], [5, 6]]).tolist() == [[0.5], [0.0]]

    @pytest.mark.parametrize("pixel_values", ["linear", "amplitude", "intensity", "db"])
    def test_makes_what_is_no_number_zero(self, pixel_values):
        values = np.array([[np.nan, np.inf, -np.inf, 100.0]], np.float32)
        assert IntensityScaling(pixel_values).apply(values, [[-5, 5]]).tolist() == [[0, 0, 0, 1]]

    def test_makes_what_has_no_logarithm_zero_even_below_a_low_limit(self):
        values = np.array([[0.0, -1.0, 1.0]], np.float32)
        assert IntensityScaling("intensity").apply(values, [[-1, 1]]).tolist() == [[0, 0, 0.5]]

    def test_of_a_constant_image_is_zero(self):
        assert IntensityScaling("amplitude")(np.full((2, 4, 4), 0.1, np.float32)).max() == 0

    def test_of_equal_limits_is_a_step(self):
        assert IntensityScaling().apply(np.float32([[1, 2, 3]]), [[2, 2]]).tolist() == [[0, 0, 1]]

    def test_takes_integers_and_leaves_its_input_alone(self):
        values = np.array([[[0, 100], [1000, 65535]]], np.uint16)
        before = values.copy()
        expected = np.log10([100, 100, 1000, 65535]).reshape(1, 2, 2) - 2
        scaled = IntensityScaling("amplitude", (0, 100))(values)
        np.testing.assert_allclose(scaled, expected / expected.max(), atol=1e-6)
        np.testing.assert_array_equal(values, before)

    def test_of_parts_equals_parts_of_the_whole(self):
        image, scaling = rayleigh(), IntensityScaling("intensity")
        limits = scaling.limits(image)
        np.testing.assert_array_equal(scaling.apply(image[:, 8:16], limits), scaling.apply(image, limits)[:, 8:16])

    def test_refuses_limits_of_another_number_of_channels(self):
        with pytest.raises(DataError, match="channels"):
            IntensityScaling().apply(rayleigh(), [[0, 1]])


class TestInvariance:
    def test_intensity_of_squared_amplitude_equals_amplitude(self):
        amplitude = rayleigh()
        np.testing.assert_allclose(
            IntensityScaling("intensity")(amplitude**2), IntensityScaling("amplitude")(amplitude), atol=1e-5
        )

    def test_decibels_equal_the_amplitude_they_were_made_from(self):
        amplitude = rayleigh()
        np.testing.assert_allclose(
            IntensityScaling("db")(20 * np.log10(amplitude)), IntensityScaling("amplitude")(amplitude), atol=1e-5
        )

    def test_a_gain_on_amplitude_changes_nothing_under_percentiles(self):
        amplitude, scaling = rayleigh(), IntensityScaling("amplitude")
        np.testing.assert_allclose(scaling(amplitude * 37.5), scaling(amplitude), atol=1e-5)

    def test_a_gain_does_change_a_calibrated_image(self):
        amplitude, scaling = rayleigh(), IntensityScaling("amplitude", value_range=(0, 60))
        np.testing.assert_allclose(
            scaling(amplitude * 10).clip(1 / 3, 1), (scaling(amplitude) + 1 / 3).clip(1 / 3, 1), atol=1e-5
        )


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"pixel_values": "power"}, "pixel_values"),
            ({"percentiles": (99, 1)}, "percentiles"),
            ({"percentiles": (-1, 99)}, "percentiles"),
            ({"percentiles": (1, 101)}, "percentiles"),
            ({"percentiles": (5,)}, "percentiles"),
            ({"percentiles": None}, "percentiles"),
            ({"value_range": (3, 3)}, "value_range"),
            ({"value_range": (math.nan, 3)}, "value_range"),
            ({"value_range": ("low", "high")}, "value_range"),
        ],
    )
    def test_impossible_ones_are_refused_by_name(self, settings, named):
        with pytest.raises(ConfigError, match=named):
            IntensityScaling(**settings)

    @pytest.mark.parametrize(
        "scaling",
        [IntensityScaling(), IntensityScaling("amplitude", (0.5, 98)), IntensityScaling("db", value_range=(-30, 0))],
    )
    def test_survive_json(self, scaling):
        assert IntensityScaling(**json.loads(json.dumps(scaling.to_dict()))) == scaling
