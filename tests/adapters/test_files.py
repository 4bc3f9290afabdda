"""Adapter files: the same logits in a fresh process, and refusal of everything that does not fit."""

import json
import os
import stat
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import ROOT
from tests.processes import run_code
from topolora_monai.adapters import adapt, load_adapter, preset_config, read_spec, save_adapter
from topolora_monai.adapters.files import read_adapter_tensors
from topolora_monai.errors import AdapterFileError, ConfigError
from topolora_monai.networks import build_network

IMAGE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def trained(norm="layer", preset="topolora"):
    adaptation = adapt(build_network("vit_tiny_test", image_size=64), preset_config(preset, conv_adapter_norm=norm))
    net = adaptation.network.train()
    optimizer = torch.optim.AdamW(adaptation.trainable().values(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        (net(IMAGE) - 1).square().mean().backward()
        optimizer.step()
    net.eval()
    return adaptation


def logits(net):
    with torch.no_grad():
        return net.eval()(IMAGE)


@pytest.fixture
def saved(tmp_path):
    adaptation = trained()
    path = tmp_path / "adapter.safetensors"
    save_adapter(adaptation, path, labels=["background", "vessel"], threshold=0.4)
    return adaptation, path


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_loaded_gives_the_same_logits(tmp_path, norm):
    adaptation = trained(norm)
    path = tmp_path / "adapter.safetensors"
    save_adapter(adaptation, path)
    fresh = build_network("vit_tiny_test", image_size=64)
    assert (logits(fresh) - logits(adaptation.network)).abs().max() > 1e-3
    loaded = load_adapter(fresh, path)
    torch.testing.assert_close(logits(loaded.network), logits(adaptation.network), rtol=0, atol=1e-5)
    assert loaded.config == adaptation.config


def test_a_fresh_process_gives_the_same_logits(saved, tmp_path):
    adaptation, path = saved
    script = (
        "import sys, torch\n"
        "from topolora_monai.adapters import load_adapter\n"
        "from topolora_monai.networks import build_network\n"
        "net = load_adapter(build_network('vit_tiny_test', image_size=64), sys.argv[1]).network\n"
        "image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))\n"
        "with torch.no_grad(): torch.save(net(image), sys.argv[2])\n"
    )
    out = tmp_path / "logits.pt"
    assert run_code(script, path, out).returncode == 0
    torch.testing.assert_close(torch.load(out), logits(adaptation.network), rtol=0, atol=1e-5)


def test_header_says_what_a_user_needs(saved):
    adaptation, path = saved
    header = read_spec(path).to_header()
    assert header["network_name"] == "vit_tiny_test"
    assert header["base_sha256"] == adaptation.base_sha256
    assert header["labels"] == ["background", "vessel"]
    assert header["threshold"] == 0.4
    assert header["adaptation"]["lora"]["r"] == 8


def test_only_what_trains_is_stored(saved):
    adaptation, path = saved
    assert load_file(path).keys() == adaptation.trainable().keys()


def test_file_is_readable_by_the_group(saved):
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(saved[1].stat().st_mode) == 0o666 & ~umask
    assert not list(saved[1].parent.glob(".*.part"))


def test_one_changed_base_weight_is_refused(saved):
    base = build_network("vit_tiny_test", image_size=64)
    with torch.no_grad():
        base.image_encoder.blocks[0].mlp.lin1.weight[0, 0] += 1e-6
    with pytest.raises(AdapterFileError, match="other base weights"):
        load_adapter(base, saved[1])


def test_another_network_is_refused(saved):
    with pytest.raises(AdapterFileError, match="vit_tiny_test"):
        load_adapter(build_network("vit_t", image_size=64), saved[1])


def edit(path, change):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    state = load_file(path)
    change(state, metadata)
    save_file(state, path, metadata=metadata)


def test_missing_unexpected_and_reshaped_keys_are_named(saved):
    path = saved[1]

    def change(state, metadata):
        state["extra.weight"] = torch.zeros(1)
        state["embedding_adapter.block.0.weight"] = torch.zeros(3)
        del state["mask_decoder.mask_tokens.weight"]

    edit(path, change)
    with pytest.raises(AdapterFileError) as error:
        load_adapter(build_network("vit_tiny_test", image_size=64), path)
    for key in ("extra.weight", "embedding_adapter.block.0.weight", "mask_decoder.mask_tokens.weight"):
        assert key in str(error.value)


def test_truncated_file_is_named(saved):
    path = saved[1]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(AdapterFileError, match=r"damaged.*adapter\.safetensors"):
        load_adapter(build_network("vit_tiny_test", image_size=64), path)


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(AdapterFileError, match="not found"):
        read_spec(tmp_path / "none.safetensors")
    save_file({"w": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(AdapterFileError, match="not an adapter"):
        read_spec(tmp_path / "foreign.safetensors")


def test_unknown_format_asks_for_the_version(saved):
    def change(state, metadata):
        header = json.loads(metadata["topolora_monai"])
        metadata["topolora_monai"] = json.dumps(header | {"format": 99})

    edit(saved[1], change)
    with pytest.raises(AdapterFileError, match="unknown format"):
        read_spec(saved[1])


def with_header(path, **changes):
    def change(state, metadata):
        metadata["topolora_monai"] = json.dumps(json.loads(metadata["topolora_monai"]) | changes)

    edit(path, change)


class TestDamage:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("network_name", None), ("network_name", ["vit_t"]), ("base_sha256", "abc"), ("base_sha256", 3),
            ("package_version", 1), ("adaptation", []), ("adaptation", None), ("labels", "vessel"), ("labels", [1]),
            ("image_size", "64"), ("image_size", 0), ("image_size", True), ("image_size", 1.5), ("crop_size", -1),
            ("bits", "12"), ("bits", 40), ("fit", 1), ("threshold", "0.5"), ("threshold", 1.5),
            ("threshold", float("nan")), ("pretrained", 1), ("dataset", {}), ("format", True), ("format", "1"),
            ("format", None),
        ],
    )  # fmt: skip
    def test_wrong_types_in_the_header_are_named(self, saved, name, value):
        with_header(saved[1], **{name: value})
        with pytest.raises(AdapterFileError, match=name):
            read_spec(saved[1])

    @pytest.mark.parametrize(
        "change",
        [{"rank": "8"}, {"rank": 0}, {"rank": 2.5}, {"alpha": None}, {"alpha": "x"}, {"targets": 3}, {"new_knob": 1},
         {"first_block": "2"}, {"dropout": 2}],
    )  # fmt: skip
    def test_impossible_settings_are_an_error_of_the_file(self, saved, change):
        adaptation = read_spec(saved[1]).to_header()["adaptation"]
        with_header(saved[1], adaptation=adaptation | {"lora": adaptation["lora"] | change})
        with pytest.raises(AdapterFileError, match=r"settings of the adapter cannot be used.*adapter\.safetensors"):
            load_adapter(build_network("vit_tiny_test", image_size=64), saved[1])

    @pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 100_000, '"text"'])
    def test_header_that_is_no_json_object(self, saved, text):
        edit(saved[1], lambda state, metadata: metadata.update(topolora_monai=text))
        with pytest.raises(AdapterFileError, match="header of the adapter file is damaged"):
            read_spec(saved[1])

    @pytest.mark.parametrize("where", ["header", "name", "another header"])
    def test_text_that_would_take_minutes_is_not_read(self, saved, where):
        long = 50_000_000 * "x"

        def change(state, metadata):
            if where == "name":
                state[long] = torch.zeros(1)
            elif where == "header":
                metadata["topolora_monai"] = json.dumps(json.loads(metadata["topolora_monai"]) | {"labels": [long]})
            else:
                metadata["more"] = long

        edit(saved[1], change)
        started = time.monotonic()
        with pytest.raises(AdapterFileError, match=r"adapter\.safetensors(.|\n)*expected: at most") as error:
            read_spec(saved[1])
        assert time.monotonic() - started < 1
        assert len(str(error.value)) < 1000

    def test_header_longer_than_any_model_needs(self, saved):
        edit(saved[1], lambda _, metadata: metadata.update(topolora_monai=json.dumps({"a": 2_000_000 * "x"})))
        with pytest.raises(AdapterFileError, match="header of the adapter file is too long"):
            read_spec(saved[1])

    @pytest.mark.parametrize(
        ("method", "change"),
        [("lora", {"rank": 10**9}), ("lora", {"alpha": "$1"}), ("lora", {"use_dora": "$1"}), ("lora", {"rank": True}),
         ("lora", {"first_block": 1.5}), ("conv_lora", {"rank": 10**9}), ("conv_lora", {"experts": 10**9}),
         ("conv_lora", {"scales": 8 * [10**6]}), ("conv_lora", {"scales": [[1]]}), ("conv_lora", {"top_k": 1.0}),
         (None, {"train_decoder": "$1"}), (None, {"conv_adapter": 1}), (None, {"preset": 3})],
    )  # fmt: skip
    def test_absurd_settings_are_refused_before_anything_is_built(self, saved, method, change):
        changed = {"preset": "mine", method: change} if method else {"preset": "mine", "conv_adapter": True} | change
        with_header(saved[1], adaptation=changed)
        with pytest.raises(AdapterFileError, match=r"settings of the adapter cannot be used|wrong adaptation"):
            load_adapter(build_network("vit_tiny_test", image_size=64), saved[1])

    def test_values_that_are_not_finite_are_refused(self, saved):
        def change(state, metadata):
            state["mask_decoder.mask_tokens.weight"][0, 0] = float("nan")

        edit(saved[1], change)
        with pytest.raises(AdapterFileError, match=r"not finite(.|\n)*mask_tokens"):
            load_adapter(build_network("vit_tiny_test", image_size=64), saved[1])

    def test_another_type_of_number_is_refused(self, saved):
        def change(state, metadata):
            state["mask_decoder.mask_tokens.weight"] = state["mask_decoder.mask_tokens.weight"].int()

        edit(saved[1], change)
        with pytest.raises(AdapterFileError, match=r"other shape or type \['mask_decoder.mask_tokens.weight'\]"):
            load_adapter(build_network("vit_tiny_test", image_size=64), saved[1])

    def test_pickle_is_not_opened(self, tmp_path):
        torch.save({"weight": torch.zeros(2)}, tmp_path / "model.pt")
        with pytest.raises(AdapterFileError, match=r"not a safetensors file(.|\n)*pickled files are not read"):
            read_spec(tmp_path / "model.pt")

    def test_random_damage_never_ends_in_another_error(self, tmp_path):
        """Bytes of the table of contents changed, cut or added: an error of ours, or a file that is still readable."""
        small = next((ROOT / "tests/artefacts").glob("*/conv_lora_published.safetensors")).read_bytes()
        contents = 8 + int.from_bytes(small[:8], "little")
        rng, path = np.random.default_rng(0), tmp_path / "damaged.safetensors"
        refused = 0
        for _ in range(300):
            data = bytearray(small)
            for place in rng.integers(0, contents, rng.integers(1, 4)):
                data[place] = rng.integers(0, 256)
            path.write_bytes(data[: rng.integers(0, len(data))] if rng.random() < 0.2 else data)
            try:
                read_spec(path)
                read_adapter_tensors(path)
            except AdapterFileError:
                refused += 1
        assert 100 < refused <= 300


def test_loaded_values_outlive_the_file(saved):
    """A file that is overwritten in place must not change a network that was loaded from it."""
    adaptation, path = saved
    loaded = load_adapter(build_network("vit_tiny_test", image_size=64), path).network
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    torch.testing.assert_close(logits(loaded), logits(adaptation.network), rtol=0, atol=1e-5)


def test_property_that_could_not_be_read_again_is_not_written(saved):
    before = saved[1].read_bytes()
    with pytest.raises(AdapterFileError, match="wrong image_size"):
        save_adapter(saved[0], saved[1], image_size=64.5)
    assert saved[1].read_bytes() == before


def test_failed_write_leaves_the_older_file(saved, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        save_adapter(saved[0], tmp_path / "file/adapter.safetensors")
    with pytest.raises(OSError):
        save_adapter(saved[0], tmp_path / "none/adapter.safetensors")


class TestFilesOfBaselines:
    @pytest.fixture
    def trained(self):
        adaptation = adapt(build_network("little_wnet"), preset_config("full"))
        network = adaptation.network.train()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        network(torch.rand(2, 3, 32, 32)).mean().backward()  # also moves what BatchNorm has stored
        optimizer.step()
        return adaptation

    def test_file_is_the_whole_network_whatever_the_base_started_from(self, trained, tmp_path):
        save_adapter(trained, tmp_path / "whole.safetensors")
        loaded = load_adapter(build_network("little_wnet", seed=3), tmp_path / "whole.safetensors")
        image = torch.rand(1, 3, 40, 50)
        torch.testing.assert_close(loaded.network.eval()(image), trained.network.eval()(image), rtol=0, atol=0)

    def test_only_trained_whole(self):
        with pytest.raises(ConfigError, match=r"little_wnet(.|\n)*preset topolora(.|\n)*use preset full"):
            adapt(build_network("little_wnet"), preset_config("topolora"))

    def test_everything_trains_and_is_counted(self, trained):
        assert trained.trainable_count == trained.total_count == trained.published_trainable_count == 68482
