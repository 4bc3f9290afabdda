"""Fine-tuning teaches the adapter, is judged on images it never saw, and never harms the current version."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from topolora_monai.adapters import load_adapter, read_spec, save_adapter
from topolora_monai.annotation import AdapterVersions, TrainingSettings, fine_tune, split_pairs
from topolora_monai.errors import ConfigError, DataError
from topolora_monai.networks import build_network

QUICK = TrainingSettings(epochs=2, crops_per_image=2, batch_size=2, learning_rate=2e-3, validation_fraction=0.2)


@pytest.fixture
def history(tmp_path, adapter):
    history = AdapterVersions(tmp_path / "history")
    history.add(adapter, "start")
    return history


def test_better_adapter_becomes_current(history, samples, adapter):
    seen = []
    done = fine_tune(samples, history, settings=QUICK, precision="fp32", author="night", progress=seen.append)
    assert done.after > done.before
    assert history.current() == done.version
    assert (done.version.parent, done.version.author) == (1, "night")
    assert done.version.scores["validation_dice"] == done.after
    old, new = load_file(adapter), load_file(done.version.path)
    assert old.keys() == new.keys()
    assert any(not torch.equal(old[name], new[name]) for name in old)
    header = read_spec(done.version.path).to_header()
    assert header["crop_size"] == 64
    assert header["base_sha256"] == read_spec(adapter).to_header()["base_sha256"]
    fractions = [step.fraction for step in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert seen[-1].seconds_left == 0
    assert all(np.isfinite(step.loss) and step.seconds_left >= 0 for step in seen)


def test_new_version_is_the_old_one_with_a_decision_of_its_own(history, samples, tmp_path, adapter):
    network = build_network("vit_tiny_test", image_size=128)
    path = tmp_path / "cldice.safetensors"
    header = {name: value for name, value in read_spec(adapter).to_header().items() if name != "labels"}
    chosen = {"threshold_by": "cldice", "dataset": "drive", "made_by": "$x", "recipe": {"loss_weights": {"dice": 1.0}}}
    save_adapter(load_adapter(network, adapter), path, **header | chosen | {"labels": ["background", "$vessel"]})
    history.add(path, "start")
    whatever_comes = TrainingSettings(**QUICK.__dict__ | {"improvement": -1.0})
    done = fine_tune(samples, history, settings=whatever_comes, precision="fp32")
    old, new = read_spec(path).to_header(), read_spec(done.version.path).to_header()
    assert new["threshold_by"] == "cldice"
    assert new["temperature"] != 1
    assert new["threshold"] != old["threshold"]
    assert new["recipe"]["loss_weights"] == {"dice": 1.0}
    assert (new["recipe"]["epochs"], new["recipe"]["learning_rate"]) == (2, 2e-3)
    assert (new["recipe"]["prompt_share"], old["prompts"], new["prompts"]) == (0.5, False, True)
    changed = {"threshold", "temperature", "validation_dice", "recipe", "prompts"}
    assert {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)} == changed


def test_labels_outside_the_field_of_view_do_not_count(history, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows, columns = np.mgrid[:96, :96]
    disc, random = np.hypot(rows - 48, columns - 48) < 40, np.random.default_rng(0)
    pairs = []
    for number in range(2):
        image = np.where(disc[..., None], random.integers(90, 160, (96, 96, 3)), 2).astype(np.uint8)
        vessel = (abs(rows - columns) < 4) & disc
        paths = [tmp_path / f"{number}{kind}.png" for kind in ("", "_clean", "_scribbled")]
        for path, array in zip(paths, (image, vessel, vessel | ~disc), strict=True):
            Image.fromarray(array if array.ndim == 3 else array.astype(np.uint8) * 255).save(path)
        pairs.append(paths)

    def dice(column, **options):
        stop = {"settings": QUICK, "precision": "fp32", "cancelled": lambda: True}
        return fine_tune([(paths[0], paths[column]) for paths in pairs], history, **stop, **options).before

    assert dice(1) != dice(2)
    assert dice(1, field_of_view=True) == pytest.approx(dice(2, field_of_view=True), abs=0.01)  # the edge, by a pixel


def test_worse_adapter_is_not_kept(history, samples):
    harmful = TrainingSettings(epochs=1, crops_per_image=1, learning_rate=10.0)
    done = fine_tune(samples, history, settings=harmful, precision="fp32")
    assert done.version is None
    assert done.after <= done.before
    assert history.current().number == 1
    assert len(history.history()) == 1


def test_improvement_is_demanded(history, samples):
    settings = TrainingSettings(**{**QUICK.__dict__, "improvement": 0.9})
    done = fine_tune(samples, history, settings=settings, precision="fp32")
    assert done.after > done.before
    assert done.version is None


def test_cancelled_one_keeps_the_old(history, samples):
    steps = []
    done = fine_tune(
        samples, history, settings=QUICK, precision="fp32", progress=steps.append, cancelled=lambda: len(steps) >= 2
    )
    assert done.cancelled
    assert len(steps) == 2
    assert done.version is None
    assert history.current().number == 1


def test_killed_one_keeps_the_old(history, samples, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\nfrom topolora_monai.annotation import AdapterVersions, TrainingSettings, fine_tune\n"
        f"pairs = {[(str(i), str(m)) for i, m in samples]!r}\n"
        "report = lambda progress: print('done', progress.fraction, flush=True)\n"
        "fine_tune(pairs, AdapterVersions(sys.argv[1]), settings=TrainingSettings(epochs=500), progress=report)\n"
    )
    child = subprocess.Popen(
        [sys.executable, str(script), str(history.folder)], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    told = next(line for line in child.stdout if line.startswith("done"))
    assert 0 < float(told.split()[1]) < 1
    time.sleep(0.2)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert [version.number for version in AdapterVersions(history.folder).history()] == [1]
    assert AdapterVersions(history.folder).current().number == 1


class TestSplit:
    PAIRS = tuple((f"{n % 5}.png", f"label_{n}.png") for n in range(12))

    def test_keeps_labels_of_an_image_together(self):
        training, validation = split_pairs(self.PAIRS, 0.4)
        images = [{item["image"] for item in side} for side in (training, validation)]
        assert [len(side) for side in images] == [3, 2]
        assert not images[0] & images[1]
        assert len(training) + len(validation) == 12

    def test_is_seeded_and_blind_to_order(self):
        assert split_pairs(self.PAIRS, 0.4) == split_pairs(self.PAIRS[::-1], 0.4)
        others = [split_pairs(self.PAIRS, 0.4, seed)[1] for seed in range(1, 6)]
        assert any(other != split_pairs(self.PAIRS, 0.4)[1] for other in others)

    def test_needs_two_images(self):
        with pytest.raises(DataError, match="too few"):
            split_pairs([("a.png", "1.png"), ("a.png", "2.png")], 0.2)


def test_without_an_adapter_or_with_bad_settings_nothing_starts(tmp_path, samples):
    with pytest.raises(DataError, match="no adapter"):
        fine_tune(samples, AdapterVersions(tmp_path / "none"))
    with pytest.raises(ConfigError, match="epochs"):
        TrainingSettings(epochs=0)
    with pytest.raises(ConfigError, match="validation_fraction"):
        TrainingSettings(validation_fraction=1.0)
