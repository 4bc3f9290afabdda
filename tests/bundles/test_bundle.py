"""Every configuration runs, from a foreign working directory; a killed run resumes to the same result."""

import csv
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, create_workflow
from PIL import Image
from safetensors.torch import load_file

from tests.bundles.helpers import BUNDLE, CONFIGS, SMALL, files, parsed, run, words
from tests.data.fakes import draw
from tests.processes import start_module
from topolora_monai.data import open_dataset
from topolora_monai.spec import ModelSpec


@pytest.fixture
def options(fake_drive, tmp_path):
    return {
        **SMALL, "dataset_name": "drive", "dataset_dir": fake_drive, "data#allow_partial": True,
        "output_dir": tmp_path / "run",
    }  # fmt: skip


def test_train_evaluate_and_infer_from_elsewhere(options, fake_drive, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = run("training", CONFIGS / "train.yaml", elsewhere, **options)
    assert done.returncode == 0, done.stderr
    output = options["output_dir"]
    record = json.loads((output / "training.json").read_text())
    assert record["epochs"] == 2
    assert record["preset"] == "topolora"
    assert record["trainable"] > 100_000
    recorded = json.loads((output / "split.json").read_text())
    assert sorted(recorded["test"]) == ["01_test", "02_test"]
    assert record["images"] == {split: len(recorded[split]) for split in ("training", "validation", "test")}
    assert record["split"] == recorded
    assert any((output / "tensorboard").iterdir())

    done = run(
        "evaluating", CONFIGS / "evaluate.yaml", elsewhere, output_dir=output, dataset_dir=fake_drive, precision="fp32"
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((output / "evaluation/summary.json").read_text())
    for key in ("dataset", "protocol", "network_name", "preset", "seed", "command", "commit", "hardware", "seconds",
                "peak_memory_bytes", "trainable", "validation", "test"):  # fmt: skip
        assert key in summary, key
    assert "split" not in summary
    with (output / "evaluation/per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["01_test", "02_test"]
    assert {path.name for path in (output / "evaluation/pictures").iterdir()} == {"01_test.png", "02_test.png"}

    done = run("inferring", CONFIGS / "inference.yaml", elsewhere, adapter=output / "adapter.safetensors",
               input=fake_drive / "test/images", output_dir=tmp_path / "masks", precision="fp32")  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("01_test", "02_test"):
        mask = np.asarray(Image.open(tmp_path / f"masks/{name}_mask.png"))
        probability = np.asarray(Image.open(tmp_path / f"masks/{name}_probability.png"))
        assert mask.shape == probability.shape == (64, 72)
        assert set(np.unique(mask)) <= {0, 255}
        assert probability.dtype == np.uint16
        assert probability.std() > 0
    assert list(elsewhere.iterdir()) == []


def test_published_protocol_runs(options, tmp_path):
    options |= {"accumulation_steps": 2, "epochs": 1}
    done = run("training", files("train.yaml", "published.yaml"), tmp_path, **options)
    assert done.returncode == 0, done.stderr
    record = json.loads((options["output_dir"] / "training.json").read_text())
    assert record["adaptation"]["conv_adapter_norm"] == "batch"
    done = run("evaluating", CONFIGS / "evaluate.yaml", tmp_path, output_dir=options["output_dir"],
               dataset_dir=options["dataset_dir"], precision="fp32", threshold=0.5)  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads((options["output_dir"] / "evaluation/summary.json").read_text())
    assert summary["test"]["dice"] == summary["test"]["dice_at_half"]


def test_killed_run_resumes_to_the_result_of_an_uninterrupted_one(options, tmp_path):
    options |= {"epochs": 4, "crops_per_image": 3}
    done = run("training", CONFIGS / "train.yaml", tmp_path, **options)
    assert done.returncode == 0, done.stderr

    killed = {**options, "output_dir": tmp_path / "killed"}
    process = start_module(tmp_path, "monai.bundle", *words("training", CONFIGS / "train.yaml", **killed), cwd=tmp_path)
    last = killed["output_dir"] / "last.pt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline and process.is_alive():
        time.sleep(0.01)
    process.kill()
    process.join()
    epoch = torch.load(last, weights_only=True)["epoch"]
    assert 1 <= epoch < 4
    assert not (killed["output_dir"] / "training.json").exists()

    done = run("training", CONFIGS / "train.yaml", tmp_path, **killed)
    assert done.returncode == 0, done.stderr
    assert f"after epoch {epoch} of 4" in done.stderr
    states = [
        torch.load(folder / "last.pt", weights_only=True)["adapter"] for folder in (options["output_dir"], last.parent)
    ]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name
    adapters = [load_file(folder / "adapter.safetensors") for folder in (options["output_dir"], last.parent)]
    assert all(torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])

    again = run("training", CONFIGS / "train.yaml", tmp_path, **killed)
    assert again.returncode == 0
    assert "is finished" in again.stderr


def workflow(**options):
    created = create_workflow(config_file=str(CONFIGS / "train.yaml"), workflow_type="train", **options)
    created.run()
    created.finalize()
    return created


def test_resuming_with_other_settings_or_images_is_refused(options):
    options = {key: str(value) if key.endswith("_dir") else value for key, value in options.items()} | {"epochs": 1}
    workflow(**options)
    with pytest.raises(Exception) as error:
        workflow(**options | {"crops_per_image": 2, "train#geometric#4#prob": 0.25}, learning_rate=0.1)
    said = str(error.getrepr(chain=True))
    assert "--crops_per_image 2, was 1; --train#geometric#4#prob 0.25, was 0.5" in said
    assert "learning_rate 0.1, was" not in said  # may change
    image = next((Path(options["dataset_dir"]) / "training/images").iterdir())
    with Image.open(image) as picture:
        picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(image)
    with pytest.raises(Exception) as error:
        workflow(**options | {"epochs": 2})
    assert f"{image.stem} (" in str(error.getrepr(chain=True))
    assert "other image" in str(error.getrepr(chain=True))


def test_ctrl_c_says_how_to_go_on_and_a_second_run_who_is_first(options, tmp_path):
    options |= {"epochs": 200}
    process = start_module(
        tmp_path, "monai.bundle", *words("training", CONFIGS / "train.yaml", **options), cwd=tmp_path
    )
    last = options["output_dir"] / "last.pt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline and process.is_alive():
        time.sleep(0.01)
    second = run("training", CONFIGS / "train.yaml", tmp_path, **options)
    assert second.returncode == 1
    assert f"process {process.pid} on" in second.stderr
    os.kill(process.pid, signal.SIGINT)
    process.join()
    said = (tmp_path / "err").read_text()
    assert process.exitcode == 130
    epoch = torch.load(last, weights_only=True)["epoch"]
    assert said.splitlines()[-1] == f"stopped; the same command resumes after epoch {epoch}"
    assert "Traceback" not in said


def test_half_precision_accumulation_and_early_stopping(options):
    options = {key: str(value) if key.endswith("_dir") else value for key, value in options.items()}
    created = workflow(**options | {"epochs": 6, "precision": "bf16", "accumulation_steps": 3, "early_stopping": 1,
                                    "learning_rate": 1e-12, "val_interval": 1})  # fmt: skip
    assert created.trainer.state.epoch == 2  # the second validation is no better than the first


@pytest.mark.parametrize(
    ("network_name", "preset"),
    [
        ("vit_tiny_test", "conv_lora"),
        ("vit_tiny_test", "topolora_conv"),
        *((name, None) for name in ("unet_resnet34", "segformer_b0", "mask2former_swin_t", "little_wnet")),
    ],
)
def test_other_methods_and_networks_run_by_name(network_name, preset, options, tmp_path):
    options = {key: str(value) if key.endswith("_dir") else value for key, value in options.items()}
    options |= {"network_name": network_name, "epochs": 1} | ({"preset": preset} if preset else {})
    created = workflow(**options)
    record = json.loads((tmp_path / "run/training.json").read_text())
    assert record["preset"] == (preset or "full")
    assert record["pretrained"] is False
    training = [p.numel() for p in created.trainer.network.parameters() if p.requires_grad]
    assert record["trainable"] == sum(training)
    scored = create_workflow(
        config_file=str(CONFIGS / "evaluate.yaml"), workflow_type="infer", run_id="evaluating", logging_file=False,
        output_dir=options["output_dir"], dataset_dir=options["dataset_dir"], precision="fp32", pictures=False,
    )  # fmt: skip
    scored.run()
    scored.finalize()
    summary = json.loads((tmp_path / "run/evaluation/summary.json").read_text())
    assert summary["pretrained"] is False
    assert 0 < summary["test"]["auc"] < 1


def test_properties_that_applications_read(options):
    options = {key: str(value) if key.endswith("_dir") else value for key, value in options.items()}
    created = create_workflow(config_file=str(CONFIGS / "train.yaml"), workflow_type="train", **options)
    assert created.check_properties() == []
    for name in ("trainer", "evaluator", "network_def", "train_dataset", "val_dataset_data", "max_epochs"):
        assert getattr(created, name) is not None, name


def test_metadata_is_valid_and_true():
    import importlib.metadata

    import jsonschema

    import topolora_monai

    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    schema = json.loads((BUNDLE.parents[1] / "tests/bundles/metadata_schema.json").read_text())
    jsonschema.validate(metadata, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({k: v for k, v in metadata.items() if k != "monai_version"}, schema)
    assert metadata["version"] == topolora_monai.__version__
    assert metadata["version"] in metadata["changelog"]
    lines = (BUNDLE.parents[1] / "constraints.txt").read_text().splitlines()
    lines = [line for line in lines if "==" in line and ">=" not in line]  # what every Python has, the oldest too
    pinned = dict(line.split(";")[0].strip().split("==") for line in lines)
    for package, key in (("monai", "monai"), ("torch", "pytorch"), ("numpy", "numpy")):
        assert pinned[package] == metadata[f"{key}_version"], package
    for package, version in metadata["required_packages_version"].items():
        if package != "topolora_monai":
            assert pinned[package] == version, package
            importlib.metadata.version(package)


def test_definitions_shared_by_configurations_are_equal():
    def load(name):
        return yaml.safe_load((CONFIGS / name).read_text())

    train, evaluate, inference = (load(name) for name in ("train.yaml", "evaluate.yaml", "inference.yaml"))
    for key in ("network_def", "adaptation", "network", "predictor", "postprocessing", "inferer", "device"):
        assert evaluate[key] == inference[key], key
    for key in ("device", "label_values"):
        assert train[key] == evaluate[key], key
    assert not {"initialize", "finalize"} & load("multi_gpu_train.yaml").keys()
    joined = train["initialize"].index("@train#join")  # before anything that one process alone may do
    assert all(n > joined for n, line in enumerate(train["initialize"]) if "_output" in line)
    trained, scored = (part["transforms"] for part in (train["validate"]["postprocessing"], evaluate["postprocessing"]))
    assert trained == [{**scored[0], "other": scored[0]["other"].replace("@model_spec.", "@")}]


@pytest.mark.parametrize("name", ["train.yaml", "evaluate.yaml", "inference.yaml"])
def test_every_reference_and_target_resolves(name):
    parser = ConfigParser()
    parser.read_config(CONFIGS / name)
    parser.parse()
    assert parser.config["run"]
    alias = {"train.yaml": "training", "evaluate.yaml": "evaluating", "inference.yaml": "inferring"}[name]
    assert parser.config[alias] == "%run" or parser.config[alias] == parser.config["run"]


def test_augmentation_of_radar_images_is_speckle_and_not_colour(tmp_path):
    for name, modality in (("sos", "sar"), ("cvc_clinicdb", "optical")):
        root = draw(name, tmp_path / name, every=97)
        assert open_dataset(name, root, allow_partial=True).modality == modality
        for protocol in ("native", "published"):
            names = ["train.yaml"] + (["published.yaml"] if protocol == "published" else [])
            given = {"dataset_name": name, "dataset_dir": str(root), "data#allow_partial": True}
            parser = parsed(*names, **given)
            kinds = [type(t).__name__ for t in parser.get_parsed_content("train#preprocessing").transforms]
            colour = {"RandTorchVisiond", "RandAdjustContrastd", "RandScaleIntensityd"} & set(kinds)
            assert bool(colour) == (modality == "optical"), (name, protocol, kinds)
            assert ("RandSpeckled" in kinds) == (modality == "sar" and protocol == "native")
            checked = [type(t).__name__ for t in parser.get_parsed_content("validate#preprocessing").transforms]
            assert checked == (["LoadItem"] if protocol == "native" else ["LoadItem", "Resized"])


def test_published_colour_is_the_authors():
    """One image in five changes, its hue by up to half a turn; losses are smoothed by a millionth."""
    parser = parsed("train.yaml", "published.yaml")
    (jitter,) = parser.get_parsed_content("train#optical")
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    changed = [not torch.equal(jitter({"image": image.clone()})["image"], image) for _ in range(400)]
    assert 0.14 < np.mean(changed) < 0.26
    red = torch.zeros(3, 4, 4)
    red[0] = 1.0
    hues = [jitter({"image": red.clone()})["image"].mean(dim=(1, 2)).argmax().item() for _ in range(200)]
    assert {0, 1, 2} == set(hues)
    assert parser.get_parsed_content("topology_loss").terms["dice"].dice.smooth_nr == 1e-6


@pytest.mark.parametrize(
    ("classes", "encoding"),
    [(["background", "road"], {255: -1}), (["background", "cup", "window"], {0: 0, 1: 1, 2: 2, 255: -1})],
)
def test_ignored_value_is_the_same_in_training_and_evaluation(tmp_path, classes, encoding):
    for number in range(10):
        for folder in ("images", "masks"):
            (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 2 if folder == "masks" else 9).save(tmp_path / f"set/{folder}/{number}.png")
    given = {"dataset_name": "folder", "dataset_dir": str(tmp_path / "set")}
    train = parsed("train.yaml", **given, classes=classes, ignore=255)
    assert train.get_parsed_content("loading")[0].label_values == encoding
    evaluate = ConfigParser()
    evaluate.read_config(CONFIGS / "evaluate.yaml")
    spec = ModelSpec(
        network_name="vit_tiny_test",
        base_sha256=64 * "0",
        adaptation={},
        package_version="1.0",
        dataset="folder",
        labels=tuple(classes),
        out_channels=len(classes) - 1,
        ignore=255,
    )
    evaluate.config.update(given | {"spec": spec})
    assert evaluate.get_parsed_content("loading").transforms[0].label_values == encoding
