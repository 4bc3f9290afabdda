"""What is injected, counted, trained and merged."""

import importlib
from functools import cache

import pytest
import torch

from topolora_monai.adapters import (
    PRESETS,
    AdaptationConfig,
    SpatialConvAdapter,
    adapt,
    merge,
    preset_config,
)
from topolora_monai.adapters.conv_lora import balance_loss
from topolora_monai.errors import ConfigError
from topolora_monai.networks import build_network

IMAGE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def network(name="vit_tiny_test"):
    return build_network(name, image_size=64)


def everything():
    return preset_config("topolora", lora={"targets": ("mlp", "qkv", "proj"), "rank": 4})


def break_zero_init(adapted):
    """Move everything away from the no-op start, or equality would prove nothing."""
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "embedding_adapter" in name:
                parameter.add_(0.05 * torch.randn_like(parameter))


@cache
def base_logits(name):
    return logits(network(name))


def logits(net, image=IMAGE):
    with torch.no_grad():
        return net.eval()(image)


@pytest.mark.parametrize(("rank", "expected"), [(4, 4_560_868), (8, 4_929_508), (16, 5_666_788), (32, 7_141_348)])
def test_published_counts_on_vit_b(rank, expected, monkeypatch):
    module = importlib.import_module("topolora_monai.adapters.adapt")
    monkeypatch.setattr(module, "fingerprint", lambda _: "")  # there are no values to hash
    with torch.device("meta"):
        adaptation = adapt(build_network("vit_b"), preset_config("topolora", lora={"rank": rank}))
    assert adaptation.published_trainable_count == expected
    idle = 132_612 + 419_424  # IoU head and hyper-networks 1 to 3
    assert adaptation.trainable_count == expected - idle
    if rank == 8:
        assert adaptation.total_count == 94_606_640


def test_parts_without_gradient_can_be_unfrozen():
    default, all_parts = (adapt(network(), preset_config("topolora", freeze_unused=value)) for value in (None, False))
    assert default.published_trainable_count == all_parts.trainable_count == all_parts.published_trainable_count
    all_parts.network(IMAGE).square().mean().backward()
    idle = all_parts.trainable().keys() - default.trainable().keys()
    assert idle
    for name in idle:
        gradient = all_parts.trainable()[name].grad
        assert gradient is None or not gradient.any(), name


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["vit_tiny_test", "vit_t"])
def test_every_preset_starts_as_an_exact_no_op(preset, name):
    assert torch.equal(logits(adapt(network(name), preset_config(preset)).network), base_logits(name))


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}])
@pytest.mark.parametrize("name", ["vit_tiny_test", "vit_t"])
def test_merged_equals_unmerged_and_disabled_equals_base(name, options):
    base = logits(network(name))
    config = preset_config("lora", lora={"targets": ("mlp", "qkv", "proj"), "rank": 4, **options})
    adapted = adapt(network(name), config).network
    break_zero_init(adapted)
    unmerged = logits(adapted)
    assert (unmerged - base).abs().max() > 1e-3
    for module in adapted.modules():
        if hasattr(module, "enable_adapters"):
            module.enable_adapters(False)
    torch.testing.assert_close(logits(adapted), base, rtol=1e-5, atol=1e-5)
    for module in adapted.modules():
        if hasattr(module, "enable_adapters"):
            module.enable_adapters(True)
    merged = merge(adapted)
    torch.testing.assert_close(logits(merged), unmerged, rtol=1e-3, atol=1e-4)
    assert merged.state_dict().keys() == network(name).state_dict().keys()


@pytest.mark.parametrize("preset", PRESETS)
def test_training_changes_what_trains_and_nothing_else(preset):
    adaptation = adapt(network(), preset_config(preset))
    net = adaptation.network.train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    optimizer = torch.optim.AdamW(adaptation.trainable().values(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        ((net(IMAGE) - 1).square().mean() + balance_loss(net)).backward()
        optimizer.step()
    trainable = adaptation.trainable()
    for name, tensor in net.state_dict().items():
        changed = not torch.equal(tensor, before[name])
        assert changed == (name in trainable), name


def test_lora_placement_follows_targets_and_block_range():
    adaptation = adapt(
        network(),
        AdaptationConfig.from_dict({"lora": {"targets": ["qkv", "proj"], "r": 2, "first_block": 1, "last_block": 3}}),
    )
    layers = {name.split(".lora_")[0] for name in adaptation.trainable()}
    assert layers == {f"image_encoder.blocks.{block}.attn.{part}" for block in (1, 2) for part in ("qkv", "proj")}


def test_scaling_is_alpha_over_rank_and_its_root():
    def scale(**options):
        config = AdaptationConfig.from_dict({"lora": {"r": 4, "lora_alpha": 8.0, **options}})
        module = adapt(network(), config).network.image_encoder.blocks[0].mlp.lin1
        return module.scaling["default"]

    assert scale() == 2.0
    assert scale(use_rslora=True) == 4.0


def test_seed_fixes_the_start():
    states = [
        {n: p.detach().clone() for n, p in adapt(network(), everything(), seed=seed).trainable().items()}
        for seed in (1, 1, 2)
    ]
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    assert any(not torch.equal(states[0][n], states[2][n]) for n in states[0])


def test_batch_norm_variant_depends_on_the_batch_and_the_default_does_not():
    embedding = torch.randn(2, 8, 4, 4)
    for normalization, depends in (("layer", False), ("batch", True)):
        adapter = SpatialConvAdapter(8, normalization).train()
        torch.nn.init.normal_(adapter.block[-1].weight)
        alone, together = adapter(embedding[:1]), adapter(embedding)[:1]
        assert (not torch.allclose(alone, together, atol=1e-5)) == depends


def test_both_variants_have_the_published_size():
    for normalization in ("layer", "batch"):
        assert sum(p.numel() for p in SpatialConvAdapter(256, normalization).parameters()) == 133_888


def test_adapting_twice_is_refused():
    adapted = adapt(network(), everything()).network
    with pytest.raises(ConfigError, match="adapted already"):
        adapt(adapted, everything())


def test_a_range_without_layers_is_refused():
    with pytest.raises(ConfigError, match="no layer"):
        adapt(network(), AdaptationConfig.from_dict({"lora": {"first_block": 40}}))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"lora": {"r": 0}}, "lora#r is not possible"),
        ({"lora": {"rank": 0}}, "lora#r is not possible"),
        ({"lora": {"dropout": 1.0}}, "dropout"),
        ({"lora": {"alpha": float("nan")}}, "lora_alpha is not possible"),
        ({"lora": {"alpha": float("inf")}}, "lora_alpha is not possible"),
        ({"lora": {"targets": ["mpl"]}}, "target"),
        ({"lora_depth": 3}, "unknown adaptation setting"),
        ({"colour": 3}, "unknown adaptation setting"),
        ({"conv_adapter_norm": "group"}, "conv_adapter_norm"),
    ],
)
def test_impossible_settings_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        preset_config("topolora", **overrides)


def test_unknown_preset_suggests_a_known_one():
    with pytest.raises(ConfigError, match="did you mean topolora"):
        preset_config("topolorra")


def test_settings_of_a_method_add_it_and_none_leave_the_preset_s():
    assert preset_config("decoder_only", lora={"r": 4}).lora == preset_config("lora", lora={"r": 4}).lora
    late = preset_config("lora_late", lora={"r": 4}).lora
    assert late == preset_config("lora", lora={"r": 4, "first_block": -4}).lora
    assert (late.peft.r, late.first_block) == (4, -4)
    assert preset_config("decoder_only", lora={}).lora is None
    assert preset_config("lora_late", lora={}) == preset_config("lora_late")


def test_former_names_of_settings_count():
    former = {"rank": 4, "alpha": 8.0, "dropout": 0.1}
    assert preset_config("lora", lora=former) == preset_config(
        "lora", lora={"r": 4, "lora_alpha": 8.0, "lora_dropout": 0.1}
    )


def test_training_nothing_is_refused():
    with pytest.raises(ConfigError, match="trains nothing"):
        AdaptationConfig()


def test_configuration_survives_json():
    import json

    config = everything()
    assert AdaptationConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ConfigError, match="newer"):
        AdaptationConfig.from_dict(config.to_dict() | {"experts": 8})
