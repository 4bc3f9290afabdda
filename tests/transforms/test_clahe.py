"""Local contrast of the green channel."""

import numpy as np
import pytest
import torch
from skimage.exposure import equalize_adapthist

from topolora_monai.errors import ConfigError, DataError
from topolora_monai.transforms.clahe import GreenClahed


def fundus(size=96, seed=0):
    """Uneven illumination, darker vessels, black surroundings; red and blue carry only noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    green = 0.3 + 0.3 * x + 0.01 * rng.standard_normal((size, size))
    green[:, ::16] -= 0.04
    fov = (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.2
    image = np.stack([rng.random((size, size)), green * fov, rng.random((size, size))]).astype(np.float32)
    return torch.from_numpy(image), torch.from_numpy(fov[None]).float()


def test_is_that_of_the_green_channel_in_all_channels():
    image, _ = fundus()
    result = GreenClahed("image", clip_limit=3.0, tiles=4)({"image": image})["image"]
    expected = equalize_adapthist(image[1].double().numpy(), kernel_size=24, clip_limit=3 / 256)
    for channel in result:
        np.testing.assert_allclose(channel.numpy(), expected, atol=1e-6)
    assert result.dtype == torch.float32
    assert result.is_contiguous()


def test_a_grey_image_is_equalised_itself():
    image, _ = fundus()
    grey = GreenClahed("image")({"image": image[1:2]})["image"]
    assert torch.equal(grey, GreenClahed("image")({"image": image})["image"][:1])


def test_raises_the_contrast_of_vessels():
    image, fov = fundus()
    result = GreenClahed("image", mask_key="fov")({"image": image, "fov": fov})["image"]

    def contrast(plane):
        return (plane[30:66, 50] - plane[30:66, 48]).mean() / plane[30:66, 30:66].mean()

    assert contrast(result[1]) > 1.5 * contrast(image[1])


def test_surroundings_are_zero_and_have_no_influence():
    image, fov = fundus()
    transform = GreenClahed("image", mask_key="fov")
    result = transform({"image": image, "fov": fov})["image"]
    assert result[:, fov[0] == 0].abs().max() == 0
    disturbed = torch.where(fov > 0, image, torch.rand_like(image))
    assert torch.equal(transform({"image": disturbed, "fov": fov})["image"], result)
    without = GreenClahed("image")({"image": image})["image"]
    border = torch.nn.functional.max_pool2d(1 - fov, 9, 1, 4) * fov
    assert (without - result).abs()[:, border[0] > 0].mean() > 0.02


@pytest.mark.parametrize("inside", [0.0, 1.0])
def test_nothing_to_stretch_is_left_or_empty(inside):
    item = {"image": torch.full((3, 20, 20), 0.4), "fov": torch.full((1, 20, 20), inside)}
    result = GreenClahed("image", mask_key="fov")(item)["image"]
    torch.testing.assert_close(result, torch.full((3, 20, 20), 0.4 * inside))


def test_input_and_other_keys_stay():
    image, fov = fundus()
    before = image.clone()
    result = GreenClahed("image", mask_key="fov")({"image": image, "fov": fov, "name": "a"})
    assert torch.equal(image, before)
    assert result["fov"] is fov
    assert result["name"] == "a"


def test_uneven_sizes_and_more_tiles_than_pixels_work():
    for shape in ((3, 33, 70), (3, 5, 6)):
        result = GreenClahed("image")({"image": torch.rand(shape)})["image"]
        assert result.shape == shape
        assert 0 <= result.min() <= result.max() <= 1


@pytest.mark.parametrize(("settings", "named"), [({"clip_limit": 1.0}, "clip_limit"), ({"tiles": 0}, "tile")])
def test_impossible_settings_are_refused_by_name(settings, named):
    with pytest.raises(ConfigError, match=named):
        GreenClahed("image", **settings)


def test_an_image_of_two_channels_is_refused():
    with pytest.raises(DataError, match="image"):
        GreenClahed("image")({"image": torch.rand(2, 8, 8)})
