"""Several classes through the bundle, from a folder and a public layout: trained, scored and written as one mask."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, create_workflow
from PIL import Image
from safetensors.torch import load_file

from tests.bundles.helpers import CONFIGS, SMALL, run
from tests.data.fakes import draw
from topolora_monai.adapters import read_spec
from topolora_monai.metrics import class_indices
from topolora_monai.release import release

CLASSES = ["background", "cup", "window"]
SIZE = (48, 56)


def draw_folder(root):
    """Ten pictures: dark cups and bright windows on grey, masks of class numbers."""
    rng = np.random.default_rng(0)
    for number in range(10):
        mask = np.zeros(SIZE, np.uint8)
        top, left = rng.integers(4, 20, 2)
        mask[top : top + 16, left : left + 9] = 1
        mask[top : top + 14, left + 16 : left + 30] = 2
        grey = np.array([120, 30, 225])[mask] + rng.integers(-8, 8, SIZE)
        for folder, picture in (("images", np.repeat(grey[..., None], 3, 2).astype(np.uint8)), ("masks", mask)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(root / folder / f"{number}.png")
    return root


@pytest.fixture
def folder(tmp_path):
    return draw_folder(tmp_path / "things")


def finished(config, **options):
    """Run a configuration in this process, which starts faster than one of its own."""
    kind = "train" if config == "train.yaml" else "infer"
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    created = create_workflow(config_file=str(CONFIGS / config), workflow_type=kind, **plain)
    created.run()
    created.finalize()


@pytest.mark.parametrize("head", ["per_class", "token_set"])
def test_train_evaluate_infer_and_release(head, folder, tmp_path, capsys, monkeypatch):
    if head == "token_set":
        pytest.importorskip("transformers")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    output = tmp_path / "run"
    options = {
        **SMALL, "epochs": 8, "val_interval": 4, "crops_per_image": 8, "preset": "decoder_only",
        "dataset_name": "folder", "dataset_dir": folder, "classes": CLASSES, "multiclass_head": head,
        "model#mask_tokens": 5, "topology_loss#weights#cldice": 0.0, "output_dir": output,
    }  # fmt: skip
    finished("train.yaml", **options)
    header = read_spec(output / "adapter.safetensors").to_header()
    assert header["labels"] == CLASSES
    assert (header["out_channels"], header["activation"], header["multiclass_head"]) == (2, "softmax", head)
    state = load_file(output / "adapter.safetensors")
    assert len(state["mask_decoder.class_tokens"]) == (5 if head == "token_set" else 2)
    assert ("mask_decoder.token_set.classifier.weight" in state) == (head == "token_set")

    finished("evaluate.yaml", output_dir=output, dataset_dir=folder, precision="fp32")
    assert "cup: dice" in capsys.readouterr().out
    test = json.loads((output / "evaluation/summary.json").read_text())["test"]
    assert list(test["classes"]) == CLASSES[1:]
    for score in ("dice", "iou"):
        assert test[score] == pytest.approx(np.mean([test["classes"][name][score] for name in CLASSES[1:]]))
    assert "threshold" not in test
    assert test["dice"] > 0.2
    with (output / "evaluation/per_image.csv").open() as file:
        row = next(csv.DictReader(file))
    assert {"dice", "dice_cup", "iou_window"} <= row.keys()
    assert (output / "evaluation/pictures" / f"{row['name']}.png").is_file()

    infer = {"input": folder / "images", "precision": "fp32"}
    finished("inference.yaml", adapter=output / "adapter.safetensors", output_dir=tmp_path / "masks", **infer)
    written = sorted(path.name for path in (tmp_path / "masks").glob("0*"))
    assert written == ["0_mask.png", "0_probability_1.png", "0_probability_2.png"]
    assert json.loads((tmp_path / "masks/classes.json").read_text()) == {"0": "background", "1": "cup", "2": "window"}
    masks, truths = (
        np.stack([np.asarray(Image.open(path)) for path in sorted(where.glob(f"*{end}"))])
        for where, end in ((tmp_path / "masks", "_mask.png"), (folder / "masks", ".png"))
    )
    assert masks.shape == (10, *SIZE)
    assert set(np.unique(masks)) <= {0, 1, 2}
    stored = np.stack([np.asarray(Image.open(tmp_path / f"masks/0_probability_{k}.png")) for k in (1, 2)])
    np.testing.assert_array_equal(masks[0], class_indices(stored))
    # The number in the mask is that of the class, not of the channel.
    overlap = np.array([[((masks == i) & (truths == j)).sum() for j in (1, 2)] for i in (1, 2)])
    assert np.trace(overlap) > 2 * (overlap.sum() - np.trace(overlap))

    assert list(elsewhere.iterdir()) == []
    check_release(release(output, tmp_path / "released"), masks, test, infer, monkeypatch)


def check_release(bundle, masks, test, infer, monkeypatch):
    """It answers as the run did, and says what its numbers mean."""
    monkeypatch.chdir(bundle)
    finished(bundle / "configs/inference.yaml", output_dir=bundle.parent / "again", **infer)
    again = np.stack([np.asarray(Image.open(path)) for path in sorted((bundle.parent / "again").glob("*_mask.png"))])
    assert (again != masks).mean() < 1e-3
    assert (bundle.parent / "again/classes.json").is_file()
    described = json.loads((bundle / "configs/metadata.json").read_text())
    prediction = described["network_data_format"]["outputs"]["pred"]
    assert prediction["channel_def"] == {"0": "background", "1": "cup", "2": "window"}
    assert prediction["num_channels"] == 2
    assert described["eval_metrics"]["dice_cup"] == test["classes"]["cup"]["dice"]
    assert "| window |" in (bundle / "docs/README.md").read_text()
    assert (mask_for_applications(bundle, infer["input"] / "0.png") != masks[0]).mean() < 1e-3


def mask_for_applications(bundle, image):
    """What an application gets that reads preprocessing, network, inferer and postprocessing alone."""
    parser = ConfigParser()
    parser.read_config(bundle / "configs/inference.yaml")
    parser["bundle_root"], parser["device"], parser["precision"] = str(bundle), "cpu", "fp32"
    item = parser.get_parsed_content("preprocessing")({"image": str(image)})
    with torch.no_grad():
        logits = parser.get_parsed_content("inferer")(item["image"][None], parser.get_parsed_content("network"))
    mask = parser.get_parsed_content("postprocessing")({"pred": logits[0]})["pred"]
    assert mask.dtype == torch.uint8
    return mask.numpy().swapaxes(-1, -2)  # columns come first


def test_public_data_set_of_several_classes(tmp_path):
    root = draw("trans10k", tmp_path / "trans10k", every=1000)
    options = {**SMALL, "epochs": 1, "preset": "decoder_only", "dataset_name": "trans10k", "dataset_dir": root,
               "data#allow_partial": True, "output_dir": tmp_path / "run"}  # fmt: skip
    finished("train.yaml", **options)
    record = json.loads((tmp_path / "run/training.json").read_text())
    assert record["labels"] == ["background", "things", "stuff"]
    finished("evaluate.yaml", output_dir=tmp_path / "run", dataset_dir=root, precision="fp32", pictures=False)
    test = json.loads((tmp_path / "run/evaluation/summary.json").read_text())["test"]
    assert list(test["classes"]) == ["things", "stuff"]


def test_from_the_command_line_with_classes_that_overlap(folder, tmp_path):
    """A mask each, at a common threshold."""
    options = {**SMALL, "epochs": 1, "preset": "decoder_only", "dataset_name": "folder", "dataset_dir": folder,
               "classes": CLASSES, "activation": "sigmoid", "output_dir": tmp_path / "run"}  # fmt: skip
    done = run("training", CONFIGS / "train.yaml", tmp_path, **options)
    assert done.returncode == 0, done.stderr
    adapter = tmp_path / "run/adapter.safetensors"
    finished("evaluate.yaml", output_dir=tmp_path / "run", dataset_dir=folder, precision="fp32", pictures=False)
    test = json.loads((tmp_path / "run/evaluation/summary.json").read_text())["test"]
    assert 0 < test["threshold"] < 1
    assert test["dice"] == pytest.approx(np.mean([scores["dice"] for scores in test["classes"].values()]))
    finished("inference.yaml", adapter=adapter, input=folder / "images/0.png", output_dir=tmp_path / "masks",
             precision="fp32")  # fmt: skip
    threshold = read_spec(adapter).to_header()["threshold"]
    for number in (1, 2):
        mask = np.asarray(Image.open(tmp_path / f"masks/0_mask_{number}.png"))
        stored = np.asarray(Image.open(tmp_path / f"masks/0_probability_{number}.png"))
        np.testing.assert_array_equal(mask == 255, stored >= threshold * 65536)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "mask has other values than expected"),
        ({"classes": CLASSES, "model#out_channels": 1}, "another number of classes"),
        ({"classes": CLASSES, "multiclass_head": "token_set", "activation": "sigmoid"}, "exclude one another"),
    ],
)
def test_refusals(wrong, message, folder, tmp_path):
    options = SMALL | {"dataset_name": "folder", "dataset_dir": folder, "output_dir": tmp_path / "run"}
    with pytest.raises(Exception) as error:
        finished("train.yaml", **options, **wrong)
    assert message in str(error.getrepr(chain=True))
