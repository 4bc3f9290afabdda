"""Pictures of 12 bits in files of 16: noticed, scaled by what they fill, everywhere alike."""

import logging

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from tests.bundles.helpers import CONFIGS
from topolora_monai.data import open_dataset, verify
from topolora_monai.data.depth import fitted_scaling
from topolora_monai.errors import ConfigError
from topolora_monai.model import ModelSpec
from topolora_monai.transforms import IntensityScaling, LoadItem


def write_folder(root, largest):
    """Six pairs in their splits; pictures of 16 bit with values up to ``largest``, brighter ones for test."""
    draw = np.random.default_rng(0)
    for split, names in (("training", "abcd"), ("validation", "e"), ("test", "f")):
        for folder in ("images", "masks"):
            (root / split / folder).mkdir(parents=True)
        for name in names:
            values = draw.integers(0, largest + 1, (40, 40)).astype(np.uint16)
            values[0, 0] = largest if split != "test" else min(4 * largest, 65535)
            Image.fromarray(values).save(root / split / "images" / f"{name}.png")
            Image.fromarray((values > largest * 0.7).astype(np.uint8) * 255).save(
                root / split / "masks" / f"{name}.png"
            )
    return root


@pytest.mark.parametrize(("largest", "bits"), [(200, 8), (1023, 10), (4095, 12), (16383, 14), (16384, 16)])
def test_least_depth_that_holds_the_training_images(tmp_path, caplog, largest, bits):
    data = open_dataset("folder", write_folder(tmp_path, largest))
    with caplog.at_level(logging.INFO):
        assert fitted_scaling(data.items("training")).bits == bits
    assert (f"no value above {2**bits - 1:,}" in caplog.text) == (bits < 16)
    notes = [finding.message for finding in verify(data).findings if finding.kind == "note"]
    assert len(notes) == (bits < 16)
    assert all(f"largest value {4 * largest:,} of 65,535" in note and f"(bits {bits})" in note for note in notes)


def test_eight_bit_pictures_and_a_chosen_depth(tmp_path):
    Image.fromarray(np.full((4, 4), 3, np.uint8)).save(tmp_path / "a.png")
    assert fitted_scaling([{"name": "a", "image": str(tmp_path / "a.png")}]).bits == 16
    for wrong in (7, 17, 12.0, True, "auto"):
        with pytest.raises(ConfigError, match="8 to 16"):
            IntensityScaling(bits=wrong)


def test_training_and_inference_scale_alike(tmp_path):
    root = write_folder(tmp_path, 4095)
    path = str(root / "training/images/a.png")
    train, infer = (
        ConfigParser(ConfigParser.load_config_file(CONFIGS / f"{name}.yaml")) for name in ("train", "inference")
    )
    train.config.update(dataset_name="folder", dataset_dir=str(root))
    scaling = train.get_parsed_content("scaling")
    spec = ModelSpec(
        network_name="vit_tiny_test", base_sha256=64 * "0", adaptation={}, package_version="1", bits=scaling.bits
    )
    infer.config.update(spec=spec, input=path)
    expected = torch.from_numpy(np.asarray(Image.open(path)).astype(np.float32) / np.float32(4095)).expand(3, -1, -1)
    loads = [train.get_parsed_content("loading")[0], infer.get_parsed_content("loading")]
    for load in loads:
        torch.testing.assert_close(load({"image": path})["image"], expected)
    dark = LoadItem(3)({"image": path})["image"]  # as an adapter without the entry was trained
    torch.testing.assert_close(dark, expected * 4095 / 65535)
