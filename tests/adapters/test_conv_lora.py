"""Conv-LoRA: the layer against its formulas, its gates, its place in PEFT, in files, in training and in exports."""

import copy
import importlib
import json
import math

import pytest
import torch
import torch.nn.functional as F
from peft import (
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from scipy.stats import norm
from torch import nn

from topolora_monai.adapters import AdaptationConfig, adapt, load_adapter, merge, preset_config, save_adapter
from topolora_monai.adapters.conv_lora import ConvExperts, ConvLoraConfig, ConvLoraLinear, NoisyTopKGate, balance_loss
from topolora_monai.errors import ConfigError
from topolora_monai.networks import build_network

IMAGE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
SIZE = 96  # 6 x 6 tokens: one window of 7 x 7, filled up


def awake(module, std=0.3):
    """Move every adapter weight away from its start, where the layer changes nothing."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_" in name:
                parameter.add_(std * torch.randn_like(parameter))
    return module


def layer(r=3, experts=4, dtype=torch.float32, **options):
    config = ConvLoraConfig(r=r, scales=range(1, experts + 1), **options)
    made = ConvLoraLinear(nn.Linear(10, 12), config=config)
    made.requires_grad_(False)
    made.set_adapter("default")
    return awake(made).to(dtype)


def encoder(**options):
    return build_network("vit_tiny_test", image_size=SIZE, **options).image_encoder


def logits(net, image=IMAGE):
    with torch.no_grad():
        return net.eval()(image)


def reference(module, x, window=0, noise=None):
    """The paper's formulas, one window at a time, in double precision; returns output and balance loss."""
    p = {name.replace(".default", ""): value.detach().double() for name, value in module.named_parameters()}
    gate = module.lora_gate["default"]
    rank, experts, top_k = p["lora_A.weight"].shape[0], p["lora_gate.weight"].shape[0], gate.top_k
    batch, height, width, channels = x.shape
    side_h, side_w = (window, window) if window else (height, width)
    rows, columns = math.ceil(height / side_h), math.ceil(width / side_w)
    padded = torch.zeros(batch, rows * side_h, columns * side_w, channels, dtype=torch.float64)
    padded[:, :height, :width] = x
    out = torch.zeros(*padded.shape[:3], p["base_layer.weight"].shape[0], dtype=torch.float64)
    importance, load, unit = [0.0] * experts, [0.0] * experts, 0
    for b in range(batch):
        for i in range(rows):
            for j in range(columns):
                at = (b, slice(i * side_h, (i + 1) * side_h), slice(j * side_w, (j + 1) * side_w))
                tokens = padded[at]
                z = (tokens @ p["lora_A.weight"].T).permute(2, 0, 1)[None]
                pooled = z.mean(dim=(2, 3))[0]
                clean = p["lora_gate.weight"] @ pooled
                spread = F.softplus(p["lora_gate.noise_weight"] @ pooled) + 0.01
                scores = clean + noise[unit].double() * spread if noise is not None else clean
                ranked = sorted(range(experts), key=lambda e: -scores[e])
                chosen = ranked[:top_k]
                probability = clean.exp() / clean.exp().sum()
                share = {e: scores[e].exp() / sum(scores[c].exp() for c in chosen) for e in chosen}
                weight = {e: probability[e] * experts / top_k if gate.kind == "learned" else 1.0 for e in chosen}
                mixed = z.clone()
                for e in chosen:
                    answer = z
                    if e:
                        answer = F.interpolate(answer, scale_factor=e + 1, mode="bicubic")
                    answer = F.conv2d(answer, p["lora_experts.weight"][e], p["lora_experts.bias"][e], padding=1)
                    answer = 0.5 * answer * (1 + torch.erf(answer / math.sqrt(2)))
                    if e:
                        answer = F.interpolate(answer, size=(side_h, side_w), mode="bicubic")
                    mixed = mixed + weight[e] * answer
                    importance[e] += float(weight[e] if gate.kind == "learned" else share[e])
                for e in range(experts):
                    others = sorted((float(scores[o]) for o in range(experts) if o != e), reverse=True)
                    if top_k == experts:
                        load[e] += 1.0
                    else:
                        load[e] += norm.cdf(float((clean[e] - others[top_k - 1]) / spread[e]))
                update = mixed[0].permute(1, 2, 0) @ p["lora_B.weight"].T
                base = tokens @ p["base_layer.weight"].T + p["base_layer.bias"]
                out[at] = base + module.scaling["default"] * update
                unit += 1
    assert rank == module.r["default"]
    squared_variation = [torch.tensor(a).var().item() / torch.tensor(a).mean().item() ** 2 for a in (importance, load)]
    return out, 1e-2 * sum(squared_variation)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("gate", ["learned", "published"])
@pytest.mark.parametrize(("grid", "window"), [((6, 6), 0), ((9, 5), 0), ((10, 8), 5), ((9, 12), 5)])
@pytest.mark.parametrize("top_k", [1, 2, 4])
class TestFormulas:
    def run(self, module, x, window, training):
        module.train(training)
        torch.manual_seed(11)
        out = module(x, window=window)
        torch.manual_seed(11)
        units = x.shape[0] * (math.ceil(x.shape[1] / window) * math.ceil(x.shape[2] / window) if window else 1)
        noise = torch.randn(units, 4, dtype=x.dtype) if training else None
        return out, *reference(module, x, window, noise)

    def test_double_and_single_precision(self, training, gate, grid, window, top_k):
        for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-6)):
            module = layer(top_k=top_k, gate=gate, lora_alpha=3.0, dtype=dtype)
            x = torch.randn(2, *grid, 10, dtype=dtype)
            out, expected, balance = self.run(module, x, window, training)
            largest = max(1.0, expected.abs().max().item())
            torch.testing.assert_close(out.double(), expected, rtol=0, atol=tolerance * largest)
            if training:
                assert module.balance_loss.item() == pytest.approx(balance, rel=1e-5)
            else:
                assert module.balance_loss is None

    def test_dense_equals_dispatched(self, training, gate, grid, window, top_k):
        module = layer(top_k=top_k, gate=gate, lora_alpha=3.0).train(training)
        x = torch.randn(2, *grid, 10)
        torch.manual_seed(1)
        dispatched = module(x, window=window)
        module.dense = True
        torch.manual_seed(1)
        torch.testing.assert_close(module(x, window=window), dispatched, rtol=1e-5, atol=1e-5)


def test_a_single_image_and_every_expert_count():
    for experts in (1, 2, 8):
        module = layer(experts=experts).eval()
        x = torch.randn(1, 5, 7, 10)
        torch.testing.assert_close(module(x).double(), reference(module, x)[0], rtol=1e-5, atol=1e-5)


def test_gradients_equal_those_of_the_formulas():
    module = layer(dtype=torch.float64, top_k=2).train()
    x = torch.randn(2, 7, 6, 10, dtype=torch.float64, requires_grad=True)

    def run(dense):
        module.dense = dense
        torch.manual_seed(1)
        out = module(x, window=4)
        loss = out.square().mean() + module.balance_loss
        return torch.autograd.grad(loss, [x, *(p for p in module.parameters() if p.requires_grad)])

    for dispatched, dense in zip(run(False), run(True), strict=True):
        torch.testing.assert_close(dispatched, dense, rtol=1e-9, atol=1e-12)


def test_sequences_are_square_grids():
    module = layer().eval()
    x = torch.randn(3, 5, 5, 10)
    torch.testing.assert_close(module(x.flatten(1, 2)), module(x).flatten(1, 2))
    with pytest.raises(ConfigError, match="24 tokens"):
        module(torch.randn(3, 24, 10))


class TestGates:
    @pytest.mark.parametrize(("kind", "trained"), [("learned", True), ("published", False)])
    def test_the_task_trains_only_the_learned_gate(self, kind, trained):
        module = layer(gate=kind).train()
        module(torch.randn(6, 5, 5, 10)).square().mean().backward()
        gradient = module.lora_gate["default"].weight.grad
        assert (gradient is not None and bool(gradient.abs().max() > 1e-6)) == trained

    @pytest.mark.parametrize("kind", ["learned", "published"])
    def test_the_balance_loss_trains_both(self, kind):
        module = layer(gate=kind).train()
        module(torch.randn(6, 5, 5, 10))
        balance_loss(module).backward()
        gate = module.lora_gate["default"]
        assert gate.weight.grad.abs().max() > 0
        assert gate.noise_weight.grad.abs().max() > 0

    def test_both_are_equal_before_training(self):
        modules = {
            kind: ConvLoraLinear(nn.Linear(10, 12), config=ConvLoraConfig(gate=kind))
            for kind in ("learned", "published")
        }
        nn.init.normal_(modules["learned"].lora_B["default"].weight)
        modules["published"].load_state_dict(modules["learned"].state_dict())
        x = torch.randn(4, 5, 5, 10)
        outputs = []
        for module in modules.values():
            torch.manual_seed(2)
            outputs.append(module.train()(x))
        torch.testing.assert_close(*outputs)

    def test_a_new_gate_spreads_in_training(self):
        gate = NoisyTopKGate(3, 8)
        counts = torch.bincount(gate(torch.randn(4000, 3, 2, 2)).choice.flatten(), minlength=8)
        assert counts.min() > 400

    def test_minimising_the_balance_loss_balances(self):
        gate = NoisyTopKGate(3, 4, kind="published")
        with torch.no_grad():
            gate.weight[0] += 0.5
        maps = torch.rand(200, 3, 2, 2) + 0.5
        optimizer = torch.optim.Adam(gate.parameters(), lr=0.1)
        before = gate(maps).imbalance.item()
        for _ in range(60):
            optimizer.zero_grad()
            gate(maps).imbalance.backward()
            optimizer.step()
        assert gate(maps).imbalance.item() < 0.2 * before

    def test_impossible_settings_are_refused(self):
        with pytest.raises(ConfigError, match="top_k"):
            NoisyTopKGate(3, 4, top_k=5)
        with pytest.raises(ConfigError, match="unknown gate"):
            NoisyTopKGate(3, 4, kind="soft")


class TestHalfPrecision:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("magnitude", [1.0, 60.0])  # exp(11) overflows in fp16
    def test_finite_and_close(self, dtype, magnitude):
        module = layer(lora_alpha=3.0).eval()
        x = magnitude * torch.randn(2, 9, 5, 10).to(dtype).float()
        expected = module(x, window=5)
        half = copy.deepcopy(module).to(dtype)(x.to(dtype), window=5)
        assert half.dtype == dtype
        scale = expected.abs().max()
        assert ((half.float() - expected).abs().max() / scale) < (0.01 if dtype == torch.float16 else 0.08)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_autocast_keeps_experts_in_full_precision_and_gradients_finite(self, dtype):
        module = layer(lora_alpha=3.0).train()
        experts, seen = module.lora_experts["default"], []
        hook = experts.register_forward_hook(lambda _, inputs, answer: seen.append((inputs, answer)))
        with torch.autocast("cpu", dtype):
            out = module(torch.randn(2, 9, 5, 10), window=5)
            assert out.dtype == dtype
        (out.float().square().mean() + module.balance_loss).backward()
        hook.remove()
        inputs, answer = seen[0]
        assert answer.dtype == torch.float32
        assert torch.equal(experts(*inputs), answer)
        assert all(p.grad.isfinite().all() for p in module.parameters() if p.requires_grad)


class TestEncoders:
    @pytest.mark.parametrize("name", ["vit_tiny_test", "vit_t"])
    @pytest.mark.parametrize("preset", ["conv_lora", "topolora_conv"])
    def test_exact_no_op_at_the_start_in_training_too(self, name, preset):
        before = logits(build_network(name, image_size=64))
        adapted = adapt(build_network(name, image_size=64), preset_config(preset)).network.train()
        with torch.no_grad():
            assert torch.equal(adapted(IMAGE), before)

    def test_window_blocks_route_by_window_and_global_ones_by_image(self):
        net = adapt(build_network("vit_tiny_test", image_size=144), preset_config("conv_lora")).network
        units = []
        for module in net.modules():
            if isinstance(module, NoisyTopKGate):
                module.register_forward_pre_hook(lambda _, inputs: units.append(tuple(inputs[0].shape)))
        logits(net, torch.rand(2, 3, 144, 144))  # 9 x 9 tokens
        windowed, globally = (2 * 4, 3, 7, 7), (2, 3, 9, 9)
        assert units == [windowed, globally, windowed, globally]

    def test_windows_are_those_of_the_original_encoder(self):
        """The original cuts the input, filled up with zeros, and hands each window to the projection."""
        from segment_anything.modeling import ImageEncoderViT
        from segment_anything.modeling.image_encoder import window_partition, window_unpartition

        from topolora_monai.networks.vit import VitImageEncoder

        torch.manual_seed(0)
        options = {"embed_dim": 16, "depth": 1, "num_heads": 2, "use_rel_pos": True, "window_size": 4}
        original = ImageEncoderViT(img_size=96, **options)
        ours = VitImageEncoder(copy.deepcopy(original))
        config = ConvLoraConfig(target_modules=["qkv"], scales=[1, 2])
        inject_adapter_in_model(config, ours)
        awake(ours).eval()
        original.blocks[0].attn.qkv = copy.deepcopy(ours.blocks[0].attn.qkv)
        x = torch.randn(1, 3, 96, 96)  # 6 x 6 tokens in windows of 4
        torch.testing.assert_close(ours(x), original(x), rtol=1e-4, atol=1e-4)
        assert window_partition and window_unpartition

    def test_non_square_grids(self):
        for net, window in ((encoder(), True), (build_network("vit_t", image_size=64).image_encoder, False)):
            inject_adapter_in_model(ConvLoraConfig(target_modules=["qkv"], scales=[1, 3]), net)
            assert awake(net).train()(torch.rand(1, 3, 64, 128)).shape[-2:] == (4, 8), window

    @pytest.mark.parametrize("targets", [("mlp",), ("proj",), ("mlp", "qkv", "proj")])
    @pytest.mark.parametrize("name", ["vit_tiny_test", "vit_t"])
    def test_other_placements_train(self, name, targets):
        config = AdaptationConfig.from_dict({"conv_lora": {"targets": targets, "scales": (1, 2), "first_block": 1}})
        net = awake(adapt(build_network(name, image_size=64), config).network).train()
        (net(IMAGE).square().mean() + balance_loss(net)).backward()
        trainable = [p for p in net.parameters() if p.requires_grad]
        assert trainable
        assert all(p.grad is not None for p in trainable)


class TestCounts:
    @pytest.mark.parametrize(
        ("name", "conv_lora", "lora"),
        [
            ("vit_b", 3_624_768, 3_616_128),
            ("vit_l", 3_817_728, 3_800_448),
            ("vit_h", 4_020_096, 3_997_056),
        ],
    )
    def test_as_published(self, name, conv_lora, lora, monkeypatch):
        module = importlib.import_module("topolora_monai.adapters.adapt")
        monkeypatch.setattr(module, "fingerprint", lambda _: "")  # there are no values to hash
        mask_tokens_1_to_3, idle = 3 * 256, 132_612 + 419_424
        for preset, expected in (("conv_lora", conv_lora), ("lora_qkv", lora)):
            for freeze_unused in (True, False):
                with torch.device("meta"):
                    base = build_network(name)
                    adaptation = adapt(base, preset_config(preset, freeze_unused=freeze_unused))
                assert adaptation.published_trainable_count == expected
                more = mask_tokens_1_to_3 + (0 if freeze_unused else idle)
                assert adaptation.trainable_count == expected + more

    def test_both_papers_together(self):
        """LoRA on the MLPs, Conv-LoRA on the fused projection, spatial adapter, decoder: nothing shared."""
        count = {
            preset: adapt(build_network("vit_tiny_test"), preset_config(preset)).trainable_count
            for preset in ("topolora_conv", "topolora", "conv_lora", "decoder_only")
        }
        assert count["topolora_conv"] == count["topolora"] + count["conv_lora"] - count["decoder_only"]


class TestTraining:
    def test_only_adapters_change(self):
        config = AdaptationConfig.from_dict({"conv_lora": {"scales": (1, 2, 3)}})
        adaptation = adapt(build_network("vit_tiny_test", image_size=SIZE), config)
        net = adaptation.network.train()
        before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        optimizer = torch.optim.AdamW(adaptation.trainable().values(), lr=0.05)
        for _ in range(3):
            optimizer.zero_grad()
            ((net(IMAGE) - 1).square().mean() + balance_loss(net)).backward()
            optimizer.step()
        changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
        assert changed == adaptation.trainable().keys()
        assert all("lora_" in name for name in changed)

    def test_the_balance_loss_is_the_sum_over_layers_of_the_last_pass(self):
        net = awake(adapt(build_network("vit_tiny_test", image_size=SIZE), preset_config("topolora_conv")).network)
        net.train()(IMAGE)
        net(IMAGE)
        losses = [m.balance_loss for m in net.modules() if isinstance(m, ConvLoraLinear)]
        assert len(losses) == 4
        assert balance_loss(net).item() == pytest.approx(sum(loss.item() for loss in losses), rel=1e-6)
        weightless = adapt(build_network("vit_tiny_test", image_size=SIZE), preset_config("topolora")).network
        weightless.train()(IMAGE)
        assert balance_loss(weightless).item() == 0.0
        logits(net)
        assert balance_loss(net).item() == 0.0

    def test_balance_weight_scales_it(self):
        losses = []
        for weight in (1e-2, 3e-2, 0.0):
            module = layer(balance_weight=weight)
            torch.manual_seed(5)
            awake(module).train()(torch.ones(2, 5, 5, 10))
            losses.append(module.balance_loss.item())
        torch.manual_seed(0)
        assert losses[2] == 0.0

    @pytest.mark.parametrize("name", ["vit_tiny_test", "vit_t"])
    def test_activation_checkpointing_changes_nothing(self, name):
        def step(checkpointed):
            net = build_network(name, image_size=SIZE, activation_checkpointing=checkpointed)
            torch.manual_seed(0)
            adaptation = adapt(net, preset_config("conv_lora", conv_lora={"experts": 3}))
            awake(adaptation.network).train()
            torch.manual_seed(4)
            loss = adaptation.network(IMAGE).square().mean()
            balance = balance_loss(adaptation.network)
            left = [m.balance_loss for m in adaptation.network.modules() if isinstance(m, ConvLoraLinear)]
            (loss + balance).backward()
            after = [m.balance_loss for m in adaptation.network.modules() if isinstance(m, ConvLoraLinear)]
            assert all(a is b for a, b in zip(left, after, strict=True))
            return balance.item(), {name: p.grad for name, p in adaptation.trainable().items()}

        (plain, gradients), (checkpointed, same) = step(False), step(True)
        assert checkpointed == pytest.approx(plain, rel=1e-6)
        for key, gradient in gradients.items():
            torch.testing.assert_close(same[key], gradient, rtol=1e-4, atol=1e-6)

    def test_seeds_fix_the_start_and_the_noise(self):
        def run(seed, noise):
            adaptation = adapt(build_network("vit_tiny_test", image_size=SIZE), preset_config("conv_lora"), seed=seed)
            start = torch.cat([p.detach().flatten() for n, p in adaptation.trainable().items() if "lora_" in n])
            torch.manual_seed(7)
            awake(adaptation.network).train()
            torch.manual_seed(noise)
            return start, adaptation.network(IMAGE)

        (start, out), (same_start, same_out) = run(1, 5), run(1, 5)
        assert torch.equal(start, same_start)
        assert torch.equal(out, same_out)
        assert not torch.equal(start, run(2, 5)[0])
        assert not torch.equal(out, run(1, 6)[1])

    def test_a_network_in_training_can_be_copied(self):
        module = layer().train()
        module(torch.randn(2, 5, 5, 10))
        assert module.balance_loss is not None
        assert copy.deepcopy(module).balance_loss is None

    def test_inference_mode_first_leaves_training_possible(self):
        module = awake(ConvLoraLinear(nn.Linear(10, 12), config=ConvLoraConfig(scales=(2,))))
        x = torch.randn(2, 13, 11, 10)  # a grid that no other test resizes
        with torch.inference_mode():
            module.eval()(x)
        module.train()(x).sum().backward()


class TestFilesAndPeft:
    def adapted(self, preset="conv_lora", **options):
        adaptation = adapt(build_network("vit_tiny_test", image_size=SIZE), preset_config(preset, **options))
        awake(adaptation.network)
        return adaptation

    @pytest.mark.parametrize("preset", ["conv_lora", "topolora_conv"])
    def test_adapter_file_gives_the_same_logits(self, preset, tmp_path):
        adaptation = self.adapted(preset, conv_lora={"experts": 2, "scales": [1, 5], "top_k": 2, "gate": "published"})
        save_adapter(adaptation, tmp_path / "adapter.safetensors")
        fresh = build_network("vit_tiny_test", image_size=SIZE)
        assert (logits(fresh) - logits(adaptation.network)).abs().max() > 1e-3
        loaded = load_adapter(fresh, tmp_path / "adapter.safetensors")
        assert torch.equal(logits(loaded.network), logits(adaptation.network))
        assert loaded.config == adaptation.config

    @pytest.mark.parametrize("preset", ["conv_lora", "topolora_conv"])
    def test_merging_keeps_the_layer_and_the_logits(self, preset):
        adaptation = self.adapted(preset)
        before = logits(adaptation.network)
        merged = merge(adaptation.network)
        torch.testing.assert_close(logits(merged), before, rtol=1e-4, atol=1e-4)
        left = [m for m in merged.modules() if isinstance(m, BaseTunerLayer)]
        assert len(left) == 4
        assert all(isinstance(m, ConvLoraLinear) for m in left)

    def test_peft_refuses_to_merge_it(self):
        model = get_peft_model(encoder(), ConvLoraConfig(target_modules=["qkv"]))
        with pytest.raises(ConfigError, match="cannot be merged"):
            model.merge_and_unload()

    def test_peft_saves_and_loads_it(self, tmp_path):
        config = ConvLoraConfig(r=2, target_modules=["qkv"], scales=[1, 4], top_k=2, gate="published")
        x = torch.rand(1, 3, SIZE, SIZE)
        model = awake(get_peft_model(encoder(), config))
        assert (logits(model, x) - logits(encoder(), x)).abs().max() > 1e-3
        model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(encoder(), tmp_path)
        assert torch.equal(logits(loaded, x), logits(model, x))
        stored = loaded.peft_config["default"]
        assert (stored.scales, stored.top_k, stored.gate) == ([1, 4], 2, "published")
        assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "CONV_LORA"

    def test_peft_switches_between_two(self, tmp_path):
        x = torch.rand(1, 3, SIZE, SIZE)
        outputs, folders = [], [tmp_path / "one", tmp_path / "two"]
        for folder in folders:
            model = awake(get_peft_model(encoder(), ConvLoraConfig(target_modules=["qkv"])))
            outputs.append(logits(model, x))
            model.save_pretrained(folder)
        both = PeftModel.from_pretrained(encoder(), folders[0], adapter_name="one")
        both.load_adapter(folders[1], adapter_name="two")
        for name, expected in zip(("two", "one"), reversed(outputs), strict=True):
            both.set_adapter(name)
            assert torch.equal(logits(both, x), expected)
        both.delete_adapter("one")
        assert torch.equal(logits(both, x), outputs[1])

    def test_peft_disables_it(self):
        x = torch.rand(1, 3, SIZE, SIZE)
        model = awake(get_peft_model(encoder(), ConvLoraConfig(target_modules=["qkv"])))
        base = logits(encoder(), x)
        with model.disable_adapter():
            assert torch.equal(logits(model, x), base)
        assert not torch.equal(logits(model, x), base)
        assert torch.equal(logits(model.unload(), x), base)

    def test_peft_lists_it(self):
        model = get_peft_model(encoder(), ConvLoraConfig(target_modules=["qkv"]))
        status = model.get_layer_status()
        assert [layer.name for layer in status] == [f"model.blocks.{i}.attn.qkv" for i in range(4)]
        assert all(layer.enabled and layer.requires_grad == {"default": True} for layer in status)
        assert model.get_model_status().peft_types == {"default": "CONV_LORA"}
        parameters = 4 * (192 * 3 + 3 * 576 + 8 * (3 * 3 * 9 + 3) + 2 * 3 * 8)
        assert model.get_nb_trainable_parameters()[0] == parameters

    def test_state_of_an_injected_adapter_round_trips(self):
        x = torch.rand(1, 3, SIZE, SIZE)
        config = ConvLoraConfig(target_modules=["qkv"])
        first = awake(inject_adapter_in_model(config, encoder()))
        state = get_peft_model_state_dict(first)
        assert all(".default" not in key for key in state)
        second = inject_adapter_in_model(config, encoder(), adapter_name="other")
        assert not set_peft_model_state_dict(second, state, adapter_name="other").unexpected_keys
        assert torch.equal(logits(second, x), logits(first, x))

    def test_other_layers_are_refused(self):
        with pytest.raises(ConfigError, match="Conv2d"):
            get_peft_model(nn.Sequential(nn.Conv2d(3, 3, 1)), ConvLoraConfig(target_modules=["0"]))


class Stack(nn.Module):
    """Three blocks of two linears on a grid of tokens."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleDict({"qkv": nn.Linear(6, 6), "proj": nn.Linear(6, 6)}) for _ in range(3))

    def forward(self, x):
        for block in self.blocks:
            x = x + block["proj"](block["qkv"](x))
        return x


class TestConventionsOfPeft:
    TOKENS = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(1))

    def model(self, base=None, **options):
        torch.manual_seed(2)
        return awake(get_peft_model(base or Stack(), ConvLoraConfig(**{"target_modules": ["qkv"], **options}))).eval()

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"target_modules": "all-linear"}, "0.qkv 0.proj 1.qkv 1.proj 2.qkv 2.proj"),
            ({"target_modules": "all-linear", "exclude_modules": ["proj"]}, "0.qkv 1.qkv 2.qkv"),
            ({"target_modules": "all-linear", "exclude_modules": r".*\.[02]\..*"}, "1.qkv 1.proj"),
            ({"target_modules": r".*\.1\.(qkv|proj)"}, "1.qkv 1.proj"),
            ({"layers_to_transform": [0, 2], "layers_pattern": ["blocks"]}, "0.qkv 2.qkv"),
            ({"layers_to_transform": 1, "layers_pattern": "blocks"}, "1.qkv"),
        ],
    )
    def test_targets(self, options, expected, tmp_path):
        model = self.model(**options)
        assert [layer.name.removeprefix("model.blocks.") for layer in model.get_layer_status()] == expected.split()
        model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(copy.deepcopy(model).unload(), tmp_path)
        assert torch.equal(loaded(self.TOKENS), model(self.TOKENS))

    def test_layers_beside_a_text_are_refused(self):
        with pytest.raises(ConfigError, match="layers_to_transform needs a list"):
            ConvLoraConfig(target_modules="all-linear", layers_to_transform=[0])
        with pytest.raises(ConfigError, match="layers_pattern needs"):
            ConvLoraConfig(target_modules=["qkv"], layers_pattern="blocks")

    def test_scales(self):
        module = layer().eval()
        x = torch.randn(1, 4, 5, 10)
        base, update = module.base_layer(x), module(x) - module.base_layer(x)
        assert update.abs().max() > 0.1

        def factor():
            return ((module(x) - base) / update).mean().item()

        module.scale_layer(3)
        assert factor() == pytest.approx(3, rel=1e-3)
        module.unscale_layer(2)
        assert factor() == pytest.approx(1.5, rel=1e-3)
        module.unscale_layer()
        assert factor() == pytest.approx(1, rel=1e-3)
        module.scale_layer(3)
        module.set_scale("default", 0.5)  # of the first scale, as PEFT's layers
        assert factor() == pytest.approx(0.5, rel=1e-3)
        module.set_scale("other", 0.5)
        assert set(module.scaling) == {"default"}

    def test_updates_of_several_active_adapters_add_up(self):
        x = self.TOKENS
        model = self.model(nn.Sequential(nn.Linear(6, 6)), target_modules=["0"])
        base = model.base_model.model[0].base_layer(x)
        one = model(x) - base
        model.add_adapter("two", ConvLoraConfig(r=2, target_modules=["0"], scales=[1, 2]))
        inner = model.base_model.model[0]
        for part in (inner.lora_A["two"], inner.lora_B["two"]):
            part.weight.data += 0.3
        assert torch.equal(model(x) - base, one)
        assert not inner.lora_A["two"].weight.requires_grad
        model.set_adapter("two")
        two = model(x) - base
        assert (two - one).abs().max() > 0.1
        assert inner.lora_A["two"].weight.requires_grad
        assert not inner.lora_A["default"].weight.requires_grad
        model.base_model.set_adapter(["default", "two"])
        torch.testing.assert_close(model(x) - base, one + two, rtol=1e-4, atol=1e-4)
        model.delete_adapter("default")
        assert list(inner.lora_alpha) == ["two"]

    def test_what_convolutions_rule_out_is_refused(self):
        model = self.model()
        before = model(self.TOKENS)
        for refused, message in (
            (model.merge_and_unload, "cannot be merged"),
            (model.merge_adapter, "cannot be merged"),
            (model.unmerge_adapter, "cannot be unmerged"),
            (lambda: model.add_weighted_adapter(["default"], [0.5], "half"), "weighted sum"),
        ):
            with pytest.raises(ConfigError, match=message):
                refused()
        assert torch.equal(model(self.TOKENS), before)
        assert list(model.peft_config) == ["default"]

    @pytest.mark.parametrize("shape", [(7, 10), (10,), (1, 2, 3, 4, 10)])
    def test_tokens_without_a_grid_are_refused(self, shape):
        with pytest.raises(ConfigError, match=r"grid of tokens(.|\n)*square(.|\n)*\(.*10,?\)"):
            layer()(torch.randn(shape))

    def test_onto_a_base_in_half_precision(self, tmp_path):
        model = self.model()
        model.save_pretrained(tmp_path)
        base = copy.deepcopy(model).unload().to(torch.bfloat16)
        plain = base(self.TOKENS.bfloat16()).float()
        for autocast, dtype in ((True, torch.float32), (False, torch.bfloat16)):
            half = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path, autocast_adapter_dtype=autocast)
            assert {p.dtype for name, p in half.named_parameters() if "lora_" in name} == {dtype}
            found, expected = half(self.TOKENS.bfloat16()), model(self.TOKENS)
            assert found.dtype == torch.bfloat16
            scale = (expected - plain).abs().max()
            assert (found.float() - expected).abs().max() < 0.05 * scale


class TestExport:
    def test_torch_export_with_a_dynamic_batch(self):
        net = inject_adapter_in_model(ConvLoraConfig(target_modules=["qkv"], scales=[1, 2, 3]), encoder())
        awake(net, std=0.05).eval()
        with torch.no_grad():
            program = torch.export.export(
                net, (torch.rand(2, 3, SIZE, SIZE),), dynamic_shapes=({0: torch.export.Dim("batch")},)
            )
            for batch in (1, 3):
                x = torch.rand(batch, 3, SIZE, SIZE)
                torch.testing.assert_close(program.module()(x), net(x), rtol=1e-4, atol=1e-4)

    def test_trace(self):
        net = adapt(build_network("vit_tiny_test", image_size=64), preset_config("topolora_conv")).network
        awake(net, std=0.05).eval()
        with torch.no_grad():
            traced = torch.jit.trace(net, IMAGE, check_trace=False)
            for _ in range(3):
                x = torch.rand(1, 3, 64, 64)
                torch.testing.assert_close(traced(x), net(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"conv_lora": {"rank": 0}}, "conv_lora#r is not possible"),
        ({"conv_lora": {"experts": 0}}, "experts is not possible"),
        ({"conv_lora": {"experts": 3, "scales": (1, 2)}}, "scales do not fit"),
        ({"conv_lora": {"scales": (0, 1)}}, "scales is not possible"),
        ({"conv_lora": {"top_k": 9}}, "top_k"),
        ({"conv_lora": {"gate": "soft"}}, "gate"),
        ({"conv_lora": {"balance_weight": -1.0}}, "balance_weight"),
        ({"conv_lora": {"targets": ("q",)}}, "target"),
        ({"conv_lora_depth": 3}, "unknown adaptation setting"),
        ({"conv_lora": {"first_block": 40}}, "no layer"),
    ],
)
def test_impossible_settings_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        adapt(build_network("vit_tiny_test"), preset_config("conv_lora", **overrides))


def test_two_methods_on_one_linear_are_refused():
    with pytest.raises(ConfigError, match="same linears"):
        preset_config("topolora_conv", conv_lora={"targets": ("mlp",)})


def test_configuration_survives_json():
    config = preset_config("topolora_conv", conv_lora={"experts": 2, "scales": (1, 4)})
    assert AdaptationConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    older = {key: value for key, value in preset_config("topolora").to_dict().items() if key != "conv_lora"}
    assert AdaptationConfig.from_dict(older) == preset_config("topolora")


def test_a_choice_of_experts_runs_only_those():
    """Direct dispatch: an expert that no map chose is not computed."""
    experts = ConvExperts(3, (1, 2, 3))
    ran = []
    answer = experts._answer
    experts._answer = lambda index, maps, **options: (ran.append((index, len(maps))), answer(index, maps, **options))[1]
    module = NoisyTopKGate(3, 3).eval()
    with torch.no_grad():
        module.weight[2] += 1.0
    maps = torch.rand(5, 3, 6, 4)
    experts(maps, module(maps))
    assert ran == [(2, 5)]
