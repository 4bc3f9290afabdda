"""Fine-tuning teaches the adapter, is judged on images it never saw, and never harms the current version."""

import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.processes import start
from topolora_monai.adapters import load_adapter, read_spec, save_adapter
from topolora_monai.annotation import AdapterVersions, TrainingSettings, fine_tune, split_pairs
from topolora_monai.errors import ConfigError, DataError
from topolora_monai.networks import build_network

QUICK = TrainingSettings(
    epochs=2, crops_per_image=2, batch_size=2, learning_rate=2e-3, least_images=1, significance=1.0
)


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
    assert (done.in_use, done.reason, done.test.images) == (True, "", 1)
    assert done.test.difference == pytest.approx(done.after - done.before)
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
    whatever_comes = TrainingSettings(**QUICK.__dict__ | {"improvement": -1.0, "prompt_share": 0.5})
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


@pytest.mark.parametrize(("strict", "reason"), [({"least_images": 6}, "too few"), ({"significance": 0.4}, "chance")])
def test_gain_that_may_be_chance_is_kept_but_not_used(history, samples, strict, reason):
    """Two images are set apart here, with which p is 0.5 at best; whatever they say, the version is made."""
    settings = TrainingSettings(**QUICK.__dict__ | {"epochs": 1, "least_images": 2, "improvement": -1.0} | strict)
    done = fine_tune(samples, history, settings=settings, precision="fp32")
    assert (done.version.number, done.in_use, done.test.images, len(done.validation)) == (2, False, 2, 2)
    assert reason in done.reason
    assert history.current().number == 1
    assert [change.number for change in history.log()] == [1]
    assert [version.number for version in history.history()] == [1, 2]


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


def train_for_long(pairs, folder, told):
    def report(progress):
        told.with_suffix(".new").write_text(str(progress.fraction))
        told.with_suffix(".new").replace(told)

    fine_tune(pairs, AdapterVersions(folder), settings=TrainingSettings(epochs=500), progress=report)


def test_killed_one_keeps_the_old(history, samples, tmp_path):
    told = tmp_path / "told"
    child = start(train_for_long, samples, history.folder, told)
    while not told.is_file() and child.is_alive():
        time.sleep(0.01)
    assert 0 < float(told.read_text()) < 1
    time.sleep(0.2)
    child.kill()
    child.join()
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

    def test_sets_enough_apart_to_judge_by(self):
        pairs = [(f"{n}.png", f"{n}_label.png") for n in range(18)]
        assert [len(split_pairs(pairs[:count], 0.2, least=6)[1]) for count in (3, 9, 17, 18)] == [1, 3, 5, 6]
        assert len(split_pairs(pairs, 0.5, least=6)[1]) == 9

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
