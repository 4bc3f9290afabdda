"""What a model says of itself: each entry checked, defaults in one place, nothing lost to a file and back."""

import dataclasses
import json

import pytest

from topolora_monai.errors import AdapterFileError, ConfigError
from topolora_monai.model import MODEL_FORMAT, ModelSpec, TrainingRecipe

REQUIRED = {"network_name": "vit_t", "base_sha256": 64 * "a", "adaptation": {"preset": "lora"}, "package_version": "1"}
HEADER = {"format": MODEL_FORMAT, **REQUIRED}
EVERYTHING = {
    "prompts": True,
    "image_size": 768, "crop_size": 192, "overlap": 0.25, "in_channels": 4, "out_channels": 2, "fit": "squash",
    "multiclass_head": "token_set", "mask_tokens": 20, "labels": ["background", "$100 notes", "@home"],
    "activation": "softmax", "pixel_values": "amplitude", "percentiles": [2.0, 98.0], "value_range": [-25.0, 0.0],
    "bits": 12, "ignore": 255, "clahe": True, "despeckle_looks": 2.5, "threshold": 0.25,
    "view_diameter": 540.0, "thickness": 3.0, "threshold_by": "cldice", "temperature": 1.5,
    "protocol": "published", "checkpoint": "mobile_sam", "seed": 7,
    "pretrained": True, "dataset": "drive", "split_scheme": "official", "annotator": "first",
    "folds": 5, "fold": 0, "group_pattern": "^[a-z]+", "partial": "3 of 40 images",
    "validation_dice": 0.8,
    "recipe": {
        "name": "conv_lora", "modality": "sar", "elastic_magnitude": 0.0,
        "elastic_scale": [0.5, 2.0], "colour_share": 0.5, "blur_share": 0.25, "ema_decay": 0.99,
        "speckle_looks": [1.0, 4.0], "loss_weights": {"structure": 1.0, "bce": 0.0}, "loss_ramps": {"cldice": 0.5},
        "skeleton": "topology_preserving", "skeleton_iterations": 5, "loss_smooth": 1e-6, "matching_loss": False,
        "epochs": 3, "crops_per_image": 4, "sampling": "foreground", "batch_size": 2, "accumulation_steps": 2,
        "processes": 2, "prompt_share": 0.5, "prompt_rounds": 2, "prompt_clicks": 3,
        "learning_rate": 1e-4, "weight_decay": 0.0, "schedule": "polynomial", "warmup_fraction": 0.1,
        "max_grad_norm": 1.0, "calibrate": True,
    },
}  # fmt: skip


def read(**changes):
    return ModelSpec.from_header(HEADER | changes, "model.safetensors")


def test_everything_comes_back():
    header = HEADER | EVERYTHING
    spec = ModelSpec.from_header(header, "model.safetensors")
    assert json.loads(json.dumps(spec.to_header())) == header
    assert header.keys() == {field.name for field in dataclasses.fields(ModelSpec)} - {"further"}
    assert header["recipe"].keys() == {field.name for field in dataclasses.fields(TrainingRecipe)}


def test_required_entries_alone_get_the_defaults():
    spec = read()
    assert spec == ModelSpec(**REQUIRED)
    assert (spec.image_size, spec.crop_size, spec.labels) == (1024, 1024, ("background", "foreground"))
    assert read(out_channels=2).labels == ("background", "class 1", "class 2")
    assert read(crop_size=512).pixel_scale == 2


def test_what_later_versions_add_is_kept():
    spec = read(shadows=0.5, threshold=None)
    assert spec.further == {"shadows": 0.5}
    assert spec.threshold == 0.5
    assert spec.to_header()["shadows"] == 0.5


@pytest.mark.parametrize("name", REQUIRED)
def test_nothing_goes_without_the_required(name):
    with pytest.raises(AdapterFileError, match=rf"model\.safetensors(.|\n)*wrong {name}(.|\n)*found:\s+nothing"):
        read(**{name: None})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("overlap", 1), ("overlap", -0.1), ("overlap", "$x"),
        ("image_size", 15), ("image_size", 8193), ("image_size", 10**400), ("crop_size", 1), ("crop_size", 10**9),
        ("crop_size", False), ("in_channels", 0), ("in_channels", 1025), ("out_channels", 10**9), ("mask_tokens", 0),
        ("mask_tokens", 10**6), ("fit", "stretch"), ("fit", ["pad"]), ("multiclass_head", "$x"), ("activation", "relu"),
        ("activation", {}), ("pixel_values", "$1"), ("percentiles", [1]), ("percentiles", [99, 1]),
        ("percentiles", [-1, 99]), ("percentiles", [1, 101]), ("percentiles", "12"), ("percentiles", [True, 2]),
        ("value_range", [0, float("inf")]), ("value_range", [1, 1]), ("value_range", ["$0", 1]),
        ("value_range", [10**400, 10**401]),
        ("bits", 7), ("bits", 17), ("bits", True), ("ignore", 0.5), ("ignore", 2**40), ("clahe", 1), ("clahe", "true"),
        ("despeckle_looks", 0),
        ("despeckle_looks", True), ("despeckle_looks", float("nan")), ("despeckle_looks", "$1"), ("threshold", 1.5),
        ("threshold", 10**400), ("threshold", True), ("threshold_by", "iou"), ("temperature", 0),
        ("temperature", float("inf")), ("protocol", "mine"), ("pretrained", "yes"), ("labels", ["a", "a"]),
        ("labels", ["a", ""]), ("labels", ["a", "b\n"]), ("labels", ["a", 201 * "b"]), ("labels", {"a": 1}),
        ("labels", 2000 * ["a"]), ("labels", ["a", ["b"]]), ("dataset", 201 * "x"), ("dataset", "a\x1b[2Jb"),
        ("dataset", "a\0"), ("folds", 1), ("fold", -1), ("fold", 0.5), ("group_pattern", 3000 * "a"),
        ("validation_dice", 2), ("network_name", 300 * "a"), ("adaptation", "lora"), ("base_sha256", 64 * "A"),
    ],
)  # fmt: skip
def test_entries_of_another_type_or_out_of_range_are_named(name, value):
    with pytest.raises(AdapterFileError, match=rf"model\.safetensors(.|\n)*wrong {name}") as error:
        read(**{name: value})
    assert len(str(error.value)) < 1000
    with pytest.raises(ConfigError, match=f"wrong {name}"):
        ModelSpec(**REQUIRED | {name: value})


@pytest.mark.parametrize("labels", [["background"], ["background", "a", "b"]])
def test_labels_have_to_fit_the_classes(labels):
    with pytest.raises(AdapterFileError, match=r"labels of the model do not fit(.|\n)*background and 1 more"):
        read(labels=labels)


@pytest.mark.parametrize("version", [None, 2, "1", True, 50_000_000 * "9"])
def test_another_format_names_the_version_to_use(version):
    with pytest.raises(AdapterFileError, match="unknown format") as error:
        read(format=version)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "$__import__('os')"), ("modality", "x-ray"), ("elastic_magnitude", -1), ("speckle_looks", [4, 1]),
        ("elastic_scale", 2.0), ("ema_decay", 1.0), ("colour_share", 2), ("blur_share", "$1"),
        ("speckle_looks", "@x"), ("loss_weights", {"$x": 1.0}), ("loss_weights", {"bce": "$1"}),
        ("loss_weights", {"bce": -1}), ("loss_ramps", {"cldice": 2}), ("skeleton", "%x"), ("skeleton_iterations", 1e9),
        ("loss_smooth", 0), ("matching_loss", "true"), ("epochs", 0), ("batch_size", 2.5), ("processes", 10**9),
        ("learning_rate", float("inf")), ("weight_decay", "$0"), ("schedule", "$x"), ("warmup_fraction", 2),
        ("max_grad_norm", -1), ("calibrate", 1), ("sampling", "$x"),
    ],
)  # fmt: skip
def test_nothing_that_a_recipe_says_becomes_code(name, value):
    with pytest.raises(AdapterFileError, match=rf"model\.safetensors(.|\n)*wrong {name} of the recipe"):
        read(recipe={name: value})
    assert TrainingRecipe.of_settings({name: value, "epochs": 7 if name != "epochs" else value}) in (
        TrainingRecipe(epochs=7), TrainingRecipe(),
    )  # fmt: skip


def test_a_recipe_of_a_later_version_and_one_of_another_form():
    assert read(recipe={"epochs": 2, "later": "$x"}).recipe == TrainingRecipe(epochs=2)
    with pytest.raises(AdapterFileError, match="wrong recipe of the model"):
        read(recipe="$x")
