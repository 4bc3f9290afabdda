"""Real copies of the public data sets, where they are at hand."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.bundles.helpers import CONFIGS, SMALL, run
from topolora_monai.cli import main

COPIES = {
    "drive": "DRIVE",
    "stare": "STARE",
    "chase_db1": "CHASE_DB1",
    "kvasir_seg": "Kvasir-SEG-352",
    "sos": "SOS",
    "sen1floods11": "Sen1Floods11",
    "topomortar": "TopoMortar",
}
COMPLETE = ("drive", "chase_db1")
INPUTS = {
    "drive": "test/images/0[12]_test.tif",
    "stare": "images/im000[12]*",
    "chase_db1": "Image_01?.jpg",
    "kvasir_seg": "validation/images/1?.jpg",
    "sos": "test/sentinel/images/2000*",
    "sen1floods11": "S1Hand/[SG]*",
    "topomortar": "test/images/07[12].png",
}


@pytest.mark.parametrize(("name", "folder"), [*COPIES.items(), ("sl_ssdd", "SL-SSDD")])
def test_verification_passes(name, folder, real_data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    partial = [] if name in COMPLETE else ["--allow_partial"]
    assert main(["data", "verify", name, str(real_data(folder)), *partial]) == 0, capsys.readouterr().out
    shown = capsys.readouterr().out
    assert f"{name}: passed" in shown if name in COMPLETE else f"{name} (a part: " in shown


@pytest.mark.parametrize(("name", "folder"), COPIES.items())
def test_bundle_runs_by_name_alone(name, folder, real_data, tmp_path):
    """Two epochs on some of the images, evaluation and inference: that all can be read, the test above says."""
    root, output = real_data(folder), tmp_path / "run"
    sizes = SMALL | {"crop_size": 256, "batch_size": 2}
    sizes["topology_loss#iterations"] = 2  # most of a step of so small a network
    partial = {} if name in COMPLETE else {"data#allow_partial": True}
    few = {split: {f"{split}_items": f"$@data.items('{split}')[:6]"} for split in ("training", "validation", "test")}
    done = run("training", CONFIGS / "train.yaml", tmp_path, dataset_name=name, dataset_dir=root, output_dir=output,
               **sizes, **partial, **few["training"], **few["validation"])  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run("evaluating", CONFIGS / "evaluate.yaml", tmp_path, dataset_dir=root, output_dir=output, overlap=0.0,
               precision="fp32", **few["validation"], **few["test"])  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads((output / "evaluation/summary.json").read_text())
    for described in (summary, summary["evaluated_on"]):
        assert described["dataset"] == name
        assert ("partial" in described) == bool(partial)
    assert 0 < summary["test"]["auc"] < 1
    done = run("inferring", CONFIGS / "inference.yaml", tmp_path, adapter=output / "adapter.safetensors",
               input=root / INPUTS[name], output_dir=tmp_path / "masks", precision="fp32", overlap=0.0)  # fmt: skip
    assert done.returncode == 0, done.stderr
    sources = sorted(root.glob(INPUTS[name]))
    masks = sorted((tmp_path / "masks").glob("*_mask.*"))
    assert len(masks) == len(sources) > 1
    if name == "sen1floods11":
        _assert_same_place(sources, masks)


def test_sea_and_land_with_simulated_images(real_data, tmp_path):
    """The masks are real; SSDD's images are not at hand and are simulated: sea dark, land bright, one-look speckle."""
    masks = real_data("SL-SSDD")
    root = tmp_path / "simulated"
    for part, every in (("train", 40), ("test", 30)):
        (root / part).mkdir(parents=True)
        for path in sorted((masks / part).iterdir())[::every]:
            shutil.copy(path, root / part)
    (root / "JPEGImages").mkdir()
    rng = np.random.default_rng(0)
    for path in root.glob("t*/*.png"):
        sea = np.asarray(Image.open(path)) > 0
        intensity = np.where(sea, 0.02, 0.2) * rng.gamma(1.0, size=sea.shape)
        amplitude = np.clip(255 * np.sqrt(intensity), 0, 255).astype(np.uint8)
        Image.fromarray(amplitude).save(root / "JPEGImages" / f"{path.stem}.jpg")
    output = tmp_path / "run"
    done = run("training", CONFIGS / "train.yaml", tmp_path, dataset_name="sl_ssdd", dataset_dir=root,
               output_dir=output, **SMALL | {"crop_size": 128, "epochs": 6, "data#allow_partial": True},
               learning_rate=2e-3)  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run("evaluating", CONFIGS / "evaluate.yaml", tmp_path, dataset_dir=root, output_dir=output, overlap=0.0,
               precision="fp32", pictures=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads((output / "evaluation/summary.json").read_text())
    assert summary["partial"].endswith("of 1160 images")
    assert summary["test"]["auc"] > 0.8  # brightness alone tells sea from land
    done = run("inferring", CONFIGS / "inference.yaml", tmp_path, adapter=output / "adapter.safetensors",
               input=root / "JPEGImages", output_dir=tmp_path / "masks", precision="fp32", overlap=0.0)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "masks").glob("*_mask.png"))) == len(list((root / "JPEGImages").iterdir()))


def _assert_same_place(sources, masks):
    rasterio = pytest.importorskip("rasterio")
    for source, mask in zip(sources, masks, strict=True):
        with rasterio.open(source) as before, rasterio.open(mask) as after:
            assert mask.name.startswith(source.stem)
            assert before.crs == after.crs
            assert before.transform == after.transform
            assert before.shape == after.shape
