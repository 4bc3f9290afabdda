"""The Conv-LoRA bundle: the first bundle but for its recipe, in step with it, and running from anywhere."""

import csv
import importlib.util
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from monai.transforms import Compose
from PIL import Image

from tests.bundles.helpers import BUNDLE as FIRST
from tests.bundles.helpers import SMALL, run

ROOT = FIRST.parents[1]
BUNDLE = FIRST.parent / "conv_lora_sam_segmentation"
CONFIGS = BUNDLE / "configs"
RECIPE = {
    "train.yaml": {
        *("preset", "conv_lora_gate", "crop_size", "epochs", "accumulation_steps", "learning_rate", "schedule"),
        *("warmup_fraction", "bce_weight", "dice_weight", "cldice_weight", "structure_weight"),
        *(
            "early_stopping",
            "train#bundle",
            "train#published_geometric",
            "train#published_colour",
            "train#published_transforms",
        ),
        "validate#squash",
    },
    "multi_gpu_train.yaml": set(),
    "evaluate.yaml": {"output_dir", "squash"},
    "inference.yaml": {"adapter"},
}


@pytest.fixture(scope="module")
def sync():
    spec = importlib.util.spec_from_file_location("sync_bundles", ROOT / "scripts/sync_bundles.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ids(path: Path) -> dict:
    """Values by id, those of engines one level down."""
    content = yaml.safe_load(path.read_text())
    flat = {}
    for key, value in content.items():
        nested = isinstance(value, dict) and "_target_" not in value
        flat |= {f"{key}#{name}": inner for name, inner in value.items()} if nested else {key: value}
    return flat


@pytest.mark.parametrize("name", sorted(RECIPE))
def test_only_the_recipe_differs(name):
    first, second = ids(FIRST / "configs" / name), ids(CONFIGS / name)
    assert list(first) == list(second)
    assert {key for key in first if first[key] != second[key]} == RECIPE[name]


def test_files_are_what_the_script_writes(sync):
    written = sync.files("conv_lora_sam_segmentation")
    for path, text in written.items():
        assert (BUNDLE / path).read_text() == text, f"{path}: run scripts/sync_bundles.py"
    there = {str(path.relative_to(BUNDLE)) for path in BUNDLE.rglob("*") if path.is_file()}
    assert there == written.keys() | {"docs/README.md"}
    assert there == {str(path.relative_to(FIRST)) for path in FIRST.rglob("*") if path.is_file()}


def test_script_replaces_blocks_and_refuses_ids_that_are_gone(sync):
    text = "a: 1\n\n# about b\nb:\n  c:\n    - 1\n\n    - 2\n  d: 3\n\ne: 4\n"
    assert sync.replaced(text, "a", "a: 9\n") == text.replace("a: 1", "a: 9")
    assert sync.replaced(text, "b#c", "c: []\n") == "a: 1\n\n# about b\nb:\n  c: []\n  d: 3\n\ne: 4\n"
    assert sync.replaced(text, "b", "b: 5\n") == "a: 1\n\n# about b\nb: 5\n\ne: 4\n"
    for missing in ("c", "f", "a#c", "b#e"):
        with pytest.raises(SystemExit, match="does not have"):
            sync.replaced(text, missing, "x: 1\n")


def parsed(**options) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(CONFIGS / "train.yaml")
    parser.config.update(SMALL | options)
    return parser


def test_recipe_is_the_paper_s(fake_drive):
    data = {"dataset_name": "drive", "dataset_dir": str(fake_drive), "allow_partial": True}
    for protocol, gate in (("native", "learned"), ("published", "published")):
        parser = parsed(**data, protocol=protocol)
        get = parser.get_parsed_content
        assert get("batch_size") * get("accumulation_steps") == 4
        assert get("adaptation").config.conv_lora.gate == gate
        assert get("adaptation").config.preset == "conv_lora"
        assert get("optimizer").defaults["lr"] == get("optimizer").defaults["weight_decay"] == 1e-4
        loss = get("topology_loss")
        assert list(loss.terms) == ["structure"]
        assert loss.terms["structure"].weighted is False
        schedule, total = get("lr_scheduler"), get("total_iterations")
        for _ in range(total // 2):
            get("optimizer").step()
            schedule.step()
        assert schedule.get_last_lr() == pytest.approx([1e-4 * (1 - (total // 2) / total) ** 0.9])
    kinds = [type(one).__name__ for one in get("train#preprocessing").transforms]
    assert kinds == ["LoadItem", "TorchVisiond", "ScaleIntensityRanged", "Resized", "RandFlipd"]
    assert get("train#handlers")[-2].patience == 10


def test_published_images_are_squashed_as_the_authors_do(fake_drive):
    """By Pillow's bicubic filter with antialias, in training, validation and evaluation."""
    for config in ("train.yaml", "evaluate.yaml"):
        parser = ConfigParser()
        parser.read_config(CONFIGS / config)
        squash = Compose(
            ConfigParser({"crop_size": 24, "squash": parser["validate#squash" if config == "train.yaml" else "squash"]})
            .get_parsed_content("squash")
        )  # fmt: skip
        picture = np.random.default_rng(0).integers(0, 256, (61, 50, 3), np.uint8)
        image = torch.from_numpy(picture.transpose(2, 0, 1) / 255).float()
        mask = (image[:1] > 0.5).float()
        squashed = squash({"image": image, "label": mask, "fov": torch.ones_like(mask)})
        expected = np.asarray(Image.fromarray(picture).resize((24, 24), Image.Resampling.BICUBIC)) / 255
        assert np.abs(squashed["image"].numpy().transpose(1, 2, 0) - expected).max() < 1.5 / 255
        assert set(np.unique(squashed["label"])) == {0, 1}


def test_published_size_and_length():
    config = yaml.safe_load((CONFIGS / "train.yaml").read_text())
    assert config["epochs"] == 30
    parser = ConfigParser(
        {key: config[key] for key in ("network_name", "protocol", "published", "image_size", "crop_size")}
    )
    parser.config |= {"network_name": "vit_b", "protocol": "published"}
    assert parser.get_parsed_content("crop_size") == parser.get_parsed_content("image_size") == 1024


@pytest.mark.parametrize(
    ("knobs", "terms"),
    [
        ({"structure_weighted": True}, ["structure_weighted"]),
        ({"structure_weight": 0.0, "balanced_bce_weight": 1.0}, ["balanced_bce"]),
    ],
)
def test_other_losses_by_knob(knobs, terms):
    assert (
        list(parsed(**knobs, out_channels=1, activation="sigmoid").get_parsed_content("topology_loss").terms) == terms
    )


def test_several_classes_are_trained_with_the_structure_loss_too():
    loss = parsed(out_channels=3, activation="softmax").get_parsed_content("topology_loss")
    logits = torch.randn(1, 3, 16, 16, requires_grad=True)
    target = torch.nn.functional.one_hot(torch.randint(0, 4, (1, 16, 16)), 4).movedim(-1, 1)[:, 1:]
    loss(logits, target).backward()
    assert list(loss.terms) == ["structure"]
    assert (logits.grad != 0).any()


def test_metadata_is_valid():
    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    jsonschema.validate(metadata, json.loads((ROOT / "tests/bundles/metadata_schema.json").read_text()))
    assert metadata["version"] in metadata["changelog"]
    assert "Conv-LoRA" in metadata["name"]


def test_train_evaluate_and_infer_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    output = tmp_path / "run"
    done = run("training", CONFIGS / "train.yaml", elsewhere, **SMALL, output_dir=output)
    assert done.returncode == 0, done.stderr
    record = json.loads((output / "training.json").read_text())
    assert (record["epochs"], record["preset"], record["dataset"]) == (2, "conv_lora", "synthetic_vessels")

    done = run("evaluating", CONFIGS / "evaluate.yaml", elsewhere, output_dir=output, precision="fp32", pictures=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads((output / "evaluation/summary.json").read_text())
    assert 0 < summary["test"]["auc"] < 1
    with (output / "evaluation/per_image.csv").open() as file:
        name = next(csv.DictReader(file))["name"]

    image = next((tmp_path / "cache").rglob(f"images/{name}.*"))
    done = run("inferring", CONFIGS / "inference.yaml", elsewhere, adapter=output / "adapter.safetensors", input=image,
               output_dir=tmp_path / "masks", precision="fp32")  # fmt: skip
    assert done.returncode == 0, done.stderr
    probability = np.asarray(Image.open(tmp_path / f"masks/{name}_probability.png"))
    assert probability.shape == Image.open(image).size[::-1]
    assert probability.std() > 0
    assert list(elsewhere.iterdir()) == []
