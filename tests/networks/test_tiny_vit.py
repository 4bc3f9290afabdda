"""MobileSAM's encoder against what its original code gives, and its behaviour in a frozen network."""

import numpy as np
import torch

from topolora_monai.networks import TinyVitImageEncoder, build_network


def test_real_weights_give_the_original_features_and_logits(mobile_sam, mobile_sam_reference):
    network = build_network("vit_t", weights=mobile_sam)
    reference = np.load(mobile_sam_reference)
    image = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        embedding = network.image_encoder(image)
        positions = network.prompt_encoder.pe_layer((64, 64))[None]
        no_mask = network.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        logits, _ = network.mask_decoder(embedding, positions, torch.zeros(1, 0, 256), no_mask)
    for found, name in ((embedding[:, :, ::2, ::2], "embedding"), (logits, "low_res_logits")):
        expected = torch.from_numpy(reference[name])
        assert ((found - expected).abs().max() / expected.abs().max()).item() < 1e-4


def test_key_names_are_the_checkpoints():
    keys = TinyVitImageEncoder().state_dict().keys()
    for key in (
        "patch_embed.seq.0.c.weight",
        "patch_embed.seq.2.bn.running_var",
        "layers.0.blocks.0.conv1.c.weight",
        "layers.0.downsample.conv3.bn.bias",
        "layers.1.blocks.0.attn.attention_biases",
        "layers.2.downsample.conv2.c.weight",
        "layers.3.blocks.1.local_conv.c.weight",
        "neck.3.weight",
    ):
        assert key in keys
    assert not any("head" in key or "stages" in key for key in keys)


def test_odd_grids_and_batches():
    encoder = TinyVitImageEncoder().eval()
    image = torch.randn(2, 3, 112, 176)
    with torch.no_grad():
        both = encoder(image)
        assert both.shape == (2, 256, 7, 11)
        torch.testing.assert_close(both[1:], encoder(image[1:]), rtol=1e-4, atol=1e-4)


def test_activation_checkpointing_changes_no_gradient():
    encoder = TinyVitImageEncoder().eval()
    image = torch.randn(1, 3, 64, 64)
    grads = []
    for switch in (False, True):
        encoder.zero_grad()
        encoder.activation_checkpointing = switch
        encoder(image).square().mean().backward()
        grads.append(encoder.layers[1]["blocks"][0].attn.qkv.weight.grad.clone())
    assert grads[0].abs().max() > 0
    torch.testing.assert_close(*grads)


def test_new_weights_take_effect_in_evaluation_mode():
    encoder, image = TinyVitImageEncoder().eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = encoder(image)
        for name, parameter in encoder.named_parameters():
            if name.endswith("attention_biases"):
                parameter.copy_(torch.randn_like(parameter))
        assert (encoder(image) - before).abs().max() > 1e-4


def test_frozen_batch_norm_keeps_its_statistics_in_training_mode():
    network = build_network("vit_t", image_size=64)
    network.requires_grad_(False)
    network.train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network(torch.rand(2, 3, 64, 64))
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, before[name]), name
    network.requires_grad_(True)
    network.train()
    network(torch.rand(2, 3, 64, 64))
    assert any(not torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())
