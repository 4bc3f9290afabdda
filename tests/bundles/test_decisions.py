"""What is chosen on validation is stored with the model and used: threshold, temperature; and how unsure it is."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.bundles.helpers import CONFIGS, SMALL, run
from tests.conftest import write_fake_drive
from topolora_monai.adapters import read_spec
from topolora_monai.metrics import apply_temperature


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Adapter with dropout, whose threshold is chosen by clDice."""
    folder = tmp_path_factory.mktemp("decisions")
    options = {
        **SMALL, "dataset_name": "drive", "dataset_dir": write_fake_drive(folder / "DRIVE"), "data#allow_partial": True,
        "output_dir": folder / "run", "threshold_by": "cldice", "preset": "lora", "adaptation#config#lora#dropout": 0.3,
    }  # fmt: skip
    done = run("training", CONFIGS / "train.yaml", folder, **options)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def evaluated(trained):
    done = run("evaluating", CONFIGS / "evaluate.yaml", trained.parent, output_dir=trained, precision="fp32",
               dataset_dir=trained.parent / "DRIVE", dropout_passes=2, flip_axes=1,
               scores="[cldice,betti_0_error,hd95,s_measure]", spacing=0.5)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return trained / "evaluation"


def test_the_adapter_says_how_its_answers_are_meant(trained):
    header = read_spec(trained / "adapter.safetensors").to_header()
    record = json.loads((trained / "training.json").read_text())["validation"]
    assert header["threshold_by"] == "cldice"
    assert header["temperature"] == record["temperature"] != 1
    assert header["threshold"] == record["threshold"]
    raw = apply_temperature(torch.tensor(header["threshold"]).double(), 1 / header["temperature"]).item()
    assert round(raw * 20, 6) == round(raw * 20)  # clDice is tried at every twentieth


def test_evaluation_takes_the_stored_decisions_and_the_scores_asked_for(trained, evaluated):
    header = read_spec(trained / "adapter.safetensors").to_header()
    summary = json.loads((evaluated / "summary.json").read_text())
    assert summary["temperature"] == header["temperature"]
    assert summary["threshold_by"] == "cldice"
    with (evaluated / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    for score in ("cldice", "betti_0_error", "hd95", "s_measure"):
        mean = np.nanmean([float(row[score]) for row in rows])
        assert summary["test"][score] == pytest.approx(mean, abs=1e-5, nan_ok=True)
    assert "assd" not in rows[0]


def test_uncertainty_is_drawn_and_compared_with_the_errors(evaluated):
    risks = json.loads((evaluated / "curves.json").read_text())["classes"]
    (curve,) = risks.values()
    assert len(curve["risk_coverage"]["coverage"]) == len(curve["risk_coverage"]["risk"]) == 100
    with (evaluated / "per_image.csv").open() as file:
        names = [row["name"] for row in csv.DictReader(file)]
    wrong = pixels = 0
    for name in names:
        layers = {path.stem: np.asarray(Image.open(path)) for path in (evaluated / "images" / name).iterdir()}
        assert layers["uncertainty"].shape == layers["truth"].shape
        assert layers["uncertainty"].std() > 0
        inside = layers.get("fov", np.full_like(layers["truth"], 255)) > 127
        wrong += ((layers["truth"] != layers["prediction"]) & inside).sum()
        pixels += inside.sum()
    assert curve["risk_coverage"]["risk"][-1] == pytest.approx(wrong / pixels)


def test_inference_divides_logits_by_the_stored_temperature(trained, evaluated, tmp_path):
    adapter = trained / "adapter.safetensors"
    image = next((evaluated / "images").iterdir()) / "input.png"
    probabilities = {}
    for name, options in (("stored", {}), ("raw", {"temperature": 1.0})):
        done = run("inferring", CONFIGS / "inference.yaml", tmp_path, adapter=adapter, input=image,
                   output_dir=tmp_path / name, precision="fp32", **options)  # fmt: skip
        assert done.returncode == 0, done.stderr
        stored = np.asarray(Image.open(tmp_path / name / "input_probability.png"))
        probabilities[name] = torch.from_numpy((stored + 0.5) / 65536)
    expected = apply_temperature(probabilities["raw"], read_spec(adapter).to_header()["temperature"])
    assert (probabilities["stored"] - expected).abs().max() < 1e-3
    assert (probabilities["stored"] - probabilities["raw"]).abs().max() > 1e-3


def test_inference_writes_how_unsure_it_is(trained, evaluated, tmp_path):
    image = next((evaluated / "images").iterdir()) / "input.png"
    done = run("inferring", CONFIGS / "inference.yaml", tmp_path, adapter=trained / "adapter.safetensors", input=image,
               output_dir=tmp_path / "out", precision="fp32", temperature=1.0, uncertainty=True,
               flip_axes=2)  # fmt: skip
    assert done.returncode == 0, done.stderr
    stored = {
        kind: (np.asarray(Image.open(tmp_path / f"out/input_{kind}.png")) + 0.5) / 65536
        for kind in ("probability", "uncertainty")
    }
    p = stored["probability"]
    entropy = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
    np.testing.assert_allclose(stored["uncertainty"], entropy, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threshold_by": "cldise"}, "did you mean cldice"),
        ({"scores": "[cldice,beti_0_error]"}, "did you mean betti_0_error"),
        ({"temperature": 0}, "wrong temperature of the model"),
        ({"uncertainty": True}, "at least 2 passes, or an axis to mirror"),
    ],
)
def test_impossible_settings_are_explained(options, said, trained, tmp_path):
    done = run("evaluating", CONFIGS / "evaluate.yaml", tmp_path, output_dir=trained,
               dataset_dir=trained.parent / "DRIVE", **options)  # fmt: skip
    assert done.returncode != 0
    assert said in done.stderr
