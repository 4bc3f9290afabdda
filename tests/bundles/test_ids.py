"""Few ids, each once; one that nothing reads is refused, and one that has moved says where to."""

import pytest
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow

from tests.bundles.helpers import BUNDLE, CONFIGS, SMALL
from topolora_monai.engines import Recipe
from topolora_monai.engines.settings import MOVED
from topolora_monai.errors import ConfigError

OVERLAYS = ("multi_gpu_train.yaml", "conv_lora.yaml", "published.yaml", "published_conv_lora.yaml", "quick.yaml")


def stated(name: str) -> dict:
    return yaml.safe_load((CONFIGS / name).read_text())


def refusal(*names: str, **options) -> str:
    """What a run with these overrides says before anything is read."""
    names = names or ("train.yaml",)
    small = SMALL if names[0] == "train.yaml" else {}
    paths = [str(CONFIGS / name) for name in names]
    workflow = ConfigWorkflow(paths, logging_file=False, workflow_type="train", **small | options)
    (check,) = (line for line in workflow.parser["initialize"] if "check_ids" in line)
    workflow.parser["initialize"] = [check]
    try:
        workflow.initialize()
    except Exception as error:
        cause = error
        while cause is not None and not isinstance(cause, ConfigError):
            cause = cause.__cause__
        assert cause is not None, error
        return str(cause)
    return ""


def test_there_are_at_most_sixty_and_one_bundle_states_them():
    assert len(stated("train.yaml")) <= 60
    assert [path.parent.parent for path in BUNDLE.parent.glob("*/configs/train.yaml")] == [BUNDLE]


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_hold_what_differs_alone(name):
    """No value that ``train.yaml`` has already, and no place that it does not have."""
    base = ConfigParser(stated("train.yaml"))
    own = {"local_rank", "gpu", "rank", "validate#sampler", "validate#dataloader#sampler"}
    for place, value in ((place.removeprefix("+"), value) for place, value in stated(name).items()):
        assert place in own or base.get(place) != value, place
        parent = place.rpartition("#")[0]
        assert place in own or base.get(parent or place) is not None, place


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("epocs", "epochs"),
        ("data_dir", "dataset_dir"),
        ("sede", "seed"),
        ("model#maks_tokens", "model#mask_tokens"),
        ("train#cache_dri", "train#cache_dir"),
    ],
)
def test_misspelt_ones_are_refused_with_the_closest(name, closest):
    assert f"did you mean --{closest}?" in refusal(**{name: 3})


@pytest.mark.parametrize(
    ("config", "name", "closest"),
    [
        ("evaluate.yaml", "treshold", "threshold"),
        ("evaluate.yaml", "anotator", "annotator"),
        ("evaluate.yaml", "validate#handler", "validate#handlers"),
        ("inference.yaml", "flip_axis", "flip_axes"),
        ("inference.yaml", "inputs", "input"),
    ],
)
def test_misspelt_ones_of_evaluation_and_inference_are_refused_with_the_closest(config, name, closest):
    assert f"did you mean --{closest}?" in refusal(config, **{name: 3})


def test_a_part_is_no_value():
    assert "--adaptation#..." in refusal(adaptation=True)


@pytest.mark.parametrize("config", ["evaluate.yaml", "inference.yaml"])
def test_what_evaluation_and_inference_state_passes(config):
    assert refusal(config) == ""
    assert refusal(config, pixel_values="db", threshold=0.5, again=["$print('again')"]) == ""
    assert "lora_rank" in refusal(config, lora_rank=4)
    assert "is now" not in refusal(config, lora_rank=4)  # has moved in training alone


@pytest.mark.parametrize(
    ("name", "now"),
    [
        ("lora_rank", "--adaptation#config#lora#r"),
        ("decoder_lora", "--adaptation#config#decoder_lora"),
        ("cldice_weight", "--topology_loss#weights#cldice"),
        ("allow_partial", "--data#allow_partial"),
        ("protocol", "['train.yaml','published.yaml']"),
    ],
)
def test_those_that_have_moved_say_where_to(name, now):
    assert f"{name} is now" in refusal(**{name: 1})
    assert now in refusal(**{name: 1})


@pytest.mark.parametrize("names", [("train.yaml",), *(("train.yaml", name) for name in OVERLAYS)])
def test_what_the_files_state_and_what_can_be_run_passes(names):
    assert refusal(*names) == ""
    assert refusal(*names, output_dir="out", crop_size=32, again=["$print('again')"]) == ""


def test_every_new_place_can_be_set():
    config = ConfigParser(stated("train.yaml"))
    for old, new in MOVED.items():
        assert old not in stated("train.yaml")
        place = new.partition(" ")[0]
        if place != "config_file":
            assert isinstance(config[place.rpartition("#")[0]], dict), place


def test_what_is_elsewhere_is_not_compared_however_deep_it_lies():
    config = {
        "tracker": {"uri": "a"},
        "train": {"cache": 1, "size": 2},
        "recipe": {"_target_": "topolora_monai.engines.Recipe", "elsewhere": ["tracker", "train#cache"]},
    }
    recipe: Recipe = ConfigParser(config).get_parsed_content("recipe")
    assert {name for name in recipe.settings() if not name.startswith("recipe")} == {"train#size"}
