"""The methods beside plain LoRA: what each trains, stores, merges and saves in memory, and their combinations."""

import json

import pytest
import torch
from safetensors.torch import load_file

from topolora_monai.adapters import (
    PRESETS,
    AdaptationConfig,
    adapt,
    balance_loss,
    load_adapter,
    merge,
    preset_config,
    save_adapter,
)
from topolora_monai.adapters.inspection import summarize_preset
from topolora_monai.cli import main
from topolora_monai.errors import ConfigError
from topolora_monai.networks import build_network

IMAGE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))

COMBINATIONS = {
    "late DoRA in topolora": ("topolora", {"lora": {"first_block": -2, "use_dora": True}}),
    "every addition": ("topolora_conv", {"train_decoder": False, "decoder_lora": True}),
    "rsDoRA in the decoder": (
        "lora_decoder",
        {"lora": False, "decoder_lora": {"use_dora": True, "use_rslora": True}},
    ),
}
MERGEABLE = {
    "lora": ("lora", {"lora": {"targets": ["mlp", "qkv", "proj"]}}),
    "dora": ("dora", {}),
    "rslora": ("rslora", {}),
    "lora_decoder": ("lora_decoder", {}),
    "dora in the decoder": ("lora_decoder", {"decoder_lora": {"use_dora": True}, "lora": False}),
}


def network(name="vit_tiny_test"):
    return build_network(name, image_size=64)


def logits(net):
    with torch.no_grad():
        return net.eval()(IMAGE)


def moved(adaptation):
    """Move what trains away from the no-op start, or equality would prove nothing."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in adaptation.trainable().values():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return adaptation


def by_name(configurations):
    return pytest.mark.parametrize(("preset", "options"), configurations.values(), ids=configurations)


class TestEveryCombination:
    @by_name(COMBINATIONS)
    def test_starts_as_an_exact_no_op(self, preset, options):
        adapted = adapt(network(), preset_config(preset, **options)).network
        assert torch.equal(logits(adapted), logits(network()))

    @by_name(COMBINATIONS)
    def test_training_changes_what_trains_and_nothing_else(self, preset, options):
        adaptation = adapt(network(), preset_config(preset, **options))
        net = adaptation.network.train()
        before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        optimizer = torch.optim.AdamW(adaptation.trainable().values(), lr=0.05)
        for _ in range(3):
            optimizer.zero_grad()
            ((net(IMAGE) - 1).square().mean() + balance_loss(net)).backward()
            optimizer.step()
        for name, tensor in net.state_dict().items():
            assert torch.equal(tensor, before[name]) != (name in adaptation.trainable()), name

    @by_name(COMBINATIONS | MERGEABLE)
    def test_file_gives_the_same_logits(self, preset, options, tmp_path):
        adaptation = moved(adapt(network(), preset_config(preset, **options)))
        save_adapter(adaptation, tmp_path / "adapter.safetensors")
        loaded = load_adapter(network(), tmp_path / "adapter.safetensors")
        assert (logits(loaded.network) - logits(network())).abs().max() > 1e-3
        assert torch.equal(logits(loaded.network), logits(adaptation.network))
        assert loaded.config == adaptation.config


class TestMerging:
    @by_name(MERGEABLE)
    @pytest.mark.parametrize("name", ["vit_tiny_test", "vit_t"])
    def test_merged_equals_unmerged(self, name, preset, options):
        adaptation = moved(adapt(network(name), preset_config(preset, **options)))
        unmerged = logits(adaptation.network)
        assert (unmerged - logits(network(name))).abs().max() > 1e-3
        merged = merge(adaptation.network)
        torch.testing.assert_close(logits(merged), unmerged, rtol=1e-4, atol=1e-5)
        assert merged.state_dict().keys() == network(name).state_dict().keys()

    def test_what_cannot_be_merged_stays(self):
        preset, options = COMBINATIONS["every addition"]
        adaptation = moved(adapt(network(), preset_config(preset, **options)))
        unmerged = logits(adaptation.network)
        merged = merge(adaptation.network)
        torch.testing.assert_close(logits(merged), unmerged, rtol=1e-4, atol=1e-5)
        left = {name.split(".lora_")[0].rpartition(".")[2] for name in merged.state_dict() if ".lora_" in name}
        assert left == {"qkv"}


class TestWhatTrains:
    @pytest.mark.parametrize("name", ["vit_tiny_test", "sam2_t"])
    def test_decoder_lora_is_on_the_transformer(self, name):
        config = AdaptationConfig(decoder_lora=preset_config("lora_decoder").decoder_lora)
        adaptation = adapt(network(name), config)
        attentions = [f"layers.{i}.{kind}" for i in (0, 1) for kind in ("self_attn", "cross_attn_token_to_image")]
        attentions += [f"layers.{i}.cross_attn_image_to_token" for i in (0, 1)] + ["final_attn_token_to_image"]
        places = {f"{attention}.{part}_proj" for attention in attentions for part in ("q", "k", "v", "out")}
        places |= {f"layers.{i}.mlp.{part}" for i in (0, 1) for part in ("lin1", "lin2")}
        layers = {key.split(".lora_")[0] for key in adaptation.trainable()}
        assert layers == {f"mask_decoder.transformer.{place}" for place in places}

    def test_decoder_targets_choose(self):
        names = adapt(
            network(), preset_config("lora_decoder", lora=False, decoder_lora={"targets": ["mlp"]})
        ).trainable()
        assert {key.split(".lora_")[0].rpartition(".")[0][-3:] for key in names} == {"mlp"}


class TestLateBlocks:
    @staticmethod
    def saved_bytes(config, name):
        """Bytes of activations that autograd keeps in one forward pass, each storage once."""
        adapted = adapt(network(name), config).network.train()
        held, storages = {parameter.untyped_storage().data_ptr() for parameter in adapted.parameters()}, {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in held:
                storages[storage.data_ptr()] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = adapted(IMAGE)
        del out
        return sum(storage.nbytes() for storage in storages.values())

    @pytest.mark.parametrize("name", ["vit_tiny_test", "vit_t", "sam2_t"])
    def test_blocks_before_the_first_keep_nothing(self, name):
        kept = {
            first: self.saved_bytes(preset_config("lora_late", lora={"first_block": first}), name) for first in (0, -1)
        }
        decoder = self.saved_bytes(preset_config("decoder_only"), name)
        blocks = {"vit_tiny_test": 4, "vit_t": 10, "sam2_t": 12}[name]
        assert kept[-1] - decoder < (kept[0] - decoder) / blocks * 1.5

    def test_gradient_enters_at_the_first_adapted_block(self):
        net = adapt(network(), preset_config("topolora", lora={"first_block": -2, "use_dora": True})).network.train()
        seen = []
        for block in net.image_encoder.blocks:
            block.register_forward_hook(lambda _module, _inputs, out: seen.append(out.requires_grad))
        net(IMAGE)
        assert seen == [False, False, True, True]


class TestSettings:
    def test_files_of_earlier_versions_load(self):
        earlier = {
            "preset": "topolora",
            "lora": {"targets": ["mlp"], "rank": 8, "alpha": 16.0, "dropout": 0.0, "first_block": 0}
            | {"last_block": None, "use_dora": False, "use_rslora": False},
            "conv_adapter": True,
            "conv_adapter_norm": "layer",
            "train_decoder": True,
            "train_encoder": False,
            "freeze_unused": True,
        }
        assert AdaptationConfig.from_dict(earlier) == preset_config("topolora")
        assert AdaptationConfig.from_dict(earlier | {"conv_lora": None}) == preset_config("topolora")
        former = {"adalora": None, "train_biases": False, "train_norms": False, "base_quantization": "none"}
        assert AdaptationConfig.from_dict(earlier | former) == preset_config("topolora")

    @pytest.mark.parametrize(
        "used",
        [{"adalora": {"rank": 12}}, {"train_biases": True}, {"train_norms": True}, {"base_quantization": "4bit"}],
    )
    def test_files_of_methods_that_are_gone_name_who_reads_them(self, used):
        with pytest.raises(ConfigError, match=rf"{next(iter(used))}(.|\n)*0\.1\.0 read it"):
            AdaptationConfig.from_dict(preset_config("lora").to_dict() | used)

    def test_words_of_the_command_line_count(self):
        words = {"lora": "false", "decoder_lora": "true", "train_decoder": "False"}
        plain = {"lora": False, "decoder_lora": True, "train_decoder": False}
        assert preset_config("topolora", **words) == preset_config("topolora", **plain)

    @by_name(COMBINATIONS)
    def test_survive_json(self, preset, options):
        config = preset_config(preset, **options)
        assert AdaptationConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config

    @pytest.mark.parametrize(
        ("preset", "options", "message"),
        [
            ("topolora", {"decoder_lora": True}, "trains whole and by LoRA"),
            ("conv_lora", {"lora": {"targets": ["qkv"]}}, "LoRA and Conv-LoRA adapt the same linears"),
            ("lora", {"decoder_lora": {"rank": 4}}, "trains whole and by LoRA"),
            ("lora", {"lora": {"rnak": 4}}, "unknown adaptation setting"),
            ("lora", {"lora": "yes"}, "true, false or its settings"),
            ("lora_decoder", {"decoder_lora": {"targets": ["qkv"]}}, "decoder_lora#targets is not possible"),
            ("lora_decoder", {"decoder_lora": {"rank": 0}}, "decoder_lora#r is not possible"),
            ("lora_decoder", {"decoder_lora": {"alpha": float("nan")}}, "lora_alpha is not possible"),
            ("conv_lora", {"conv_lora": {"alpha": float("inf")}}, "lora_alpha is not possible"),
            ("lora", {"lora": False, "train_decoder": False}, "trains nothing"),
        ],
    )
    def test_impossible_ones_are_refused(self, preset, options, message):
        with pytest.raises(ConfigError, match=message):
            preset_config(preset, **options)


class TestSummaries:
    @pytest.mark.parametrize("preset", PRESETS)
    def test_are_what_adapting_and_merging_give(self, preset, tmp_path):
        summary = summarize_preset(preset, "vit_tiny_test")
        adaptation = adapt(network(), preset_config(preset))
        assert summary.trainable == adaptation.trainable_count
        save_adapter(adaptation, tmp_path / "adapter.safetensors")
        tensors = load_file(tmp_path / "adapter.safetensors").values()
        assert summary.file_bytes == sum(tensor.numel() * 4 for tensor in tensors)
        added = adaptation.network.state_dict().keys() - network().state_dict().keys()
        left = merge(adaptation.network).state_dict().keys() - network().state_dict().keys()
        places = [{name.split(".lora_")[0] for name in names if ".lora_" in name} for names in (left, added)]
        assert summary.mergeable == ("fully" if not left else "no" if places[0] == places[1] else "partly")

    def test_command_lists_every_preset(self, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "200")
        assert main(["params", "--list", "--network_name", "vit_tiny_test"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[1:]] == list(PRESETS)
        expected = adapt(network(), preset_config("rslora")).trainable_count
        assert f"{expected:,}" in next(line for line in lines if line.startswith("rslora "))

    @pytest.mark.parametrize(
        ("preset", "settings"),
        [
            ("lora", {"lora": {"rank": 3}}),
            ("conv_lora", {"conv_lora": {"rank": 3}}),
        ],
    )
    def test_command_sets_the_rank_of_the_method(self, preset, settings, capsys):
        assert main(["params", "--network_name", "vit_tiny_test", "--preset", preset, "--rank", "3", "--json"]) == 0
        count = json.loads(capsys.readouterr().out)["trainable"]
        assert count == adapt(network(), preset_config(preset, **settings)).trainable_count

    def test_command_without_a_rank_to_set(self, capsys):
        assert main(["params", "--network_name", "vit_tiny_test", "--preset", "decoder_only", "--rank", "3"]) == 1
        assert "no rank to set" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("preset", "note"), [("topolora", "no gradient"), ("conv_lora", "without mask tokens"), ("adapter_only", "")]
    )
    def test_command_says_how_the_paper_counts(self, preset, note, capsys):
        assert main(["params", "--network_name", "vit_tiny_test", "--preset", preset]) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("published"))
        assert note in line
        assert bool(note) == (len(line.split()) > 2)
