"""The same data, recipe, seed and global batch give the same loss curve, whoever trains."""

import json
import os
import shutil
import subprocess
import sys

import ignite.distributed as idist
import pytest
from ignite.engine import Events
from monai.bundle import ConfigWorkflow

from tests.annotation.conftest import write_sample
from tests.bundles.helpers import CONFIGS
from topolora_monai.adapters import adapt, preset_config, read_spec, save_adapter
from topolora_monai.annotation import AdapterVersions, TrainingSettings, fine_tune, split_pairs
from topolora_monai.networks import build_network

ROOT = CONFIGS.parents[2]
SETTINGS = {"epochs": 2, "crops_per_image": 3, "batch_size": 2, "learning_rate": 1e-3, "seed": 3}
CHANGED = {**SETTINGS, "train#elastic#magnitude_range#1": 4.0, "max_grad_norm": 0.5}
OTHER = {"preset": "lora", "image_size": 64, "crop_size": 32, "precision": "fp32", "tracker#trackers": []}
OTHER |= {"network_def#seed": 0}  # the base that an adapter file of no checkpoint is read with


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vessels")
    return [write_sample(folder, number, 64) for number in range(5)]


@pytest.fixture(scope="module")
def dataset(pairs, tmp_path_factory):
    """The same images in folders, divided as the annotation server divides them."""
    root = tmp_path_factory.mktemp("data")
    training, validation = split_pairs(pairs, 0.4, SETTINGS["seed"])
    for split, items in {"training": training, "validation": validation, "test": validation}.items():
        for item in items:
            for key, kind in (("image", "images"), ("label", "masks")):
                (root / split / kind).mkdir(parents=True, exist_ok=True)
                shutil.copy(item[key], root / split / kind / f"{item['name']}.png")
    return root


def curve(workflow):
    """Losses of all steps, and Dice of all validations."""
    losses, dice = [], []
    workflow.initialize()
    workflow.trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: losses.append(idist.all_reduce(engine.state.output[0]["loss"]))
    )
    workflow.evaluator.add_event_handler(Events.COMPLETED, lambda engine: dice.append(engine.state.metrics["val_dice"]))
    workflow.run()
    workflow.finalize()
    return losses, dice


def bundle(dataset, output_dir, overlay=(), **options):
    data = {"dataset_name": "folder", "dataset_dir": str(dataset), "output_dir": str(output_dir)}
    files = [str(CONFIGS / name) for name in ("train.yaml", *overlay)]
    return ConfigWorkflow(files, logging_file=False, workflow_type="train", **CHANGED | OTHER | data | options)


@pytest.fixture(scope="module")
def expected(dataset, tmp_path_factory):
    return curve(bundle(dataset, tmp_path_factory.mktemp("run")))


def test_any_number_of_workers(dataset, expected, tmp_path):
    assert curve(bundle(dataset, tmp_path / "run", num_workers=2)) == expected


def test_another_seed_is_another_curve(dataset, expected, tmp_path):
    assert curve(bundle(dataset, tmp_path / "run", seed=4))[0] != expected[0]


def test_the_annotation_server(dataset, pairs, expected, tmp_path):
    network = build_network("vit_tiny_test", image_size=64)
    start = tmp_path / "start.safetensors"
    recipe = {"elastic_magnitude": 4.0, "learning_rate": 1e-3, "batch_size": 2, "crops_per_image": 3}
    adaptation = adapt(network, preset_config("lora"), seed=SETTINGS["seed"])
    save_adapter(adaptation, start, crop_size=32, overlap=0.25, recipe=recipe)
    history = AdapterVersions(tmp_path / "history")
    history.add(start, "start")
    losses = []
    settings = TrainingSettings(epochs=2, seed=3, validation_fraction=0.4, max_grad_norm=0.5, improvement=-1.0)
    done = fine_tune(
        pairs, history, settings=settings, precision="fp32", progress=lambda progress: losses.append(progress.loss)
    )
    assert losses == expected[0]
    assert done.after == pytest.approx(max(expected[1]))


def test_with_prompts_a_run_that_is_taken_up_goes_on_as_it_would_have(dataset, tmp_path):
    options = {"train#prompts#share": 0.5, "accumulation_steps": 2, "train#ema#decay": 0.9}
    whole = curve(bundle(dataset, tmp_path / "whole", **options))
    half = bundle(dataset, tmp_path / "halves", **options)
    half.initialize()
    half.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: engine.terminate())
    half.run()
    half.finalize()
    losses, dice = curve(bundle(dataset, tmp_path / "halves", **options))
    assert 0 < len(losses) < len(whole[0])
    assert losses == whole[0][-len(losses) :]
    assert dice == whole[1][-len(dice) :]
    found = read_spec(tmp_path / "halves/adapter.safetensors")
    assert (found.prompts, found.recipe.prompt_share, found.recipe.prompt_rounds) == (True, 0.5, 3)


def test_two_processes_are_one(dataset, expected, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*torchrun, __file__, dataset, tmp_path / "run"], cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sums, dice = json.loads(done.stdout.splitlines()[-1])
    assert [loss / 2 for loss in sums] == pytest.approx(expected[0], abs=1e-4)
    assert dice == pytest.approx(expected[1], abs=1e-3)
    record = json.loads((tmp_path / "run/training.json").read_text())
    assert (record["epochs"], record["processes"]) == (2, 2)
    assert read_spec(tmp_path / "run/adapter.safetensors").recipe.processes == 2


if __name__ == "__main__":
    found = curve(bundle(*sys.argv[1:], overlay=["multi_gpu_train.yaml"], batch_size=1))
    if os.environ["RANK"] == "0":
        print(json.dumps(found))
