"""MONAI's standard properties of every configuration: each is there, and setting it changes what runs."""

import sys

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, create_workflow
from monai.bundle.properties import InferProperties, TrainProperties
from monai.data import Dataset
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from monai.transforms import Compose
from PIL import Image

from tests.bundles.helpers import BUNDLE, SMALL
from tests.conftest import write_fake_drive
from tests.release.test_release import write_run
from topolora_monai.networks import build_network
from topolora_monai.release import merged_network, release

TESTED = {"bundle_root", "device", "dataset_dir", "dataset_data", "max_epochs"}  # each by a test of its own


@pytest.fixture(autouse=True)
def hook():
    """Uncaught errors as they were: the workflows install their own way of telling them."""
    before = sys.excepthook
    yield
    sys.excepthook = before


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("properties") / "run")


@pytest.fixture(scope="module")
def released(run):
    return release(run, run.parent / "bundle")


def images(folder, *names):
    folder.mkdir(parents=True)
    for name in names:
        picture = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{name}.png")
    return str(folder)


@pytest.fixture(params=["inference.yaml", "released bundle"])
def inference(request, run, released, tmp_path):
    """Makes a workflow that segments ``a.png``, or what overrides say."""
    folder = released if request.param == "released bundle" else BUNDLE
    place = {"bundle_root": str(released)} if folder == released else {"adapter": str(run / "adapter.safetensors")}

    def make(**options):
        shared = {"precision": "fp32", "output_dir": str(tmp_path / "out"), "device": "cpu"}
        return create_workflow(
            config_file=str(folder / "configs/inference.yaml"), workflow_type="infer", run_id="inferring",
            logging_file=False, **shared | place | options,
        )  # fmt: skip

    return make


@pytest.fixture
def training(fake_drive, tmp_path):
    def make(**options):
        data = {
            "dataset_name": "drive",
            "dataset_dir": str(fake_drive),
            "data#allow_partial": True,
            "tracker#trackers": [],
        }
        return create_workflow(
            config_file=str(BUNDLE / "configs/train.yaml"), workflow_type="train", run_id="training",
            logging_file=False, output_dir=str(tmp_path / "run"), **SMALL | data | options,
        )  # fmt: skip

    return make


def masks(tmp_path):
    return sorted(path.name for path in (tmp_path / "out").glob("*_mask*.png"))


class Marker:
    """Stands for a part of an engine, and notes that it was used."""

    def __init__(self, result=None):
        self.result = result
        self.used = 0

    def __call__(self, given, *_, **__):
        self.used += 1
        return given if self.result is None else self.result

    def attach(self, *_):
        self.used += 1

    def run(self):
        self.used += 1


def set_property(workflow, name, value):
    workflow.initialize()
    setattr(workflow, name, value)
    workflow.initialize()
    return workflow


@pytest.mark.parametrize(("config", "kind"), [("train", "train"), ("evaluate", "infer"), ("inference", "infer")])
def test_every_configuration_has_them(config, kind, run, fake_drive, tmp_path):
    options = {
        "train": {"dataset_name": "drive", "dataset_dir": str(fake_drive), "data#allow_partial": True},
        "evaluate": {
            "adapter": str(run / "adapter.safetensors"),
            "dataset_dir": str(fake_drive),
            "allow_partial": True,
        },
        "inference": {"adapter": str(run / "adapter.safetensors"), "dataset_dir": images(tmp_path / "in", "a")},
    }[config]
    file = str(BUNDLE / f"configs/{config}.yaml")
    out = str(tmp_path / "out")
    workflow = create_workflow(config_file=file, workflow_type=kind, logging_file=False, output_dir=out, **options)
    assert workflow.check_properties() == []


def test_every_released_bundle_has_them(released, tmp_path):
    options = {"bundle_root": str(released), "dataset_dir": images(tmp_path / "in", "a")}
    options["output_dir"] = str(tmp_path / "out")
    file = str(released / "configs/inference.yaml")
    workflow = create_workflow(config_file=file, workflow_type="infer", logging_file=False, **options)
    assert workflow.check_properties() == []


class TestInference:
    @pytest.mark.parametrize("name", ["dataset_dir", "input"])
    def test_images_by_option(self, inference, tmp_path, name):
        images(tmp_path / "images", "other")
        inference(**{name: images(tmp_path / "asked", "a")}).run()
        assert masks(tmp_path) == ["a_mask.png"]

    def test_dataset_dir(self, inference, tmp_path):
        workflow = inference(dataset_dir=images(tmp_path / "first", "other"))
        set_property(workflow, "dataset_dir", images(tmp_path / "asked", "a")).run()
        assert workflow.dataset_dir == str(tmp_path / "asked")
        assert masks(tmp_path) == ["a_mask.png"]

    def test_dataset_data(self, inference, tmp_path):
        workflow = inference(dataset_dir=images(tmp_path / "first", "other"))
        asked = [{"name": "a", "image": images(tmp_path / "asked", "a") + "/a.png"}]
        set_property(workflow, "dataset_data", asked).run()
        assert masks(tmp_path) == ["a_mask.png"]

    def test_device(self, inference, tmp_path):
        workflow = set_property(inference(dataset_dir=images(tmp_path / "in", "a")), "device", torch.device("meta"))
        assert workflow.evaluator.state.device.type == "meta"
        assert {p.device.type for p in workflow.evaluator.network.parameters()} == {"meta"}

    @pytest.mark.parametrize("name", ["adapter", "model"])
    def test_bundle_root(self, released, name):
        parser = ConfigParser()
        parser.read_config((BUNDLE if name == "adapter" else released) / "configs/inference.yaml")
        parser["bundle_root"] = "/bundles/mine"
        assert parser.get_parsed_content(name).startswith("/bundles/mine/")

    @pytest.mark.parametrize("name", sorted(InferProperties.keys() - TESTED))
    def test_parts_of_the_engine(self, inference, tmp_path, name):
        workflow = inference(dataset_dir=images(tmp_path / "in", "a"))
        if name == "network_def":
            stored = workflow.parser.get("model") is not None
            network = merged_network(workflow.parser.get_parsed_content("spec")) if stored else small_network()
            used = set_property(workflow, name, network).evaluator.network
            assert any(p is q for p, q in zip(used.buffers(), network.buffers(), strict=False))
            return
        if name == "key_metric":
            assert workflow.check_properties() == []  # there is none to set
            return
        marker = {"dataset": Dataset([]), "preprocessing": Compose([]), "inferer": SimpleInferer()}.get(name, Marker())
        used = Marker() if name == "handlers" else marker
        set_property(workflow, name, [used] if name == "handlers" else marker)
        evaluator = workflow.evaluator
        if name == "dataset":
            assert evaluator.data_loader.dataset is marker
        elif name == "inferer":
            assert evaluator.inferer is marker
        elif name == "preprocessing":
            assert workflow.dataset.transform is marker
        elif name in ("handlers", "evaluator"):
            workflow.run()
            assert used.used
        else:
            assert name == "postprocessing"
            workflow.handlers = []
            workflow.initialize()
            workflow.run()
            assert marker.used == 1


class TestTraining:
    def test_dataset_dir(self, training, tmp_path):
        other = write_fake_drive(tmp_path / "other/DRIVE")
        workflow = set_property(training(), "dataset_dir", str(other))
        assert {str(other) in item["image"] for item in workflow.train_dataset_data} == {True}

    def test_max_epochs_is_the_length_of_the_schedule_too(self, training):
        workflow = set_property(training(epochs=7), "max_epochs", 3)
        steps = len(workflow.parser.get_parsed_content("train#dataloader"))
        assert workflow.trainer.state.max_epochs == 3
        assert workflow.parser.get_parsed_content("lr_scheduler#total_iterations") == 3 * steps

    def test_bundle_root(self):
        parser = ConfigParser()
        parser.read_config(BUNDLE / "configs/train.yaml")
        parser["bundle_root"] = "/bundles/mine"
        assert parser.get_parsed_content("output_dir").startswith("/bundles/mine/runs/")

    def test_device(self, training):
        workflow = set_property(training(), "device", torch.device("meta"))
        assert workflow.trainer.state.device.type == workflow.evaluator.state.device.type == "meta"

    @pytest.mark.parametrize("name", sorted(TrainProperties.keys() - TESTED))
    def test_parts_of_the_engines(self, training, name):
        workflow = training(epochs=1)
        inferer, preprocessing = name.endswith("inferer"), name.endswith("preprocessing")
        marker = SimpleInferer() if inferer else Compose([]) if preprocessing else Marker()
        if workflow.parser.get(TrainProperties[name]["id"]) is None:
            assert name in ("train_postprocessing", "train_key_metric")  # there are none to set
            return
        if name == "network_def":
            network = small_network()
            assert set_property(workflow, name, network).trainer.network is network
        elif name == "val_interval":
            workflow = set_property(workflow, name, 5)
            (handler,) = [h for h in workflow.train_handlers if type(h).__name__ == "ValidationHandler"]
            assert handler.interval == 5
        elif name.endswith("handlers"):
            set_property(workflow, name, [marker])
            assert workflow.trainer is not None
            assert workflow.evaluator is not None
            assert marker.used
        elif name == "trainer":
            set_property(workflow, name, marker).run()
            assert marker.used
        elif name == "evaluator":
            evaluator = SupervisedEvaluator(torch.device("cpu"), [], small_network())
            workflow = set_property(workflow, name, evaluator)
            (handler,) = [h for h in workflow.train_handlers if type(h).__name__ == "ValidationHandler"]
            assert handler.validator is evaluator
        elif name == "val_key_metric":
            workflow = set_property(workflow, name, {"mine": marker})
            assert workflow.evaluator is not None
            assert marker.used
        elif name == "val_postprocessing":
            workflow = set_property(workflow, name, marker)
            workflow.parser["validate#key_metric"] = None
            workflow.parser["validate#handlers"] = []
            workflow.initialize()
            workflow.evaluator.run()
            assert marker.used
        else:
            part, _, kind = name.partition("_")
            data = kind in ("dataset", "dataset_data")
            value = workflow_items(workflow, name)[:1] if data else marker
            workflow = set_property(workflow, name, value)
            engine = workflow.trainer if part == "train" else workflow.evaluator
            found = {
                "dataset": lambda: engine.data_loader.dataset,
                "dataset_data": lambda: list(engine.data_loader.dataset.data),
                "inferer": lambda: engine.inferer,
                "preprocessing": lambda: getattr(workflow, f"{part}_dataset").transform,
            }[kind]()
            assert found is value or (data and len(found) == 1)


def small_network():
    return build_network("vit_tiny_test", image_size=64)


def workflow_items(workflow, name):
    workflow.initialize()
    return list(workflow.train_dataset_data if name.startswith("train") else workflow.val_dataset_data)
