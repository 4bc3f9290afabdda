"""The ViT encoder and the decoder against ``segment_anything`` on the same weights."""

import copy
from functools import partial
from unittest.mock import patch

import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT
from torch import nn

from topolora_monai.networks import MaskDecoder, VitImageEncoder, build_network


def small_original(side: int) -> ImageEncoderViT:
    """An original encoder with positions that are not zero, as trained ones are."""
    encoder = ImageEncoderViT(
        img_size=side,
        embed_dim=48,
        depth=3,
        num_heads=4,
        out_chans=32,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=5,
        global_attn_indexes=(1,),
    )
    return randomise_positions(encoder).eval()


def randomise_positions(encoder):
    for name, parameter in encoder.named_parameters():
        if "pos" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return encoder


def relative_difference(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("side", [80, 128, 208])  # window 5: no padding, padding, padding
def test_encoder_equals_original_at_its_grid(side):
    original = small_original(side)
    ours = VitImageEncoder(copy.deepcopy(original))
    image = torch.randn(2, 3, side, side)
    with torch.no_grad():
        assert relative_difference(ours(image), original(image)) < 1e-5


def test_encoder_gradients_equal_original():
    original = small_original(128)
    ours = VitImageEncoder(copy.deepcopy(original))
    image = torch.randn(1, 3, 128, 128)
    for network in (original, ours):
        network(image).square().mean().backward()
    expected = dict(original.named_parameters())
    for name, parameter in ours.named_parameters():
        assert relative_difference(parameter.grad, expected[name].grad) < 1e-4, name


def test_other_grid_equals_original_with_resized_tables():
    original, larger = small_original(128), small_original(192)
    state = original.state_dict()
    for name, table in larger.state_dict().items():
        if state[name].shape != table.shape:
            if name == "pos_embed":
                resized = torch.nn.functional.interpolate(
                    state[name].permute(0, 3, 1, 2), size=(12, 12), mode="bicubic"
                ).permute(0, 2, 3, 1)
            else:
                resized = torch.nn.functional.interpolate(state[name].T[None], size=len(table), mode="linear")[0].T
            state[name] = resized
    larger.load_state_dict(state)
    image = torch.randn(1, 3, 192, 192)
    with torch.no_grad():
        assert relative_difference(VitImageEncoder(copy.deepcopy(original))(image), larger(image)) < 1e-5


def test_oblong_grid_differs_from_its_transpose():
    ours = VitImageEncoder(small_original(128))
    image = torch.randn(1, 3, 96, 160)
    with torch.no_grad():
        out, transposed = ours(image), ours(image.transpose(2, 3))
    assert out.shape == (1, 32, 6, 10)
    assert relative_difference(transposed.transpose(2, 3), out) > 0.01


def test_activation_checkpointing_changes_no_gradient():
    ours = VitImageEncoder(small_original(80))
    image = torch.randn(1, 3, 80, 80)
    grads = []
    for switch in (False, True):
        ours.zero_grad()
        ours.activation_checkpointing = switch
        ours(image).square().mean().backward()
        grads.append({name: p.grad.clone() for name, p in ours.named_parameters()})
    for name in grads[0]:
        torch.testing.assert_close(grads[1][name], grads[0][name])


def test_bfloat16_autocast_stays_close():
    ours = VitImageEncoder(small_original(128))
    image = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        full = ours(image)
        with torch.autocast("cpu", torch.bfloat16):
            half = ours(image).float()
    assert 0 < relative_difference(half, full) < 0.1


@pytest.mark.slow
def test_vit_b_equals_original_at_1024():
    torch.manual_seed(1)
    sam = sam_model_registry["vit_b"]()
    randomise_positions(sam.image_encoder)
    network = build_network("vit_b")
    network.load_state_dict(sam.state_dict(), strict=False)
    for encoder in (sam.image_encoder, network.image_encoder):
        del encoder.blocks[1:9]  # three with windows and one over the whole grid are left
    image = torch.randn(1, 3, 1024, 1024)
    with torch.no_grad():
        expected = sam.image_encoder(image)
        assert relative_difference(network.image_encoder(image), expected) < 1e-4
        sparse, dense = sam.prompt_encoder(points=None, boxes=None, masks=None)
        positions = sam.prompt_encoder.get_dense_pe()
        logits, _ = sam.mask_decoder(expected, positions, sparse, dense, multimask_output=False)
        assert relative_difference(network.mask_decoder(expected, positions, sparse, dense)[0], logits) < 1e-4


def without_encoder():
    """SAM's other parts, without the time that its encoder takes."""
    with patch("segment_anything.build_sam.ImageEncoderViT", nn.Identity):
        return sam_model_registry["vit_b"]()


def test_decoder_batch_equals_original_image_by_image():
    sam = without_encoder()
    ours = MaskDecoder(copy.deepcopy(sam.mask_decoder))
    embedding = torch.randn(3, 256, 8, 8)
    sparse, _ = sam.prompt_encoder(
        points=(torch.rand(3, 2, 2) * 1024, torch.tensor([[1, 0]] * 3)), boxes=None, masks=None
    )
    dense = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    positions = sam.prompt_encoder.pe_layer((8, 8))[None]
    with torch.no_grad():
        batched, _ = ours(embedding, positions, sparse, dense)
        for index in range(3):
            single, _ = sam.mask_decoder(
                embedding[index : index + 1], positions, sparse[index : index + 1], dense, multimask_output=False
            )
            assert relative_difference(batched[index : index + 1], single) < 1e-4


def test_several_classes_start_as_one_and_can_differ():
    sam = without_encoder()
    ours = MaskDecoder(sam.mask_decoder, out_channels=3)
    arguments = (
        torch.randn(1, 256, 4, 4),
        torch.randn(1, 256, 4, 4),
        torch.zeros(1, 0, 256),
        torch.zeros(1, 256, 1, 1),
    )
    with torch.no_grad():
        start, _ = ours(*arguments)
        assert start.shape == (1, 3, 16, 16)
        torch.testing.assert_close(start[:, 0], start[:, 2], rtol=1e-4, atol=1e-5)
        ours.class_tokens[2] += torch.randn(256)
        moved, _ = ours(*arguments)
    assert (moved[:, 2] - moved[:, 0]).abs().max() > 1e-3
