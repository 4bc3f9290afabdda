"""Speckle against its law, the refined Lee filter against a pixel-by-pixel one."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.ndimage import uniform_filter

from topolora_monai.errors import ConfigError
from topolora_monai.transforms.speckle import RandSpeckled, RefinedLeed


def grey(value=0.1, shape=(1, 200, 200)) -> torch.Tensor:
    return torch.full(shape, value)


def speckled(image, seed=0, **kwargs) -> torch.Tensor:
    return RandSpeckled("image", prob=1, **kwargs).set_random_state(seed)({"image": image})["image"]


class TestSpeckleLaw:
    @pytest.mark.parametrize("looks", [1, 3.5, 12])
    def test_intensity_is_gamma_distributed_with_mean_one(self, looks):
        factor = speckled(grey(0.01), looks=looks).numpy().ravel() / 0.01
        assert stats.kstest(factor, stats.gamma(looks, scale=1 / looks).cdf).pvalue > 0.01
        assert factor.mean() == pytest.approx(1, abs=4 / math.sqrt(looks * factor.size))

    def test_amplitude_is_its_square_root(self):
        amplitude = speckled(grey(0.1), looks=1, pixel_values="amplitude").numpy().ravel()
        rayleigh = stats.rayleigh(scale=0.1 / math.sqrt(2))  # single-look amplitude of mean power 0.01
        assert stats.kstest(amplitude, rayleigh.cdf).pvalue > 0.01

    @pytest.mark.parametrize("db_range", [25.0, "limits"])
    def test_decibels_are_those_of_the_speckled_intensity(self, db_range):
        transform = RandSpeckled("image", prob=1, looks=4, pixel_values="db", db_range=db_range)
        item = {"image": grey(0.6), "limits": np.array([[-30.0, -5.0]])}
        decibels = transform.set_random_state(0)(item)["image"].numpy().ravel() * 25 - 30
        factor = 10 ** ((decibels - (0.6 * 25 - 30)) / 10)
        assert stats.kstest(factor, stats.gamma(4, scale=1 / 4).cdf).pvalue > 0.01

    def test_every_channel_has_its_own_range_of_decibels(self):
        transform = RandSpeckled("image", prob=1, looks=4, pixel_values="db", db_range="limits")
        image = torch.stack([torch.full((200, 200), 0.5), torch.full((200, 200), 0.4)])
        item = {"image": image, "limits": np.array([[-20.0, 0.0], [-40.0, 0.0]])}
        spread = transform.set_random_state(0)(item)["image"].std(dim=(1, 2))
        assert spread[0] / spread[1] == pytest.approx(2, rel=0.03)

    def test_black_stays_black_and_nothing_leaves_zero_to_one(self):
        image = torch.cat([grey(0.0), grey(0.9)], dim=1)
        noisy = speckled(image, looks=1)
        assert noisy[:, :200].max() == 0
        assert noisy.max() == 1
        assert noisy.dtype == torch.float32


class TestSpeckleChannels:
    def test_copies_share_speckle(self):
        noisy = speckled(torch.rand(1, 50, 50).repeat(3, 1, 1) / 5, looks=2)
        assert torch.equal(noisy[0], noisy[1])
        assert torch.equal(noisy[0], noisy[2])

    def test_polarisations_do_not(self):
        image = torch.cat([grey(0.02), grey(0.03)])
        noisy = speckled(image, looks=2).flatten(1)
        assert abs(torch.corrcoef(noisy)[0, 1]) < 0.03


class TestSpeckleDraws:
    def test_same_seed_same_speckle_and_other_seed_other(self):
        assert torch.equal(speckled(grey(), 3), speckled(grey(), 3))
        assert not torch.equal(speckled(grey(), 3), speckled(grey(), 4))

    def test_probability_is_kept(self):
        transform = RandSpeckled("image", prob=0.3).set_random_state(0)
        image = grey(shape=(1, 2, 2))
        changed = sum(not torch.equal(transform({"image": image})["image"], image) for _ in range(600))
        assert abs(changed / 600 - 0.3) < 0.06

    def test_looks_are_drawn_evenly_on_a_logarithmic_scale(self):
        transform = RandSpeckled("image", prob=1, looks=(2, 8)).set_random_state(0)
        drawn = []
        for _ in range(400):
            transform({"image": grey(shape=(1, 1, 1))})
            drawn.append(math.log2(transform.drawn_looks))
        assert stats.kstest(drawn, stats.uniform(1, 2).cdf).pvalue > 0.01

    def test_outside_the_mask_and_other_keys_nothing_changes(self):
        fov = torch.zeros(1, 20, 20)
        fov[:, 5:15] = 1
        item = {"image": torch.rand(2, 20, 20) / 5, "label": fov.clone(), "fov": fov}
        noisy = RandSpeckled("image", prob=1, mask_key="fov").set_random_state(0)(item)
        inside = (fov > 0).expand(2, -1, -1)
        assert torch.equal(noisy["image"][~inside], item["image"][~inside])
        assert (noisy["image"][inside] != item["image"][inside]).all()
        assert noisy["label"] is item["label"]


def lee_by_hand(image: np.ndarray, valid: np.ndarray, looks: float) -> np.ndarray:
    """The filter of a 7x7 window, one pixel after the other, from its description."""
    rows, columns = np.arange(-3, 4)[:, None], np.arange(-3, 4)[None, :]
    halves = {
        "left": columns + 0 * rows <= 0,
        "right": columns + 0 * rows >= 0,
        "up": rows + 0 * columns <= 0,
        "down": rows + 0 * columns >= 0,
        "up left": rows <= -columns,
        "down right": rows >= -columns,
        "up right": rows <= columns,
        "down left": rows >= columns,
    }
    pairs = [("left", "right"), ("up", "down"), ("up left", "down right"), ("up right", "down left")]
    towards = {
        "left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0),
        "up left": (-1, -1), "down right": (1, 1), "up right": (-1, 1), "down left": (1, -1),
    }  # fmt: skip
    values = np.pad(image, 3, mode="symmetric")
    usable = np.pad(valid, 3, mode="symmetric")
    result = image.copy()
    for y, x in np.argwhere(valid):
        window, known = values[y : y + 7, x : x + 7], usable[y : y + 7, x : x + 7]
        means = {}
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                part = np.s_[2 + 2 * dy : 5 + 2 * dy, 2 + 2 * dx : 5 + 2 * dx]
                means[dy, dx] = window[part][known[part]].mean() if known[part].any() else None
        centre = means[0, 0]
        best, chosen = -1.0, None
        for pair in pairs:
            totals = []
            for name in pair:
                direction = np.array(towards[name])
                side = [where for where in means if np.dot(where, direction) > 0]
                assert len(side) == 3
                totals.append(sum(centre if means[where] is None else means[where] for where in side))
            if abs(totals[0] - totals[1]) > best:
                best = abs(totals[0] - totals[1])
                distances = [
                    math.inf if means[towards[name]] is None else abs(means[towards[name]] - centre) for name in pair
                ]
                chosen = pair[0] if distances[0] <= distances[1] else pair[1]
        pixels = window[halves[chosen] & known]
        mean, variance = pixels.mean(), pixels.var()
        scene = max(variance - mean**2 / looks, 0) / (1 + 1 / looks)
        result[y, x] = mean + (scene / variance if scene > 0 else 0) * (image[y, x] - mean)
    return result


def scene(shape=(30, 34), looks=4, seed=0) -> np.ndarray:
    """Speckle over two fields, a diagonal boundary and a bright line."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    clean = np.where(x + y > 30, 0.5, 0.1)
    clean[12] = 1.0
    return (clean * rng.gamma(looks, 1 / looks, shape)).astype(np.float32)


def filtered(image: np.ndarray, looks=4.0, **kwargs) -> np.ndarray:
    item = {"image": torch.as_tensor(image)[None], **kwargs.pop("more", {})}
    return RefinedLeed("image", looks=looks, **kwargs)(item)["image"][0].numpy()


class TestRefinedLee:
    def test_equals_a_filter_pixel_by_pixel(self):
        image = scene()
        expected = lee_by_hand(image.astype(np.float64), np.ones(image.shape, bool), 4)
        np.testing.assert_allclose(filtered(image), expected, rtol=1e-5)

    def test_equals_it_with_holes_in_the_data(self):
        image = scene()
        valid = np.ones(image.shape, bool)
        valid[:, :6] = False
        valid[20:27, 15:30] = False
        valid[3, 20] = False
        expected = lee_by_hand(image.astype(np.float64), valid, 4)
        spoilt = np.where(valid, image, np.nan).astype(np.float32)
        np.testing.assert_allclose(filtered(spoilt)[valid], expected[valid], rtol=1e-5)
        assert np.isnan(filtered(spoilt)[~valid]).all()
        masked = filtered(
            np.where(valid, image, 7).astype(np.float32),
            mask_key="fov",
            more={"fov": torch.from_numpy(valid)[None].float()},
        )
        np.testing.assert_allclose(masked[valid], expected[valid], rtol=1e-5)
        assert (masked[~valid] == 7).all()

    def test_leaves_a_constant_image(self):
        np.testing.assert_allclose(filtered(np.full((20, 20), 0.3, np.float32)), 0.3, rtol=1e-6)

    def test_reduces_variance_of_homogeneous_speckle_by_nearly_the_size_of_a_half_window(self):
        image = np.random.default_rng(0).gamma(4, 1 / 4, (200, 200)).astype(np.float32)
        smooth = filtered(image)
        pixels = 7 * 8 / 2
        # Some variance is let through where the sample's happens to exceed the speckle's, and the side is chosen.
        assert pixels / 3 < image.var() / smooth.var() < pixels
        assert smooth.mean() == pytest.approx(1, abs=0.02)

    def test_keeps_an_edge_sharper_than_a_mean_of_the_same_window(self):
        clean = np.full((80, 80), 0.1)
        clean[:, 40:] = 1.0
        image = (clean * np.random.default_rng(0).gamma(4, 1 / 4, clean.shape)).astype(np.float32)
        beside = np.s_[10:-10, 38:42]
        error = np.abs(filtered(image) - clean)[beside].mean()
        assert error < np.abs(uniform_filter(image, 7) - clean)[beside].mean() / 2
        assert error < np.abs(image - clean)[beside].mean()

    def test_commutes_with_flips_and_quarter_turns(self):
        image = scene((30, 30))
        for turn in (np.flipud, np.fliplr, np.rot90):
            np.testing.assert_allclose(filtered(turn(image).copy()), turn(filtered(image)), rtol=1e-5)

    def test_commutes_with_a_gain(self):
        np.testing.assert_allclose(filtered(scene() * 8), filtered(scene()) * 8, rtol=1e-5)

    def test_of_amplitude_and_decibels_is_that_of_intensity(self):
        image = scene()
        np.testing.assert_allclose(filtered(np.sqrt(image), pixel_values="amplitude") ** 2, filtered(image), rtol=1e-4)
        decibels = (10 * np.log10(image) + 30) / 40
        found = filtered(decibels.astype(np.float32), pixel_values="db", db_range=40.0)
        np.testing.assert_allclose(10 ** ((found * 40 - 30) / 10), filtered(image), rtol=1e-4)

    def test_treats_channels_apart(self):
        image = torch.from_numpy(np.stack([scene(), scene(seed=1)]))
        together = RefinedLeed("image", looks=4)({"image": image})["image"]
        np.testing.assert_array_equal(together[1].numpy(), filtered(scene(seed=1)))


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"looks": 0}, "looks"),
            ({"looks": (4, 2)}, "looks"),
            ({"pixel_values": "linear"}, "pixel_values"),
            ({"pixel_values": "db"}, "db_range"),
            ({"db_range": 30.0}, "db_range"),
            ({"pixel_values": "db", "db_range": 0.0}, "db_range"),
        ],
    )
    def test_impossible_ones_are_refused_by_name(self, settings, named):
        with pytest.raises(ConfigError, match=named):
            RandSpeckled("image", **settings)
