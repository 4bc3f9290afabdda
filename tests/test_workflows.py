"""``topolora train``, ``evaluate``, ``predict``, ``bundle``; ``test_installed.py`` tries them from the wheel alone."""

import os
import re
import shutil
import signal
import time

import pytest
import torch

from tests.bundles.helpers import SMALL, flatten
from tests.conftest import write_fake_drive
from tests.processes import run_module, start_module
from topolora_monai.adapters import base_weights, read_spec
from topolora_monai.cli import main
from topolora_monai.cli.settings import settings_of
from topolora_monai.networks import build_network
from topolora_monai.packaged import RECIPES, bundle_folder, recipe_files

CONFIGS = bundle_folder() / "configs"
PARTIAL = {"data#allow_partial": True}


@pytest.fixture(scope="module")
def away(tmp_path_factory):
    """A folder with a tiny data set and one run on it, whose base was given by name."""
    folder = tmp_path_factory.mktemp("workflows")
    write_fake_drive(folder / "DRIVE")
    weights = folder / "cache/topolora_monai/weights"
    weights.mkdir(parents=True)
    torch.save(build_network("vit_t", seed=5).state_dict(), weights / "mobile_sam.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        options = SMALL | PARTIAL | {"epochs": 1, "network_name": "vit_t", "weights": "mobile_sam"}
        done = run_module("topolora_monai.cli", "train", "drive", "DRIVE", *flatten(options), cwd=folder)
        assert done.returncode == 0, done.stderr
        yield folder, done


def topolora(*words, cwd):
    return run_module("topolora_monai.cli", *words, cwd=cwd)


def test_a_run_says_what_it_does_and_what_is_next(away):
    _, done = away
    assert "drive: 4 images to learn from, 2 for validation, 2 for test" in done.stdout
    assert "topolora evaluate runs/drive" in done.stdout
    assert "INFO" not in done.stdout + done.stderr
    assert "on validation, the best so far" in done.stderr


def test_base_and_data_are_found_again(away):
    folder, _ = away
    adapter = folder / "runs/drive/adapter.safetensors"
    assert read_spec(adapter).checkpoint == base_weights(adapter) == "mobile_sam"
    done = topolora("evaluate", "runs/drive", "--precision", "fp32", "--scores", "cldice", cwd=folder)
    assert done.returncode == 0, done.stderr
    shutil.copy(adapter, folder / "alone.safetensors")
    done = topolora("predict", "DRIVE/test/images", "--adapter", "alone.safetensors", "--out", "masks", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert len(list((folder / "masks").glob("*_mask.png"))) == 2


def test_base_and_data_that_are_gone_are_named(away, tmp_path, monkeypatch):
    folder, _ = away
    shutil.copytree(folder / "runs/drive", tmp_path / "run")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = topolora("predict", folder / "DRIVE/test/images", "--adapter", "run", cwd=tmp_path)
    assert done.returncode == 1
    assert "run `topolora weights fetch mobile_sam`, or give --weights" in done.stderr
    (folder / "DRIVE").rename(folder / "moved")
    done = topolora("evaluate", "run", cwd=tmp_path)
    (folder / "moved").rename(folder / "DRIVE")
    assert done.returncode == 1
    assert "give --dataset_dir the place where they are now" in done.stderr


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["train", "drive", "DRIVE", "--epocs", "3", "--output_dir", "x"], "epochs"),
        (["evaluate", "runs/drive", "--overlpa", "0"], "overlap"),
        (["predict", "DRIVE/test/images", "--adapter", "runs/drive", "--treshold", "0.3"], "threshold"),
    ],
)
def test_ids_that_nothing_reads_are_refused_with_the_closest(away, words, near):
    done = topolora(*words, cwd=away[0])
    assert done.returncode == 1
    assert f"did you mean --{near}?" in done.stderr
    assert "Traceback" not in done.stderr


def test_names_of_scores_are_looked_at_before_any_image(away):
    done = topolora("evaluate", "runs/drive", "--precision", "fp32", "--scores", "cldise", cwd=away[0])
    assert done.returncode == 1
    assert "did you mean cldice?" in done.stderr
    assert "validation images" not in done.stderr


def test_ctrl_c_is_told_and_the_run_goes_on(away, tmp_path):
    folder, _ = away
    words = ["train", "drive", folder / "DRIVE", "--output_dir", tmp_path / "run", *flatten(SMALL | PARTIAL)]
    process = start_module(tmp_path, "topolora_monai.cli", *words, "--epochs", "300", cwd=tmp_path)
    last = tmp_path / "run/last.pt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline and process.is_alive():
        time.sleep(0.01)
    time.sleep(0.5)  # a state is there a moment before it is spoken of
    os.kill(process.pid, signal.SIGINT)
    process.join()
    said = (tmp_path / "err").read_text()
    assert process.exitcode == 130, said
    epoch = torch.load(last, weights_only=True)["epoch"]
    told = re.fullmatch(r"stopped; the same command resumes after epoch (\d+)", said.splitlines()[-1])
    assert told is not None, said
    assert 0 <= epoch - int(told[1]) <= 1
    assert "Traceback" not in said
    done = topolora(*words, "--epochs", str(epoch + 1), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"after epoch {epoch} of {epoch + 1}" in done.stderr


def test_words_that_do_not_make_up_a_command(tmp_path, capsys):
    for words, said in (
        (["train"], "DATASET_NAME is missing"),
        (["train", "drive", "DRIVE", "more"], "more words than DATASET_NAME and DATASET_DIR: more"),
        (["train", "drive", "DRIVE", "--dataset_dir", "OTHER"], "--dataset_dir is given twice"),
        (["predict", "a.png"], "--adapter is missing"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err
    assert main(["train", "drive", "--recipe", "quik"]) == 1
    assert "did you mean quick?" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path)]) == 1
    assert "not the folder of a run" in capsys.readouterr().err


def test_help_is_the_configuration_itself(capsys):
    for command, file in (("train", "train.yaml"), ("evaluate", "evaluate.yaml"), ("predict", "inference.yaml")):
        assert main([command, "--help"]) == 0
        shown = capsys.readouterr().out
        for settings in settings_of(CONFIGS / file).values():
            for setting in settings:
                assert f"--{setting.name}" in shown
    listed = {
        setting.name: setting for settings in settings_of(CONFIGS / "train.yaml").values() for setting in settings
    }
    assert listed["epochs"].default == listed["crop_size"].default == "by the data"
    assert listed["dataset_name"].meaning == "`topolora data list` names them all"
    assert listed["crop_size"].meaning.endswith("its ratio to image_size is the zoom")
    assert listed["network_name"].meaning.endswith("mask2former_swin_t, dynunet, little_wnet")
    assert "network_def" not in listed
    assert all(setting.meaning for setting in listed.values())


def test_every_overlay_but_that_of_several_gpus_is_a_recipe():
    overlays = {path.name for path in CONFIGS.glob("*.yaml")} - {"train.yaml", "evaluate.yaml", "inference.yaml"}
    assert {files[-1] for files in RECIPES.values()} == overlays - {"multi_gpu_train.yaml"}
    assert recipe_files("quick", "conv_lora") == [
        str(CONFIGS / name) for name in ("train.yaml", "quick.yaml", "conv_lora.yaml")
    ]


def test_the_bundle_is_written_as_it_is_and_nothing_is_overwritten(tmp_path, capsys):
    assert main(["bundle", str(tmp_path / "out")]) == 0
    assert "python -m monai.bundle run training" in capsys.readouterr().out
    for path in bundle_folder().rglob("*"):
        if path.is_file():
            assert (tmp_path / "out" / path.relative_to(bundle_folder())).read_bytes() == path.read_bytes()
    assert main(["bundle", str(tmp_path / "out")]) == 1
    assert "exists already" in capsys.readouterr().err
