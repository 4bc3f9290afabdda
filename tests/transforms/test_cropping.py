"""Crops around the foreground: half of them, whatever its class, and anywhere where there is none."""

import pytest
import torch
from monai.transforms import Compose

from topolora_monai.errors import ConfigError
from topolora_monai.transforms import RandForegroundCropd


def sample(classes=1, size=(200, 120)):
    label = torch.zeros(classes, *size)
    return {"image": torch.arange(size[0] * size[1]).reshape(1, *size).float(), "label": label, "name": "a"}


def crops(data, share, count=60):
    crop = RandForegroundCropd(["image", "label"], "label", (16, 24), share).set_random_state(0)
    return [crop(data) for _ in range(count)]


def test_image_and_mask_are_cut_alike_and_hold_the_foreground():
    data = sample()
    data["label"][0, 150, 60] = 1
    for crop in crops(data, 1.0):
        assert crop["image"].shape == crop["label"].shape == (1, 16, 24)
        assert crop["image"][crop["label"] > 0] == 150 * 120 + 60
    assert data["label"].shape == (1, 200, 120)


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 6), (0.5, 15, 45), (1.0, 60, 60)])
def test_the_share_is_kept(share, least, most):
    data = sample()
    data["label"][0, 100:102, 50:52] = 1
    assert least <= sum(bool(crop["label"].any()) for crop in crops(data, share)) <= most


def test_a_rare_class_is_as_likely_as_a_common_one():
    data = sample(3)
    data["label"][0, :90] = 1
    data["label"][2, 180, 100] = 1
    assert 15 <= sum(bool(crop["label"][2].any()) for crop in crops(data, 1.0)) <= 45


def test_no_foreground_at_the_border_and_crops_of_the_whole_image():
    assert len({float(crop["image"][0, 0, 0]) for crop in crops(sample(), 1.0)}) > 30
    data = sample()
    data["label"][0, 0, 119] = 1
    assert all(crop["label"][0, 0, 23] == 1 for crop in crops(data, 1.0))
    whole = RandForegroundCropd(["image", "label"], "label", (200, 120))(data)
    assert torch.equal(whole["image"], data["image"])


def test_seeds_of_a_compose_reach_it_and_wrong_shares_are_refused():
    data = sample()
    data["label"][0, ::7, ::5] = 1
    transform = Compose([RandForegroundCropd(["image", "label"], "label", (16, 24))])
    first, again = (transform.set_random_state(3)(data)["image"] for _ in range(2))
    assert torch.equal(first, again)
    with pytest.raises(ConfigError, match="share"):
        RandForegroundCropd("image", "label", (8, 8), share=1.5)
