"""A released bundle answers as its run did, passes MONAI's verifiers and stands alone."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.errors import HFValidationError
from monai.bundle import ConfigParser, ckpt_export, verify_metadata, verify_net_in_out
from PIL import Image

from tests.bundles.helpers import CONFIGS, run
from tests.conftest import ROOT
from topolora_monai.adapters import adapt, load_adapter, preset_config, save_adapter
from topolora_monai.cli import main
from topolora_monai.errors import AdapterFileError, DataError, OutputError
from topolora_monai.networks import build_network
from topolora_monai.release import release

SCORES = {"dice": 0.8125, "iou": 0.684, "precision": 0.8, "recall": 0.825, "auc": 0.97, "cldice": 0.79,
          "threshold": 0.4, "dice_at_half": 0.81}  # fmt: skip


def write_run(folder, channels=3, preset="topolora", classes=1, preset_name=None, **properties):
    """What a finished and evaluated run leaves, of a network whose adapters no longer do nothing."""
    (folder / "evaluation").mkdir(parents=True)
    network = build_network("vit_tiny_test", image_size=64, in_channels=channels, out_channels=classes, seed=0)
    config = preset_config(preset)
    adaptation = adapt(network, dataclasses.replace(config, preset=preset_name or config.preset), seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in adaptation.trainable().values():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    settings = {
        "dataset": "drive", "split_scheme": "official", "labels": ["background", "vessel"], "image_size": 64,
        "crop_size": 32, "in_channels": channels, "out_channels": classes, "fit": "pad", "protocol": "native",
        "pixel_values": "linear", "percentiles": [1.0, 99.0], "value_range": None, "clahe": False,
        "despeckle_looks": None, "threshold": 0.4,
    }  # fmt: skip
    save_adapter(adaptation, folder / "adapter.safetensors", **settings | properties)
    record = {
        "dataset": "drive", "seed": 3, "trainable": adaptation.trainable_count, "epochs": 30, "seconds": 1234.5,
        "peak_memory_bytes": 2_500_000_000, "hardware": "a processor", "commit": "abc123",
        "command": "python -m monai.bundle run training", "test": SCORES, "evaluated_on": {"dataset": "drive"},
    }  # fmt: skip
    (folder / "evaluation/summary.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    root = tmp_path_factory.mktemp("release")
    release(write_run(root / "run"), root / "vessels")
    return root


def network_of(bundle):
    parser = ConfigParser()
    parser.read_config(bundle / "configs/inference.yaml")
    parser["bundle_root"] = str(bundle)
    return parser.get_parsed_content("network")


def test_same_logits_as_the_run(released):
    base = build_network("vit_tiny_test", image_size=64, seed=0)
    adapted = load_adapter(base, released / "run/adapter.safetensors").network.eval()
    image = torch.rand(2, 3, 40, 56)
    with torch.no_grad():
        expected, found = adapted(image), network_of(released / "vessels")(image)
        plain = build_network("vit_tiny_test", image_size=64, seed=0).eval()(image)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (expected - plain).abs().max() > 0.1


def test_contents(released):
    bundle = released / "vessels"
    files = sorted(str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file())
    assert files == [
        "LICENSE", "configs/inference.yaml", "configs/logging.conf", "configs/metadata.json", "docs/README.md",
        "docs/data_license.txt", "large_files.yml", "models/adapters/vessels.safetensors", "models/model.json",
        "models/model.pt",
    ]  # fmt: skip
    assert sorted(path.name for path in released.iterdir()) == ["run", "vessels"]
    state = torch.load(bundle / "models/model.pt", weights_only=True)
    assert not any("lora" in name for name in state)
    assert any(name.startswith("embedding_adapter.") for name in state)
    config = (bundle / "configs/inference.yaml").read_text()
    assert "@header" not in config
    assert "@adapter" not in config
    assert str(released) not in config


def test_metadata_tells_labels_scale_and_scores(released):
    described = json.loads((released / "vessels/configs/metadata.json").read_text())
    assert described["name"] == "vessels"
    assert described["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "vessel"}
    assert described["pixel_scale"] == 2
    assert described["eval_metrics"]["dice"] == SCORES["dice"]
    assert described["data_source"] == "DRIVE, https://drive.grand-challenge.org"
    assert described["network_data_format"]["inputs"]["image"]["modality"] == "optical"
    form = described["network_data_format"]
    assert form["inputs"]["image"]["spatial_shape"] == form["outputs"]["pred"]["spatial_shape"] == [32, 32]


def test_card_is_complete(released):
    card = (released / "vessels/docs/README.md").read_text()
    for text in ("drive, split official", "0.812", "seed 3", "30 epochs", "21 min", "2.5 GB", "a processor", "abc123",
                 "vessel", "0.400", "32 px are enlarged to 64 px"):  # fmt: skip
        assert text in card, text
    assert not any(word in card for word in ("TODO", "None", "{", "}"))
    assert "Staal" in (released / "vessels/docs/data_license.txt").read_text()


def test_card_tells_groups_apart_and_keeps_folders_to_itself(tmp_path):
    run = write_run(tmp_path / "run")
    table = "name,group,dice,cldice,betti_0_error\n1,in,0.5,1,3\n2,in,0.75,,4\n3,out*,0.25,0.5,\n"
    (run / "evaluation/per_image.csv").write_text(table)
    record = json.loads((run / "evaluation/summary.json").read_text())
    record["command"] = "python -m x run --config_file /home/jane/here/train.yaml --weights=/data/b.pt --set 'a/b' c/d"
    (run / "evaluation/summary.json").write_text(json.dumps(record))
    card = (release(run, tmp_path / "vessels") / "docs/README.md").read_text()
    assert "| in | 2 | 0.625 | 1.000 | 3.500 |\n| out\\* | 1 | 0.250 | 0.500 | - |" in card
    assert "--config_file train.yaml --weights=b.pt --set 'a/b' c/d" in card


def test_scores_that_are_not_defined(tmp_path):
    run = write_run(tmp_path / "run")
    record = json.loads((run / "evaluation/summary.json").read_text())
    record["test"] |= {"dice": None, "cldice": None, "classes": {"vessel": {**SCORES, "dice": None}}}
    (run / "evaluation/summary.json").write_text(json.dumps(record))
    out = release(run, tmp_path / "vessels")
    described = json.loads((out / "configs/metadata.json").read_text())
    assert "Test" not in described["description"]
    assert described["eval_metrics"]["iou_vessel"] == SCORES["iou"]
    assert not {"dice", "dice_vessel"} & set(described["eval_metrics"])
    assert "| mean | - | 0.684 |" in (out / "docs/README.md").read_text()


@pytest.mark.parametrize("use_trace", [False, True])
def test_monais_verifiers_pass_offline(released, tmp_path, use_trace):
    bundle = released / "vessels"
    meta, config = (str(bundle / "configs" / name) for name in ("metadata.json", "inference.yaml"))
    place = {"bundle_root": str(bundle)}
    schema = shutil.copy(ROOT / "tests/bundles/metadata_schema.json", tmp_path / "schema.json")
    verify_metadata(meta_file=meta, filepath=str(schema))
    verify_net_in_out(net_id="network_def", meta_file=meta, config_file=config, device="cpu", **place)
    ckpt_export(net_id="network_def", filepath=str(tmp_path / "model.ts"), ckpt_file=str(bundle / "models/model.pt"),
                meta_file=meta, config_file=config, use_trace=use_trace, **place)  # fmt: skip
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        exported = torch.jit.load(tmp_path / "model.ts")
        torch.testing.assert_close(exported(image), network_of(bundle)(image), rtol=1e-4, atol=1e-4)
        with pytest.raises(torch.jit.Error, match="takes images of 32x32 pixels"):
            exported(torch.rand(1, 3, 32, 48))


def test_answers_like_the_run_from_another_place(released, tmp_path):
    (tmp_path / "in").mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "in/a.png")
    shared = {"input": tmp_path / "in", "precision": "fp32"}
    done = run("inferring", CONFIGS / "inference.yaml", tmp_path, adapter=released / "run/adapter.safetensors",
               output_dir=tmp_path / "expected", **shared)  # fmt: skip
    assert done.returncode == 0, done.stderr
    moved = shutil.copytree(released / "vessels", tmp_path / "elsewhere/bundle")
    done = run("inferring", moved / "configs/inference.yaml", moved, output_dir=tmp_path / "found", **shared)
    assert done.returncode == 0, done.stderr
    for name in ("a_mask.png", "a_probability.png"):
        expected, found = (np.asarray(Image.open(tmp_path / f / name)).astype(int) for f in ("expected", "found"))
        assert np.abs(expected - found).max() <= (0 if "mask" in name else 8)
    assert np.asarray(Image.open(tmp_path / "found/a_mask.png")).any()


def test_applications_get_a_mask(released, tmp_path):
    """What reads this file alone: preprocessing, network, inferer and postprocessing."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    parser = ConfigParser()
    parser.read_config(released / "vessels/configs/inference.yaml")
    parser["bundle_root"], parser["device"], parser["precision"] = str(released / "vessels"), "cpu", "fp32"
    item = parser.get_parsed_content("preprocessing")({"image": str(tmp_path / "a.png"), "asked_by": "a client"})
    assert item["asked_by"] == "a client"
    with torch.no_grad():
        logits = parser.get_parsed_content("inferer")(item["image"][None], parser.get_parsed_content("network"))
    mask = parser.get_parsed_content("postprocessing")({"pred": logits[0]})["pred"]
    assert mask.shape == (70, 50)
    assert mask.dtype == torch.uint8
    expected = torch.sigmoid(logits[0, 0]).T >= 0.4
    assert (mask.bool() != expected).sum() <= 1
    assert 0 < expected.sum() < expected.numel()


def test_one_band_and_a_part_of_a_data_set(tmp_path):
    run_dir = write_run(tmp_path / "run", channels=1, preset="decoder_only", dataset="sos", partial="9 of 8070 images",
                        labels=["background", "oil"])  # fmt: skip
    bundle = release(run_dir, tmp_path / "oil")
    described = json.loads((bundle / "configs/metadata.json").read_text())
    assert described["network_data_format"]["inputs"]["image"]["num_channels"] == 1
    assert "9 of 8070 images" in described["data_source"]
    assert "Only a part of it: 9 of 8070 images" in (bundle / "docs/README.md").read_text()


class TestRefusals:
    def test_unevaluated_run(self, tmp_path):
        run_dir = write_run(tmp_path / "run")
        (run_dir / "evaluation/summary.json").unlink()
        with pytest.raises(DataError, match=r"summary\.json") as error:
            release(run_dir, tmp_path / "out")
        assert "evaluate the run first" in str(error.value)
        assert not (tmp_path / "out").exists()

    def test_run_that_nothing_is_known_of(self, tmp_path):
        run_dir = write_run(tmp_path / "run")
        (run_dir / "evaluation/summary.json").write_text(json.dumps({"test": SCORES, "hardware": "a processor"}))
        with pytest.raises(DataError, match=r"nothing is known of the training(.|\n)*seed(.|\n)*training\.json"):
            release(run_dir, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_no_run(self, tmp_path):
        with pytest.raises(AdapterFileError, match="not found"):
            release(tmp_path, tmp_path / "out")

    def test_folder_exists(self, tmp_path):
        (tmp_path / "out").mkdir()
        with pytest.raises(OutputError, match="exists already"):
            release(write_run(tmp_path / "run"), tmp_path / "out")

    def test_other_base(self, tmp_path):
        other = build_network("vit_tiny_test", image_size=64, seed=9)
        torch.save(other.state_dict(), tmp_path / "other.pt")
        with pytest.raises(AdapterFileError, match="other base weights"):
            release(write_run(tmp_path / "run"), tmp_path / "out", weights=tmp_path / "other.pt")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["other.pt", "run"]

    @pytest.mark.parametrize("limit", [1_000, 200_000])
    def test_full_disk_leaves_nothing(self, tmp_path, limit):
        resource = pytest.importorskip("resource")
        run_dir = write_run(tmp_path / "run")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(OutputError, match=r"cannot write the bundle(.|\n)*free some space"):
                release(run_dir, tmp_path / "out")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert [path.name for path in tmp_path.iterdir()] == ["run"]

    def test_interrupted_writing_leaves_nothing(self, tmp_path, monkeypatch):
        monkeypatch.setattr("topolora_monai.release.bundle.model_card", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            release(write_run(tmp_path / "run"), tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_command(tmp_path, capsys):
    write_run(tmp_path / "run")
    assert main(["release", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 0
    assert str(tmp_path / "out") in capsys.readouterr().out
    assert main(["release", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 1
    assert "exists already" in capsys.readouterr().err


class TestPush:
    def test_the_whole_bundle_goes_to_a_private_repository(self, tmp_path, monkeypatch, capsys):
        calls = []

        class Hub:
            def __init__(self, token=None):
                pass

            def create_repo(self, repo_id, private, exist_ok):
                calls.append((repo_id, private))

            def upload_folder(self, repo_id, folder_path):
                calls.append((repo_id, {path.name for path in Path(folder_path).iterdir()}))
                return f"https://huggingface.co/{repo_id}"

        monkeypatch.setattr("huggingface_hub.HfApi", Hub)
        monkeypatch.chdir(tmp_path)
        write_run(tmp_path / "run")
        assert main(["release", "--run", "run", "--out", "vessels", "--push", "someone/vessels"]) == 0
        assert "pushed to https://huggingface.co/someone/vessels" in capsys.readouterr().out
        assert calls[0] == ("someone/vessels", True)
        assert calls[1][0] == "someone/vessels"
        assert {"configs", "models", "LICENSE", "README.md"} <= calls[1][1]

    def test_trouble_leaves_the_bundle_and_tells_what_to_do(self, tmp_path, monkeypatch, capsys):
        def refuse(*_, **__):
            raise HFValidationError("Repo id must be in the form")

        monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refuse)
        write_run(tmp_path / "run")
        out = tmp_path / "out"
        assert main(["release", "--run", str(tmp_path / "run"), "--out", str(out), "--push", "a/b/c"]) == 1
        told = capsys.readouterr().err
        assert "a/b/c: Repo id must be in the form" in told
        assert f"push_to_hf_hub --repo a/b/c --name out --bundle_dir {tmp_path}" in told
        assert (out / "models/model.pt").is_file()


def test_damaged_model_is_named(released, tmp_path):
    bundle = shutil.copytree(released / "vessels", tmp_path / "bundle")
    (bundle / "models/model.pt").write_bytes(b"nothing")
    done = run("inferring", "configs/inference.yaml", bundle, input=ROOT / "docs/images", output_dir=tmp_path / "out")
    assert done.returncode != 0
    assert "the bundle's model cannot be loaded: ./models/model.pt" in done.stderr
