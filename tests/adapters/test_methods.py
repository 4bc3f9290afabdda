"""The methods beside plain LoRA: what each trains, stores, merges and saves in memory, and their combinations."""

import copy
import json
import sys

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from safetensors.torch import load_file
from torch import nn

from topolora_monai.adapters import (
    PRESETS,
    AdaLoraSettings,
    AdaptationConfig,
    adapt,
    balance_loss,
    load_adapter,
    merge,
    preset_config,
    save_adapter,
)
from topolora_monai.adapters.quantization import is_quantized
from topolora_monai.adapters.summary import summarize_preset
from topolora_monai.cli import main
from topolora_monai.engines import RankAllocation
from topolora_monai.engines.rank_allocation import orthogonality_loss
from topolora_monai.errors import ConfigError
from topolora_monai.networks import build_network

IMAGE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))

COMBINATIONS = {
    "late DoRA in topolora": ("topolora", {"lora_first_block": -2, "lora_use_dora": True}),
    "every addition": (
        "topolora_conv",
        {"adalora": True, "adalora_targets": ["proj"], "train_decoder": False, "decoder_lora": True},
    ),
    "rsDoRA in the decoder, biases, norms": (
        "lora_decoder",
        {"lora": False, "train_biases": True, "train_norms": True, "decoder_lora_use_dora": True}
        | {"decoder_lora_use_rslora": True},
    ),
    "AdaLoRA for LoRA": ("topolora", {"lora": False, "adalora": True, "adalora_first_block": -3}),
    "LoRA and biases": ("lora", {"train_biases": True, "lora_targets": ["mlp", "qkv", "proj"]}),
}
MERGEABLE = {
    "lora": ("lora", {"lora_targets": ["mlp", "qkv", "proj"]}),
    "dora": ("dora", {}),
    "rslora": ("rslora", {}),
    "adalora": ("adalora", {"adalora_targets": ["mlp", "qkv", "proj"]}),
    "lora_decoder": ("lora_decoder", {}),
    "dora in the decoder": ("lora_decoder", {"decoder_lora_use_dora": True, "lora": False}),
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
    @pytest.mark.parametrize("name", ["vit_tiny_test", "vit_t", "sam2_t"])
    def test_biases(self, name):
        base = network(name)
        statistics = {key.rpartition(".")[0] for key in base.state_dict() if key.endswith("running_mean")}
        encoder = [key for key, _ in base.named_parameters() if key.startswith("image_encoder.")]
        biases = {key for key in encoder if key.endswith(".bias") and key.rpartition(".")[0] not in statistics}
        trained = adapt(base, preset_config("bitfit", train_decoder=False)).trainable()
        assert trained.keys() == biases
        assert len(biases) > 20
        assert all(parameter.ndim == 1 for parameter in trained.values())

    @pytest.mark.parametrize(("name", "norms"), [("vit_tiny_test", 4 * 2 + 2), ("vit_t", 10 * 2 + 2), ("sam2_t", 24)])
    def test_layer_norms(self, name, norms):
        trained = adapt(network(name), preset_config("layernorm", train_decoder=False)).trainable()
        assert len(trained) == 2 * norms  # scale and shift of each
        assert all("norm" in key or "neck" in key for key in trained)

    @pytest.mark.parametrize("preset", ["bitfit", "layernorm"])
    def test_stored_statistics_of_tiny_vit_stay(self, preset):
        adaptation = adapt(network("vit_t"), preset_config(preset))
        before = {key: tensor.clone() for key, tensor in adaptation.network.named_buffers() if "running" in key}
        assert before
        adaptation.network.train()(IMAGE)
        for key, tensor in adaptation.network.named_buffers():
            assert key not in before or torch.equal(tensor, before[key]), key

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
        names = adapt(network(), preset_config("lora_decoder", lora=False, decoder_lora_targets=["mlp"])).trainable()
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
        kept = {first: self.saved_bytes(preset_config("lora_late", lora_first_block=first), name) for first in (0, -1)}
        decoder = self.saved_bytes(preset_config("decoder_only"), name)
        blocks = {"vit_tiny_test": 4, "vit_t": 10, "sam2_t": 12}[name]
        assert kept[-1] - decoder < (kept[0] - decoder) / blocks * 1.5

    def test_gradient_enters_at_the_first_adapted_block(self):
        net = adapt(network(), preset_config("topolora", lora_first_block=-2, lora_use_dora=True)).network.train()
        seen = []
        for block in net.image_encoder.blocks:
            block.register_forward_hook(lambda _module, _inputs, out: seen.append(out.requires_grad))
        net(IMAGE)
        assert seen == [False, False, True, True]


class Sum(nn.Module):
    def forward(self, prediction, target):
        return (prediction - target).square().mean()


def train(adaptation, epochs, steps=10, optimizer=None, start=0, accumulation_steps=1):
    """MONAI's trainer with the handler, one fixed batch; epochs from ``start`` of a run of ``epochs``."""
    optimizer = optimizer or torch.optim.AdamW(adaptation.trainable().values(), lr=0.01)
    batch = {"image": IMAGE, "label": torch.ones(1, 1, 64, 64)}
    engine = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=[batch] * steps,
        network=adaptation.network,
        optimizer=optimizer,
        loss_function=Sum(),
        accumulation_steps=accumulation_steps,
        decollate=False,
    )

    @engine.on(Events.STARTED)
    def resume():
        engine.state.epoch, engine.state.iteration = start, start * steps

    handler = RankAllocation(adaptation)
    handler.attach(engine)
    return engine, optimizer, handler


def ranks(adaptation):
    values = {name: value for name, value in adaptation.network.named_parameters() if ".lora_E." in name}
    return {name: int((value != 0).sum()) for name, value in values.items()}


def adalora(**settings):
    config = {"rank": 6, "target_rank": 2, "interval": 2} | settings
    return adapt(network(), AdaptationConfig(adalora=AdaLoraSettings(**config)))


class TestRankAllocation:
    def test_the_budget_is_met_and_kept(self):
        adaptation = adalora()
        engine, _, _ = train(adaptation, epochs=2)
        counts = []
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: counts.append(sum(ranks(adaptation).values())))
        engine.run()
        layers = len(ranks(adaptation))
        assert counts[1] == 6 * layers  # 20 steps: the first two are before any are taken away
        assert counts[3] < 6 * layers
        assert counts[13:] == [2 * layers] * 7
        assert len(set(ranks(adaptation).values())) > 1  # shared out by need, not evenly

    def test_a_resumed_run_equals_the_uninterrupted_one(self):
        whole = adalora()
        train(whole, epochs=3, steps=4)[0].run()
        first = adalora()
        engine, optimizer, _ = train(first, epochs=3, steps=4)
        engine.add_event_handler(Events.EPOCH_COMPLETED(once=1), lambda engine: engine.terminate())
        engine.run()
        second = adalora()
        second.network.load_state_dict(first.network.state_dict())
        resumed = torch.optim.AdamW(second.trainable().values(), lr=0.01)
        resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        train(second, epochs=3, steps=4, optimizer=resumed, start=1)[0].run()
        assert ranks(second) == ranks(whole)
        for name, parameter in whole.trainable().items():
            assert torch.equal(second.trainable()[name], parameter), name

    def test_resumed_in_the_last_phase_keeps_what_is_left(self):
        adaptation = adalora()
        engine, optimizer, _ = train(adaptation, epochs=5, steps=4)
        engine.add_event_handler(Events.EPOCH_COMPLETED(once=4), lambda engine: engine.terminate())
        engine.run()
        left = ranks(adaptation)
        train(adaptation, epochs=5, steps=4, optimizer=optimizer, start=4)[0].run()
        assert ranks(adaptation) == left
        assert sum(left.values()) == 2 * len(left)

    def test_steps_are_those_of_the_optimiser(self):
        adaptation = adalora(interval=1)
        engine, _, handler = train(adaptation, epochs=1, steps=10, accumulation_steps=3)
        steps = []
        handler._share_out = lambda step, _: steps.append(step)
        engine.run()
        assert steps == [1, 2, 3, 4]
        assert handler.allocator.peft_config.total_step == 4

    def test_a_step_without_finite_gradient_leaves_the_scores(self):
        adaptation = adalora(interval=1)
        engine, optimizer, handler = train(adaptation, epochs=1)
        engine.state.epoch_length, engine.state.max_epochs, engine.optimizer = 10, 1, optimizer
        handler._prepare(engine)
        for parameter in adaptation.trainable().values():
            parameter.grad = torch.full_like(parameter, float("inf"))
        for step in (1, 2, 10):
            handler._share_out(step, optimizer)
        assert not handler.allocator.exp_avg_ipt
        assert not optimizer.state

    @pytest.mark.parametrize("steps", [1, 2, 3])
    def test_short_runs_end(self, steps):
        train(adalora(), epochs=1, steps=steps)[0].run()

    def test_orthogonality_enters_the_loss(self):
        adaptation = adalora(orthogonality_weight=0.3)
        engine, _, _ = train(adaptation, epochs=1, steps=1)
        with torch.no_grad():
            task = float((adaptation.network(IMAGE) - 1).square().mean())
            terms = []
            for name, parameter in adaptation.trainable().items():
                values = parameter.numpy() if ".lora_A." in name else parameter.numpy().T
                if ".lora_E." not in name:
                    terms.append(np.sqrt(((values @ values.T - np.eye(6)) ** 2).sum()))
        assert float(orthogonality_loss(adaptation.network)) == pytest.approx(np.mean(terms), rel=1e-5)
        engine.run()
        assert float(engine.state.output["loss"].detach()) == pytest.approx(task + 0.3 * np.mean(terms), rel=1e-4)

    def test_inert_without_adalora(self):
        adaptation = adapt(network(), preset_config("lora"))
        engine, _, handler = train(adaptation, epochs=1, steps=1)
        assert not any(
            handler in (getattr(function, "__self__", None), function)
            for functions in engine._event_handlers.values()
            for function, *_ in functions
        )


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

    def test_words_of_the_command_line_count(self):
        words = {"lora": "false", "adalora": "true", "train_decoder": "False", "adalora_targets": ["qkv"]}
        plain = {"lora": False, "adalora": True, "train_decoder": False, "adalora_targets": ["qkv"]}
        assert preset_config("topolora", **words) == preset_config("topolora", **plain)

    @by_name(COMBINATIONS)
    def test_survive_json(self, preset, options):
        config = preset_config(preset, **options)
        assert AdaptationConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config

    @pytest.mark.parametrize(
        ("preset", "options", "message"),
        [
            ("topolora", {"decoder_lora": True}, "trains whole and by LoRA"),
            ("lora", {"adalora": True}, "LoRA and AdaLoRA adapt the same linears"),
            ("conv_lora", {"lora": True, "lora_targets": ["qkv"]}, "LoRA and Conv-LoRA adapt the same linears"),
            ("lora", {"adalora_rank": 4}, "has no AdaLoRA(.|\n)*add it with adalora true"),
            ("lora", {"lora": False, "lora_rank": 4}, "has no LoRA"),
            ("lora", {"lora": "yes"}, "true or false"),
            ("adalora", {"adalora_rank": 4}, "target_rank"),
            ("adalora", {"adalora_initial_fraction": 0.8}, "no time"),
            ("adalora", {"adalora_interval": 0}, "interval"),
            ("adalora", {"adalora_orthogonality_weight": -1}, "orthogonality_weight"),
            ("lora_decoder", {"decoder_lora_targets": ["qkv"]}, "unknown LoRA target"),
            ("lora_decoder", {"decoder_lora_rank": 0}, "decoder LoRA rank"),
            ("lora_decoder", {"decoder_lora_alpha": float("nan")}, "decoder LoRA alpha"),
            ("conv_lora", {"conv_lora_alpha": float("inf")}, "Conv-LoRA alpha"),
            ("adalora", {"adalora_alpha": float("nan")}, "AdaLoRA alpha"),
            ("full", {"base_quantization": "4bit"}, "quantised image encoder cannot train"),
            ("dora", {"base_quantization": "8bit"}, "DoRA does not work over an 8-bit base"),
            ("lora", {"base_quantization": "2bit"}, "unknown base_quantization"),
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
        expected = adapt(network(), preset_config("adalora")).trainable_count
        assert f"{expected:,}" in next(line for line in lines if line.startswith("adalora "))

    @pytest.mark.parametrize(
        ("preset", "settings"),
        [
            ("lora", {"lora_rank": 3}),
            ("conv_lora", {"conv_lora_rank": 3}),
            ("adalora", {"adalora_rank": 3, "adalora_target_rank": 2}),
        ],
    )
    def test_command_sets_the_rank_of_the_method(self, preset, settings, capsys):
        assert main(["params", "--network_name", "vit_tiny_test", "--preset", preset, "--rank", "3", "--json"]) == 0
        count = json.loads(capsys.readouterr().out)["trainable"]
        assert count == adapt(network(), preset_config(preset, **settings)).trainable_count

    def test_command_without_a_rank_to_set(self, capsys):
        assert main(["params", "--network_name", "vit_tiny_test", "--preset", "bitfit", "--rank", "3"]) == 1
        assert "no rank to set" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("preset", "note"), [("topolora", "no gradient"), ("conv_lora", "without mask tokens"), ("adapter_only", "")]
    )
    def test_command_says_how_the_paper_counts(self, preset, note, capsys):
        assert main(["params", "--network_name", "vit_tiny_test", "--preset", preset]) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("published"))
        assert note in line
        assert bool(note) == (len(line.split()) > 2)


class TestQuantizedBase:
    def test_missing_library_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "bitsandbytes", None)
        with pytest.raises(ConfigError, match=r"bitsandbytes(.|\n)*pip install"):
            adapt(network(), preset_config("lora", base_quantization="8bit"))

    @pytest.fixture(params=["8bit", "4bit"])
    def kind(self, request):
        pytest.importorskip("bitsandbytes")
        return request.param

    def test_logits_stay_close_and_only_encoder_linears_change(self, kind):
        adapted = adapt(network(), preset_config("lora", base_quantization=kind)).network
        quantized = {name for name, module in adapted.named_modules() if is_quantized(module)}
        linears = {name for name, module in network().named_modules() if isinstance(module, nn.Linear)}
        names = {name.removesuffix(".base_layer") for name in quantized}
        assert names == {name for name in linears if name.startswith("image_encoder.")}
        base, rounded = network().encode(IMAGE), adapted.encode(IMAGE)
        assert 0 < (rounded - base).norm() / base.norm() < {"8bit": 0.03, "4bit": 0.3}[kind]

    @pytest.mark.parametrize("options", [{}, {"lora_use_dora": True}, {"lora": False, "adalora": True}])
    def test_file_and_merge(self, kind, options, tmp_path):
        if kind == "8bit" and "lora_use_dora" in options:
            pytest.skip("refused")
        config = preset_config("lora", base_quantization=kind, train_biases=True, **options)
        adaptation = moved(adapt(network(), config))
        assert adaptation.total_count == adapt(network(), preset_config("lora", **options)).total_count
        save_adapter(adaptation, tmp_path / "adapter.safetensors")
        loaded = load_adapter(network(), tmp_path / "adapter.safetensors").network
        assert torch.equal(logits(loaded), logits(adaptation.network))
        merged = merge(loaded)
        assert merged.state_dict().keys() == network().state_dict().keys()
        difference = (logits(merged) - logits(adaptation.network)).norm() / logits(merged).norm()
        assert difference < 0.03  # both may round the inputs of layers, too

    def test_training_leaves_the_base(self, kind):
        adaptation = adapt(network(), preset_config("topolora_conv", base_quantization=kind))
        net = adaptation.network.train()
        before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        optimizer = torch.optim.AdamW(adaptation.trainable().values(), lr=0.05)
        for _ in range(3):
            optimizer.zero_grad()
            ((net(IMAGE) - 1).square().mean() + balance_loss(net)).backward()
            optimizer.step()
        for name, tensor in net.state_dict().items():
            assert torch.equal(tensor, before[name]) != (name in adaptation.trainable()), name
