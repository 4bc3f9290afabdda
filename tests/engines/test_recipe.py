"""A model is trained on by the recipe it was trained by, and by nothing that stands anywhere else."""

from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from topolora_monai.adapters import adapt, preset_config
from topolora_monai.adapters.files import describe_model
from topolora_monai.engines import training_workflow
from topolora_monai.model import TrainingRecipe
from topolora_monai.networks import build_network
from topolora_monai.packaged import bundle_folder
from topolora_monai.planning import Plan

SAR = {
    "modality": "sar", "scaling#pixel_values": "db", "model#in_channels": 2, "train#speckle#looks": [2.0, 4.0],
}  # fmt: skip
PROBE = {"_target_": "topolora_monai.engines.Recipe"}


class Data:
    """No images: what is asked for is how they would be trained on."""

    root, classes, label_values = Path("/"), ("background", "thing"), None

    def __init__(self, spec):
        self.channels, self.pixel_values, self.modality = spec.in_channels, spec.pixel_values, "optical"

    def items(self, split):
        return []

    def describe(self):
        return {"dataset": "none"}


PLAN = Plan("vit_tiny_test", 256, 128, "foreground", 0.25, 2, 30, 4, 2e-3)


def trained(*overlays, **settings):
    """What a run of the bundle would remember, by a plan that nobody has to measure."""
    parser = ConfigParser()
    parser.read_config([bundle_folder() / "configs" / name for name in ("train.yaml", *overlays)])
    parser.update(
        {"model#in_channels": 3, "modality": "optical", "classes": ["background", "thing"], "plan": PLAN, **settings}
    )
    parser["probe"] = PROBE
    return parser.get_parsed_content("probe").remembered(settings.get("processes", 1))


def again(recipe, **properties):
    """The training workflow for a model of a recipe."""
    network = build_network("vit_tiny_test", image_size=64, in_channels=properties.get("in_channels", 3))
    adaptation = adapt(network, preset_config("lora"))
    spec = describe_model(
        adaptation, "adapter.safetensors", crop_size=32, recipe=recipe and recipe.to_dict(), **properties
    )
    workflow = training_workflow(spec, adaptation, Data(spec), probe=PROBE)
    workflow.parser.parse()
    return workflow.parser.get_parsed_content


def transforms(get):
    kinds = {type(one).__name__: one for one in get("train#preprocessing").transforms}
    return kinds, {"RandScaleIntensityd", "RandAdjustContrastd"} & kinds.keys()


def test_conv_lora_s_structure_loss():
    recipe = trained("conv_lora.yaml")
    assert recipe.name == "conv_lora"
    get = again(recipe)
    assert list(get("topology_loss").terms) == ["structure"]
    assert get("lr_scheduler#schedule") == "polynomial"
    assert get("optimizer").defaults["lr"] == 1e-4


def test_radar_images_get_speckle_and_keep_their_brightness():
    get = again(trained(**SAR), pixel_values="db", in_channels=2)
    kinds, jitter = transforms(get)
    assert kinds["RandSpeckled"].looks == (2.0, 4.0)
    assert not jitter
    get = again(trained(modality="sar"))  # 8-bit pictures of a radar
    assert "RandSpeckled" in transforms(get)[0]
    assert not transforms(get)[1]
    assert len(transforms(again(trained()))[1]) == 2


@pytest.mark.parametrize("recipe", [None, trained()])
def test_cldice_weighs_as_much_as_in_training(recipe):
    loss = again(recipe)("topology_loss")
    assert {name: weight for name, weight in loss.weights.items() if weight} == {"bce": 1, "dice": 1, "cldice": 1}


def test_augmentation_is_repeated_with_room_for_what_is_shrunk():
    settings = {"train#elastic#scale_range": [0.5, 2.0], "train#colour#p": 0.5, "train#blur#prob": 0.25}
    plain, more = again(trained()), again(trained(**settings))
    assert (plain("train#margin"), more("train#margin")) == (48, 76)  # of crops of 32 px
    kinds, _ = transforms(more)
    assert kinds["RandConnectedElasticd"].scale_range == [0.5, 2.0]
    assert (kinds["RandTorchVisiond"].trans.trans.p, kinds["RandGaussianSmoothd"].prob) == (0.5, 0.25)
    kinds, _ = transforms(plain)
    assert (kinds["RandTorchVisiond"].trans.trans.p, kinds["RandGaussianSmoothd"].prob) == (0, 0)
    assert plain("train#cutmix").prob == 0


def test_published_protocol_goes_on():
    recipe = trained("published.yaml", network_name="vit_b", epochs=3)
    get = again(recipe, protocol="published", fit="squash")
    kinds, _ = transforms(get)
    assert "RandZoomd" in kinds
    assert get("topology_loss#smooth") == 1e-6
    assert (get("batch_size"), get("accumulation_steps"), get("crop_size")) == (1, 4, 32)


def test_how_the_decision_is_made():
    get = again(trained(**{"validate#calibrate": "false"}), threshold_by="cldice")
    assert get("validate#by_cldice")
    assert get("validate#calibrate") is False


def test_a_recipe_is_the_same_after_any_number_of_trainings():
    settings = {
        "topology_loss#weights#balanced_bce": 2.0, "topology_loss#ramps#cldice": 0.25, "topology_loss#iterations": 3,
        "loss#loss#matching": "false", "optimizer#weight_decay": 0.0, "train#elastic#magnitude_range#1": 3.5,
        "lr_scheduler#warmup_fraction": 0.2, "train#ema#decay": 0.9, "train#elastic#scale_range": [0.5, 2.0],
    }  # fmt: skip
    before = trained(**SAR, **settings, epochs=7)
    assert before.matching_loss is False
    assert None not in before.to_dict().values()
    assert len(before.to_dict()) == len(TrainingRecipe.__dataclass_fields__)
    assert again(before, pixel_values="db", in_channels=2)("probe").remembered(1) == before


def test_one_process_takes_the_steps_of_several():
    get = again(trained(accumulation_steps=2, processes=3))
    assert (get("batch_size"), get("accumulation_steps")) == (2, 6)
