"""The branch at the image's own resolution: what it sees, where it fits, and that it stays small."""

import pytest
import torch

from topolora_monai.adapters import adapt, load_adapter, merge, preset_config, save_adapter
from topolora_monai.adapters.inspection import summarize_preset
from topolora_monai.errors import ConfigError
from topolora_monai.networks import build_network

VIT_B = 93_735_472


def build(preset="topolora_plus", moved=True, **settings):
    base = build_network(**{"network_name": "vit_tiny_test", "image_size": 64} | settings)
    adaptation = adapt(base, preset_config(preset, detail_branch=True))
    generator = torch.Generator().manual_seed(5)
    for parameter in adaptation.trainable().values() if moved else ():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return adaptation


def logits(network, image):
    with torch.no_grad():
        return network.eval()(image)


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((1, 3, 37, 51), {}),
        ((2, 1, 90, 33), {"in_channels": 1, "out_channels": 3}),
        ((1, 5, 41, 41), {"in_channels": 5, "fit": "squash"}),
        ((1, 3, 1, 3), {"fit": "squash"}),
        ((1, 3, 33, 32), {"network_name": "sam2_t"}),
    ],
    ids=["odd", "several classes", "many channels", "tiny", "sam2"],
)
def test_it_fits_every_image_and_starts_as_a_no_op(shape, settings):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    start = build(moved=False, **settings).network
    base = build_network(**{"network_name": "vit_tiny_test", "image_size": 64} | settings)
    answer = logits(start, image)
    assert torch.equal(answer, logits(base, image))
    torch.nn.init.constant_(start.detail_branch.last.weight, 0.1)
    refined = logits(start, image)
    assert refined.shape == answer.shape
    assert (refined - answer).abs().amax(dim=(0, 2, 3)).min() > 1e-3  # each class


def test_it_sees_what_the_encoder_does_not():
    """A pattern of single pixels is gone in an image reduced to a quarter."""
    adaptation = build()
    plain, fine = torch.full((1, 3, 256, 256), 0.5), torch.full((1, 3, 256, 256), 0.5)
    fine[..., 64:192, 64:192] += 0.4 * ((torch.arange(128)[:, None] + torch.arange(128)) % 2 - 0.5)
    seen = (logits(adaptation.network, fine) - logits(adaptation.network, plain)).abs()
    adaptation.network.detail_branch = None
    missed = (logits(adaptation.network, fine) - logits(adaptation.network, plain)).abs()
    assert seen.max() > 5 * missed.max()


def test_an_image_of_a_batch_is_answered_as_alone():
    network = build().network.train()
    images = torch.rand(3, 3, 48, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(images)[1:2], network(images[1:2]), rtol=1e-4, atol=1e-4)


def test_features_answer_to_prompts_as_the_image_does():
    network, image = build().network.eval(), torch.rand(1, 3, 40, 64)
    box = torch.tensor([[5.0, 6.0, 30.0, 20.0]])
    with torch.no_grad():
        features = network.features(image)
        assert torch.equal(network.decode(features, (40, 64), boxes=box), network(image, boxes=box))
        halved = tuple(feature.half().float() for feature in features)
        expected = network(image)
        difference = (network.decode(halved, (40, 64)) - expected).abs().max()
        assert difference < 0.02 * (expected.max() - expected.min())


def test_saved_merged_and_loaded_are_the_same(tmp_path):
    adaptation, image = build(), torch.rand(1, 3, 40, 64)
    expected = logits(adaptation.network, image)
    save_adapter(adaptation, tmp_path / "a.safetensors")
    loaded = load_adapter(build_network("vit_tiny_test", image_size=64), tmp_path / "a.safetensors")
    assert loaded.config == adaptation.config
    assert torch.equal(logits(loaded.network, image), expected)
    merged = merge(loaded.network)
    torch.testing.assert_close(logits(merged, image), expected, rtol=1e-3, atol=1e-3)
    assert {name.partition(".")[0] for name in merged.state_dict()} >= {"detail_branch", "embedding_adapter"}


def test_alone_it_trains_alone():
    adaptation = build("decoder_only", moved=False)
    image = torch.rand(1, 3, 64, 64)
    for _ in range(2):  # the first step moves the last convolution alone
        adaptation.network(image).square().mean().backward()
        torch.optim.SGD(adaptation.trainable().values(), lr=0.1).step()
    branch = dict(adaptation.network.detail_branch.named_parameters())
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in branch.values())
    assert sum(parameter.numel() for parameter in branch.values()) < 300_000


@pytest.mark.parametrize("network_name", ["vit_t", "vit_b", "sam2_t"])
def test_its_preset_stays_under_a_twentieth_of_a_vit_b(network_name):
    assert summarize_preset("topolora_plus", network_name).trainable < 0.05 * VIT_B


def test_a_token_set_is_refused():
    base = build_network("vit_tiny_test", image_size=64, out_channels=2, multiclass_head="token_set")
    with pytest.raises(ConfigError, match=r"token set(.|\n)*detail_branch false"):
        adapt(base, preset_config("topolora_plus"))
