"""Folders that Hugging Face PEFT loads by itself: equal logits, equal files, and what is refused."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from topolora_monai.adapters import adapt, from_peft, preset_config, save_adapter, to_peft
from topolora_monai.cli import main
from topolora_monai.errors import AdapterFileError, ConfigError
from topolora_monai.networks import build_network

PROPERTIES = {"crop_size": 32, "threshold": 0.4, "dataset": "drive", "recipe": {"epochs": 3}, "further_note": "kept"}


def write(path, preset, settings=None, **options):
    """An adapter file whose adapters no longer do nothing, and its network."""
    network = build_network("vit_tiny_test", image_size=64, **options)
    adaptation = adapt(network, preset_config(preset, **settings or {}))
    generator = torch.Generator().manual_seed(1)
    for parameter in adaptation.trainable().values():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    save_adapter(adaptation, path, **PROPERTIES)
    return adaptation.network


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("peft")
    write(root / "a.safetensors", "lora_decoder")
    to_peft(root / "a.safetensors", root / "folder")
    return root / "folder"


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "folder")


@pytest.mark.parametrize(
    ("preset", "settings", "options"),
    [
        ("lora", {"lora": {"first_block": -2}}, {"in_channels": 5, "out_channels": 3}),
        ("lora_decoder", {"decoder_lora": {"r": 3, "lora_alpha": 5.0}}, {}),
        ("dora", {}, {}),
        ("rslora", {"lora": {"targets": ["qkv", "proj"]}}, {}),
        ("conv_lora", {"conv_lora": {"scales": [1, 3], "top_k": 2, "gate": "published"}}, {}),
    ],
)
def test_peft_alone_gives_the_same_logits_and_the_file_comes_back(preset, settings, options, tmp_path):
    image = torch.rand(1, options.get("in_channels", 3), 48, 64, generator=torch.Generator().manual_seed(3))
    file, folder, again = tmp_path / "a.safetensors", tmp_path / "new/folder", tmp_path / "again"
    adapted = write(file, preset, settings, **options).eval()
    spec = to_peft(file, folder)
    base = build_network(**spec.network_settings).eval()
    with torch.no_grad():
        expected, plain = adapted(image), base(image)
        model = PeftModel.from_pretrained(base, folder)
        assert torch.equal(model(image), expected)
        assert (expected - plain).abs().max() > 1e-2
        with model.disable_adapter():
            assert torch.equal(model(image), plain)
    assert from_peft(folder, tmp_path / "b.safetensors") == spec
    assert (tmp_path / "b.safetensors").read_bytes() == file.read_bytes()
    model.save_pretrained(again)
    shutil.copy(folder / "model.json", again)
    from_peft(again, tmp_path / "c.safetensors")
    assert (tmp_path / "c.safetensors").read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("preset", "settings", "options", "found"),
    [
        ("topolora", {}, {}, "spatial convolution adapter"),
        ("topolora_conv", {}, {}, "two methods of PEFT"),
        ("topolora_plus", {"conv_adapter": False}, {}, "the detail branch"),
        ("full", {}, {}, "no low-rank update"),
        ("full", {"lora": True}, {}, "the whole image encoder"),
        ("lora_decoder", {"decoder_lora": {"use_dora": True}}, {}, "LoRA of two kinds"),
        ("lora_decoder", {}, {"out_channels": 2}, "class tokens"),
    ],
)
def test_what_one_folder_cannot_hold(preset, settings, options, found, tmp_path):
    write(tmp_path / "a.safetensors", preset, settings, **options)
    presets = "lora, lora_late, lora_qkv, lora_decoder, dora, rslora, conv_lora"
    with pytest.raises(ConfigError, match=rf"{found}(.|\n)*{presets}$"):
        to_peft(tmp_path / "a.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def change(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def pickle_instead(folder):
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def spoil(folder):
    state = load_file(folder / "adapter_model.safetensors")
    next(iter(state.values()))[0] = float("nan")
    save_file(state, folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "no PEFT folder.*(.|\n)*no adapter_config.json"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "no adapter_config.json"),
        (lambda folder: (folder / "model.json").unlink(), "no model.json(.|\n)*copy the model.json"),
        (pickle_instead, "adapter_model.bin, a pickle(.|\n)*safe_serialization=True"),
        (lambda folder: change(folder / "adapter_config.json", lora_alpha=32), "lora_alpha 16(.|\n)*lora_alpha 32"),
        (lambda folder: change(folder / "adapter_config.json", peft_type="CONV_LORA"), "CONV_LORA"),
        (lambda folder: change(folder / "adapter_config.json", peft_type="NONE"), "cannot be used(.|\n)*NONE"),
        (lambda folder: (folder / "adapter_config.json").write_text("[]"), "expected: a JSON object"),
        (lambda folder: change(folder / "model.json", network_name="vit_t"), "does not fit the network"),
        (
            lambda folder: change(folder / "model.json", adaptation={"lora": 7}),
            "settings of the adapter cannot be used",
        ),
        (spoil, "not finite"),
    ],
)
def test_folders_that_are_none(damage, message, folder, tmp_path):
    damage(folder)
    with pytest.raises(AdapterFileError, match=message) as error:
        from_peft(folder, tmp_path / "b.safetensors")
    assert str(folder) in str(error.value)
    assert not (tmp_path / "b.safetensors").exists()


def test_peft_refuses_another_base(made):
    with pytest.raises((ValueError, RuntimeError)):
        PeftModel.from_pretrained(build_network("vit_t", image_size=64), made)


def test_commands(tmp_path, capsys):
    base = build_network("vit_tiny_test")
    save_file(base.state_dict(), tmp_path / "base.safetensors")
    save_file({name: tensor + 1 for name, tensor in base.state_dict().items()}, tmp_path / "other.safetensors")
    file, folder, back = (str(tmp_path / name) for name in ("a.safetensors", "folder", "b.safetensors"))
    write(tmp_path / "a.safetensors", "lora_late", weights=tmp_path / "base.safetensors")

    def run(*words):
        status = main(["adapter", *map(str, words)])
        return status, capsys.readouterr()

    status, told = run("to-peft", file, "--out", folder, "--weights", tmp_path / "other.safetensors")
    assert (status, "adapter is for other base weights" in told.err) == (1, True)
    status, told = run("to-peft", file, "--out", folder, "--weights", tmp_path / "base.safetensors")
    assert (status, "PeftModel.from_pretrained" in told.out) == (0, True)
    status, told = run("to-peft", file, "--out", folder, "--weights", tmp_path / "base.safetensors")
    assert (status, "exists already" in told.err) == (1, True)
    assert run("to-peft", file, "--out", folder, "--weights", tmp_path / "base.safetensors", "--force")[0] == 0
    status, told = run("from-peft", folder, "--out", back)
    assert (status, "lora_late on vit_tiny_test" in told.out) == (0, True)
    status, told = run("from-peft", folder, "--out", back)
    assert (status, "exists already" in told.err) == (1, True)
    status, told = run("from-peft", folder, "--out", folder)
    assert (status, "ends in .safetensors" in told.err) == (1, True)
    assert run("diff", file, back)[0] == 0
