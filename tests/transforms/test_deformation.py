"""Deformed masks keep their topology; images and masks stay registered."""

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import RandAffined
from scipy.ndimage import affine_transform, binary_dilation
from scipy.ndimage import label as components
from skimage.draw import line

from topolora_monai.errors import ConfigError, DataError
from topolora_monai.transforms.deformation import RandConnectedElasticd

SIZE = 160
SQUARE = np.ones((3, 3))
SEEDS = range(50)


def tree(seed: int, width: int = 1) -> np.ndarray:
    """A trunk with twigs to both sides, about the centre, that no default deformation moves out of the frame."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((SIZE, SIZE), bool)

    def draw(start, angle, length):
        end = start + length * np.array([math.cos(angle), math.sin(angle)])
        mask[line(*np.rint(start).astype(int), *np.rint(end).astype(int))] = True

    angle = rng.uniform(0, 2 * math.pi)
    along = np.array([math.cos(angle), math.sin(angle)])
    draw(SIZE / 2 - 45 * along, angle, 90)
    for position in range(-40, 41, 16):
        for side in (-1, 1):
            draw(SIZE / 2 + (position + rng.uniform(-3, 3)) * along, angle + side * rng.uniform(1.1, 1.5), 25)
    return binary_dilation(mask, SQUARE) if width == 3 else mask


def rings(seed: int) -> np.ndarray:
    """Three closed lines of one pixel, one within another."""
    rng = np.random.default_rng(seed)
    distance = np.hypot(*(np.indices((SIZE, SIZE)) - SIZE / 2))
    radii = np.array([8, 20, 34]) + rng.uniform(0, 8, 3)
    return (np.abs(distance[None] - radii[:, None, None]) <= 0.5).any(axis=0)


def betti(mask: np.ndarray) -> tuple[int, int]:
    """8-connected components, and holes: 4-connected parts of the background without the outer one."""
    return components(mask, SQUARE)[1], components(np.pad(~mask, 1))[1] - 1


def deformed(mask: np.ndarray, seed: int, mode="connected", **kwargs) -> np.ndarray:
    transform = RandConnectedElasticd("label", mode=mode, prob=1, **kwargs).set_random_state(seed)
    return transform({"label": torch.from_numpy(mask)[None].float()})["label"][0].numpy() > 0.5


def by_nearest_pixel(mask: np.ndarray, seed: int) -> np.ndarray:
    scale = [(-0.2, 0.25)] * 2
    transform = RandAffined("m", prob=1, rotate_range=math.pi, scale_range=scale, mode="nearest", padding_mode="zeros")
    return transform.set_random_state(seed)({"m": torch.from_numpy(mask)[None].float()})["m"][0].numpy() > 0.5


class TestTopology:
    @pytest.mark.parametrize("width", [1, 3])
    def test_a_tree_stays_one_piece_without_loops(self, width):
        trees = {seed: tree(seed, width) for seed in range(60)}
        trees = {seed: mask for seed, mask in trees.items() if betti(mask) == (1, 0)}  # no twigs that touch
        assert len(trees) >= 50
        for seed, mask in trees.items():
            assert betti(deformed(mask, seed)) == (1, 0), seed

    def test_rings_stay_closed_and_apart(self):
        for seed in SEEDS:
            assert betti(deformed(rings(seed), seed)) == (3, 3), seed

    def test_so_they_do_under_the_strongest_bending_and_shrinking(self):
        for seed in SEEDS:
            found = deformed(rings(seed), seed, spacing=32, magnitude_range=(8, 8), scale_range=(0.6, 0.6))
            assert betti(found) == (3, 3), seed

    def test_and_under_fourfold_enlargement(self):
        corner = np.zeros((SIZE, SIZE), bool)
        corner[78:83, 80] = corner[80, 76:81] = corner[82, 80:86] = True
        for seed in SEEDS:
            assert betti(deformed(corner, seed, scale_range=(4, 4))) == (1, 0), seed

    def test_a_single_pixel_survives(self):
        dot = np.zeros((SIZE, SIZE), bool)
        dot[70, 90] = True
        for seed in SEEDS:
            assert betti(deformed(dot, seed, scale_range=(0.6, 0.6)))[0] == 1, seed

    def test_the_nearest_pixel_breaks_both(self):
        broken_trees = sum(betti(by_nearest_pixel(tree(seed), seed))[0] > 1 for seed in SEEDS)
        broken_rings = sum(betti(by_nearest_pixel(rings(seed), seed)) != (3, 3) for seed in SEEDS)
        assert broken_trees >= 45
        assert broken_rings >= 45

    def test_channels_are_masks_of_their_own(self):
        both = torch.from_numpy(np.stack([tree(0), rings(0)])).float()
        found = RandConnectedElasticd("label", mode="connected", prob=1).set_random_state(5)({"label": both})["label"]
        for channel, mask in zip(found, (tree(0), rings(0)), strict=True):
            np.testing.assert_array_equal(channel.numpy() > 0, deformed(mask, 5))


class TestWidth:
    def test_area_of_vessels_three_pixels_wide_changes_little(self):
        ratios = [deformed(tree(seed, 3), seed, scale_range=(1, 1)).sum() / tree(seed, 3).sum() for seed in SEEDS]
        assert max(abs(ratio - 1) for ratio in ratios) < 0.15
        assert np.mean(ratios) == pytest.approx(1, abs=0.03)

    def test_strokes_lie_inside_what_is_wider(self):
        for seed in SEEDS:
            mask = binary_dilation(tree(seed), np.ones((5, 5)))
            cut = deformed(mask, seed, mode="bilinear")
            assert (deformed(mask, seed) != cut).sum() <= 0.005 * cut.sum(), seed

    def test_area_of_a_disc_follows_the_scale(self):
        disc = np.hypot(*(np.indices((SIZE, SIZE)) - SIZE / 2)) < 30
        area = deformed(disc, 0, scale_range=(1.5, 1.5), magnitude_range=(0, 0)).sum()
        assert area == pytest.approx(disc.sum() * 1.5**2, rel=0.02)


class TestGeometry:
    def image(self) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(torch.rand(1, 1, 64, 48), 3, 1, 1)[0]

    def test_scale_is_about_the_centre(self):
        image = self.image()
        transform = RandConnectedElasticd(
            "image", prob=1, rotate_range=0, scale_range=(1.3, 1.3), magnitude_range=(0, 0)
        )
        centre = (np.array([64, 48]) - 1) / 2
        expected = affine_transform(
            image[0].numpy(), np.eye(2) / 1.3, centre - centre / 1.3, order=1, mode="grid-constant"
        )
        np.testing.assert_allclose(transform({"image": image})["image"][0].numpy(), expected, atol=1e-4)

    def test_rotation_is_rigid_and_within_its_range(self):
        size, angles = 101, []
        dot = torch.zeros(1, size, size)
        dot[0, 50, 80] = 1
        transform = RandConnectedElasticd("image", prob=1, rotate_range=0.6, scale_range=(1, 1), magnitude_range=(0, 0))
        for seed in SEEDS:
            found = transform.set_random_state(seed)({"image": dot})["image"][0].numpy()
            y, x = (found * (np.indices((size, size)) - 50)).sum(axis=(1, 2)) / found.sum()
            assert math.hypot(y, x) == pytest.approx(30, abs=0.5)
            angles.append(math.atan2(y, x))
        assert 0.5 < max(angles) < 0.63
        assert -0.63 < min(angles) < -0.5

    def test_the_strongest_bending_folds_nothing(self):
        coordinates = torch.from_numpy(np.indices((SIZE, SIZE)).astype(np.float32))
        item = {"image": coordinates, "fov": torch.ones(1, SIZE, SIZE)}
        moved_by = []
        for seed in range(10):
            transform = RandConnectedElasticd(
                ["image", "fov"], mode=["bilinear", "inside"], prob=1, rotate_range=0, scale_range=(1, 1),
                spacing=24, magnitude_range=(6, 6),
            )  # fmt: skip
            found = transform.set_random_state(seed)(item)
            y, x = found["image"].numpy().astype(np.float64)
            (yy, yx), (xy, xx) = np.gradient(y), np.gradient(x)
            inside = ~binary_dilation(found["fov"][0].numpy() == 0, SQUARE)
            assert (yy * xx - yx * xy)[inside].min() > 0
            moved_by.append(np.abs(y - coordinates[0].numpy())[inside].max())
        assert 2 < np.mean(moved_by) < 6

    def test_image_and_mask_stay_registered(self):
        y, x = np.indices((SIZE, SIZE))
        disc = (np.hypot(y - 70, x - 90) < 25).astype(np.float32)
        item = {"image": torch.from_numpy(disc).repeat(3, 1, 1), "label": torch.from_numpy(disc)[None]}
        transform = RandConnectedElasticd(["image", "label"], mode=["bilinear", "connected"], prob=1)
        found = transform.set_random_state(1)(item)
        assert torch.equal(found["image"][1] > 0.5, found["label"][0] > 0.5)
        assert not torch.equal(found["label"], item["label"])


class TestOtherModes:
    def test_inside_leaves_no_trace_of_what_is_outside(self):
        fov = torch.ones(1, 60, 70)
        fov[:, 30, 40] = fov[:, 10:14, 20:50] = 0
        item = {"image": 1 - fov, "fov": fov}
        transform = RandConnectedElasticd(["image", "fov"], mode=["bilinear", "inside"], prob=1, scale_range=(1, 2))
        for seed in SEEDS:
            found = transform.set_random_state(seed)(item)
            assert set(found["fov"].unique().tolist()) == {0.0, 1.0}
            assert found["image"][found["fov"] == 1].max() < 2e-3
            ones = transform.set_random_state(seed)({"image": torch.ones_like(fov), "fov": fov})
            assert ones["image"][ones["fov"] == 1].min() > 0.99  # nor of what is beyond the frame

    def test_nearest_makes_no_new_class(self):
        classes = torch.randint(3, 7, (1, 40, 40), generator=torch.Generator().manual_seed(0))
        transform = RandConnectedElasticd("label", mode="nearest", prob=1, rotate_range=0, scale_range=(0.8, 0.8))
        found = transform.set_random_state(0)({"label": classes})["label"]  # smaller, so that 0 comes in from outside
        assert set(found.unique().tolist()) == {0.0, 3.0, 4.0, 5.0, 6.0}


class TestDraws:
    def item(self) -> dict:
        return {"label": torch.from_numpy(tree(0))[None].float(), "name": "a"}

    def test_same_seed_same_deformation_and_other_seed_other(self):
        transform = RandConnectedElasticd("label", mode="connected", prob=1)
        first, again, other = (transform.set_random_state(seed)(self.item())["label"] for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_probability_is_kept_and_other_keys_are_left_alone(self):
        item = self.item()
        before = item["label"].clone()
        transform = RandConnectedElasticd("label", mode="connected", prob=0.3).set_random_state(0)
        results = [transform(item) for _ in range(300)]
        changed = np.mean([not torch.equal(result["label"], item["label"]) for result in results])
        assert abs(changed - 0.3) < 0.08
        assert torch.equal(item["label"], before)
        assert results[0]["name"] == "a"

    def test_metadata_whose_geometry_no_longer_holds_is_dropped(self):
        image = MetaTensor(torch.rand(1, 20, 20), affine=torch.eye(4))
        assert type(RandConnectedElasticd("image", prob=1)({"image": image})["image"]) is torch.Tensor

    def test_empty_and_full_masks_work(self):
        assert deformed(np.zeros((20, 30), bool), 0).sum() == 0
        assert deformed(np.ones((20, 30), bool), 0, scale_range=(4, 4)).all()


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"mode": "connectd"}, "connected"),
            ({"scale_range": (0, 1)}, "scale_range"),
            ({"scale_range": (1.2, 0.8)}, "scale_range"),
            ({"spacing": 20, "magnitude_range": (0, 6)}, "magnitude_range"),
            ({"magnitude_range": (-1, 2)}, "magnitude_range"),
        ],
    )
    def test_impossible_ones_are_refused_by_name(self, settings, named):
        with pytest.raises(ConfigError, match=named):
            RandConnectedElasticd("label", **settings)

    def test_keys_of_different_size_are_refused(self):
        item = {"image": torch.ones(1, 20, 20), "label": torch.ones(1, 20, 21)}
        with pytest.raises(DataError, match="one size"):
            RandConnectedElasticd(["image", "label"], prob=1)(item)
