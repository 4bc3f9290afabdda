"""Text of an adapter file is data: in bundles, their metadata, pages and reports it is shown and never run."""

import json
import sys

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, create_workflow
from PIL import Image

from tests.bundles.helpers import CONFIGS
from tests.release.test_release import write_run
from topolora_monai.adapters import adapt, preset_config, read_spec, save_adapter
from topolora_monai.model.predictor import Predictor
from topolora_monai.networks import build_network
from topolora_monai.release import release
from topolora_monai.transforms import IntensityScaling

NAMES = ["background", "$100 import notes", "@home", "%x", "a@##b", "_target_", "<script>x</script>|*b*"]


def code(marker):
    """A name that leaves a file behind if anybody runs it."""
    return f"$__import__('pathlib').Path({str(marker)!r}).touch()"


def write_bundle(folder, labels, **properties):
    """A released bundle of classes of these names."""
    classes = len(labels) - 1
    run = write_run(folder / "run", classes=classes, labels=labels, activation="softmax", **properties)
    return release(run, folder / "bundle")


def pictures(folder):
    folder.mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(picture).save(folder / "a.png")
    return folder


def segment(config, folder, **options):
    """As ``monai.bundle run inferring`` does, in this process."""
    workflow = create_workflow(
        config_file=str(config), workflow_type="infer", run_id="inferring", logging_file=False, device="cpu",
        precision="fp32", dataset_dir=str(pictures(folder / "in")), output_dir=str(folder / "out"), **options,
    )  # fmt: skip
    workflow.run()
    return workflow


@pytest.fixture
def hook():
    """Uncaught errors as they were: the workflows install their own way of telling them."""
    before = sys.excepthook
    yield
    sys.excepthook = before


@pytest.mark.usefixtures("hook")
class TestReleasedBundle:
    def test_names_of_monais_own_signs_work(self, tmp_path):
        bundle = write_bundle(tmp_path, NAMES, dataset="$drive", preset_name="%preset", partial="@3 of 40")
        segment(bundle / "configs/inference.yaml", tmp_path, bundle_root=str(bundle))
        names = json.loads((tmp_path / "out/classes.json").read_text())
        assert names == {str(number): name for number, name in enumerate(NAMES)}
        mask = np.asarray(Image.open(tmp_path / "out/a_mask.png"))
        assert mask.shape == (40, 50)
        assert len(np.unique(mask)) > 1

    def test_nothing_runs(self, tmp_path):
        marker = tmp_path / "ran"
        evil = code(marker)
        bundle = write_bundle(
            tmp_path, ["background", evil, f"{evil} ", "%/etc/x.json"], dataset=evil, split_scheme=evil, annotator=evil,
            partial=evil, group_pattern=evil, preset_name=evil, further={"note": evil},
        )  # fmt: skip
        workflow = segment(bundle / "configs/inference.yaml", tmp_path, bundle_root=str(bundle))
        for name in workflow.properties:  # also what an application may look at
            getattr(workflow, name)
        workflow.parser.get_parsed_content("_meta_")
        assert Predictor.from_bundle(bundle).spec.labels[1] == evil
        assert not marker.exists()

    def test_configuration_holds_no_text_of_the_file(self, tmp_path):
        bundle = write_bundle(tmp_path, NAMES, dataset="$drive")
        config = (bundle / "configs/inference.yaml").read_text()
        assert not any(name in config for name in [*NAMES[1:5], "$drive", "<script>"])
        assert yaml.safe_load(config)["classes"] == "$list(@spec.labels)"
        assert read_spec(bundle / "models/model.json").labels == tuple(NAMES)

    def test_metadata_and_page_show_names(self, tmp_path):
        bundle = write_bundle(tmp_path, NAMES, dataset="$drive")
        described = json.loads((bundle / "configs/metadata.json").read_text())
        shown = described["network_data_format"]["outputs"]["pred"]["channel_def"].values()
        assert [name.replace("\u2060", "") for name in shown] == NAMES
        parser = ConfigParser({})
        parser.read_meta(str(bundle / "configs/metadata.json"))
        parser.parse()
        assert parser.get_parsed_content("_meta_")["data_source"] == "\u2060$drive"
        card = (bundle / "docs/README.md").read_text()
        assert "<script>" not in card
        assert r"\<script\>x\</script\>\|\*b\*" in card

    def test_numbers_are_read_from_the_file(self, tmp_path):
        bundle = write_bundle(tmp_path, ["background", "a", "b"], pixel_values="amplitude", value_range=[-25, 0])
        parser = ConfigParser()
        parser.read_config(bundle / "configs/inference.yaml")
        parser["bundle_root"] = str(bundle)
        scaling = parser.get_parsed_content("model_spec").scaling
        assert scaling == IntensityScaling("amplitude", (1.0, 99.0), (-25.0, 0.0))
        assert (parser.get_parsed_content("crop_size"), parser.get_parsed_content("threshold")) == (32, 0.4)


@pytest.mark.usefixtures("hook")
def test_nothing_runs_beside_an_adapter(tmp_path):
    marker = tmp_path / "ran"
    evil = code(marker)
    network = build_network("vit_tiny_test", image_size=64, out_channels=2)
    save_adapter(
        adapt(network, preset_config("decoder_only")), tmp_path / "a.safetensors", crop_size=32,
        labels=["background", evil, "%x"], activation="softmax", dataset=evil, note=evil,
    )  # fmt: skip
    workflow = segment(CONFIGS / "inference.yaml", tmp_path, adapter=str(tmp_path / "a.safetensors"))
    assert workflow.parser.get_parsed_content("classes") == ["background", evil, "%x"]
    assert json.loads((tmp_path / "out/classes.json").read_text())["1"] == evil
    assert not marker.exists()


@pytest.mark.usefixtures("hook")
def test_file_of_required_entries_alone_is_segmented_with(tmp_path):
    adaptation = adapt(build_network("vit_tiny_test", image_size=64), preset_config("lora"))
    generator = torch.Generator().manual_seed(1)
    for parameter in adaptation.trainable().values():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    save_adapter(adaptation, tmp_path / "a.safetensors")
    segment(CONFIGS / "inference.yaml", tmp_path, adapter=str(tmp_path / "a.safetensors"), overlap=0.0)
    image = torch.from_numpy(np.asarray(Image.open(tmp_path / "in/a.png"))).permute(2, 0, 1)[None] / 255
    padded = torch.nn.functional.pad(image, (7, 7, 12, 12))  # as MONAI centres an image that is smaller than a tile
    with torch.no_grad():
        expected = adaptation.network.eval()(padded).sigmoid()[0, 0, 12:-12, 7:-7]
    found = np.asarray(Image.open(tmp_path / "out/a_probability.png")) / 65535
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-3)
