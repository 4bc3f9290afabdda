"""The configurations that hold only what differs from ``train.yaml``: Conv-LoRA's recipe, the published ones, quick."""

import json

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from tests.bundles.helpers import CONFIGS, SMALL, files, parsed, run
from topolora_monai.transforms import squash

CONV_LORA = ("train.yaml", "conv_lora.yaml")
PUBLISHED_CONV_LORA = (*CONV_LORA, "published_conv_lora.yaml")


@pytest.fixture
def data(fake_drive):
    return {"dataset_name": "drive", "dataset_dir": str(fake_drive), "data#allow_partial": True}


def kinds(compose) -> list[str]:
    return [type(one).__name__ for one in compose.transforms]


@pytest.mark.parametrize(("names", "gate"), [(CONV_LORA, "learned"), (PUBLISHED_CONV_LORA, "published")])
def test_conv_lora_s_recipe_is_the_paper_s(names, gate, data):
    get = parsed(*names, **data).get_parsed_content
    assert get("batch_size") * get("accumulation_steps") == 4
    assert (get("adaptation").config.preset, get("adaptation").config.conv_lora.peft.gate) == ("conv_lora", gate)
    assert get("optimizer").defaults["lr"] == get("optimizer").defaults["weight_decay"] == 1e-4
    loss = get("topology_loss")
    assert list(loss.terms) == ["structure"]
    assert loss.terms["structure"].weighted is False
    schedule, total = get("lr_scheduler"), get("lr_scheduler#total_iterations")
    for _ in range(total // 2):
        get("optimizer").step()
        schedule.step()
    assert schedule.get_last_lr() == pytest.approx([1e-4 * (1 - (total // 2) / total) ** 0.9])


def test_published_conv_lora_squashes_flips_and_stops_early(data):
    parser = parsed(*PUBLISHED_CONV_LORA, **data)
    get = parser.get_parsed_content
    assert kinds(get("train#preprocessing")) == [
        "LoadItem",
        "TorchVisiond",
        "ScaleIntensityRanged",
        "Resized",
        "RandFlipd",
    ]
    assert kinds(get("validate#preprocessing")) == ["LoadItem", "TorchVisiond", "ScaleIntensityRanged", "Resized"]
    assert get("train#handlers")[-2].patience == 10
    assert get("train#handlers")[-3].properties["protocol"] == "published_conv_lora"
    assert get("network_def").fit == "squash"
    assert all("fov" not in item for item in get("training_items"))


@pytest.mark.parametrize(
    ("names", "image_size", "crop_size", "epochs"),
    [
        (("train.yaml",), 768, 320, 30),
        (("train.yaml", "published.yaml"), 1024, 384, 50),
        (CONV_LORA, 768, 320, 30),
        (PUBLISHED_CONV_LORA, 1024, 1024, 30),
    ],
)
def test_sizes_and_length(names, image_size, crop_size, epochs):
    parser = ConfigParser()
    parser.read_config([CONFIGS / name for name in names])
    parser["network_name"] = "vit_b"
    assert [parser.get_parsed_content(name) for name in ("image_size", "crop_size", "epochs")] == [
        *(image_size, crop_size, epochs)
    ]


def test_bicubic_squash_is_pillow_s():
    """As Conv-LoRA's authors read images: with antialias; masks keep their values."""
    picture = np.random.default_rng(0).integers(0, 256, (61, 50, 3), np.uint8)
    item = {"image": torch.from_numpy(picture.transpose(2, 0, 1) / 255).float()}
    item |= {"label": (item["image"][:1] > 0.5).float(), "fov": torch.ones(1, 61, 50)}
    for transform in squash(24, "published_conv_lora"):
        item = transform(item)
    expected = np.asarray(Image.fromarray(picture).resize((24, 24), Image.Resampling.BICUBIC)) / 255
    assert np.abs(item["image"].numpy().transpose(1, 2, 0) - expected).max() < 1.5 / 255
    assert set(np.unique(item["label"])) == {0, 1}


@pytest.mark.parametrize(
    ("changes", "terms"),
    [
        ({"structure": 0.0, "structure_weighted": 1.0}, ["structure_weighted"]),
        ({"structure": 0.0, "balanced_bce": 1.0}, ["balanced_bce"]),
    ],
)
def test_other_losses_by_weight(changes, terms):
    parser = parsed(*CONV_LORA, **{f"topology_loss#weights#{name}": weight for name, weight in changes.items()})
    parser["topology_loss#exclusive"] = False
    assert list(parser.get_parsed_content("topology_loss").terms) == terms


def test_exclusive_classes_get_one_cross_entropy_and_the_structure_loss():
    assert {"ce", "dice"} <= set(several("train.yaml").terms)
    loss = several(*CONV_LORA)
    assert list(loss.terms) == ["structure"]
    logits = torch.randn(1, 3, 16, 16, requires_grad=True)
    target = torch.nn.functional.one_hot(torch.randint(0, 4, (1, 16, 16)), 4).movedim(-1, 1)[:, 1:]
    loss(logits, target).backward()
    assert (logits.grad != 0).any()


def several(*names):
    return parsed(*names, classes=["none", "a", "b", "c"]).get_parsed_content("topology_loss")


def test_quick_takes_little_data(fake_drive, data):
    get = parsed("train.yaml", "quick.yaml", **data).get_parsed_content
    assert 0 < len(get("training_items")) <= 8
    assert 0 < len(get("validation_items")) <= 4


def test_published_conv_lora_trains_and_is_evaluated_as_it_was_validated(data, tmp_path):
    output = tmp_path / "run"
    options = SMALL | data | {"epochs": 1, "image_size": 64, "crop_size": 64}
    done = run("training", files(*PUBLISHED_CONV_LORA), tmp_path, **options, output_dir=output)
    assert done.returncode == 0, done.stderr
    record = json.loads((output / "training.json").read_text())
    assert (record["preset"], record["protocol"]) == ("conv_lora", "published_conv_lora")
    evaluated = {"dataset_dir": data["dataset_dir"], "precision": "fp32", "pictures": False, "overlap": 0.25}
    done = run("evaluating", CONFIGS / "evaluate.yaml", tmp_path, output_dir=output, **evaluated)
    assert done.returncode == 0, done.stderr
    summary = json.loads((output / "evaluation/summary.json").read_text())
    assert summary["validation"]["dice"] == pytest.approx(record["validation"]["dice"], abs=0.01)
