"""Fused and chunked attention against the original's explicit matrix."""

import pytest
import torch
from segment_anything.modeling.image_encoder import add_decomposed_rel_pos

from topolora_monai.networks import attention
from topolora_monai.networks.attention import relative_position_attention, relative_position_table

GRID, DIM = (5, 7), 8


def inputs(requires_grad: bool, dtype=torch.float32):
    tokens = GRID[0] * GRID[1]
    shapes = [(2, 3, tokens, DIM)] * 3 + [(2 * GRID[0] - 1, DIM), (2 * GRID[1] - 1, DIM)]
    return [torch.randn(shape, dtype=dtype).requires_grad_(requires_grad) for shape in shapes]


def ours(query, key, value, rel_h, rel_w):
    tables = relative_position_table(rel_h, GRID[0]), relative_position_table(rel_w, GRID[1])
    return relative_position_attention(query, key, value, *tables, GRID)


def original(query, key, value, rel_h, rel_w):
    flat = [tensor.flatten(0, 1) for tensor in (query, key, value)]
    logits = (flat[0] * DIM**-0.5) @ flat[1].transpose(-2, -1)
    logits = add_decomposed_rel_pos(logits, flat[0], rel_h, rel_w, GRID, GRID)
    return (logits.softmax(dim=-1) @ flat[2]).view_as(value)


@pytest.mark.parametrize("chunk_elements", [1, 3 * 6 * 35, 1 << 22])
def test_training_path_equals_original_forward_and_backward(monkeypatch, chunk_elements):
    monkeypatch.setattr(attention, "_CHUNK_ELEMENTS", chunk_elements)
    tensors = inputs(requires_grad=True)
    upstream = torch.randn(2, 3, 35, DIM)
    expected = original(*tensors)
    expected_grads = torch.autograd.grad(expected, tensors, upstream)
    out = ours(*tensors)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    for grad, expected_grad in zip(torch.autograd.grad(out, tensors, upstream), expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-4)


def test_inference_path_equals_original():
    tensors = inputs(requires_grad=False)
    torch.testing.assert_close(ours(*tensors), original(*tensors), rtol=1e-5, atol=1e-5)


def test_fused_path_has_the_original_gradient():
    tensors = inputs(requires_grad=True, dtype=torch.float64)  # float64 takes the fused path
    upstream = torch.randn(2, 3, 35, DIM, dtype=torch.float64)
    expected = torch.autograd.grad(original(*tensors), tensors, upstream)
    for grad, expected_grad in zip(torch.autograd.grad(ours(*tensors), tensors, upstream), expected, strict=True):
        torch.testing.assert_close(grad, expected_grad)


def test_chunked_gradient_by_finite_differences(monkeypatch):
    monkeypatch.setattr(attention, "_CHUNK_ELEMENTS", 2 * 6 * 2)
    shapes = [(2, 6, 4)] * 3 + [(2, 6, 2), (2, 6, 3)]
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(attention._ChunkedAttention.apply, tensors)


def test_relative_positions_matter():
    query, key, value, rel_h, rel_w = inputs(requires_grad=False)
    moved = ours(query, key, value, rel_h.roll(1, 0), rel_w)
    assert (moved - ours(query, key, value, rel_h, rel_w)).abs().max() > 0.01


def test_table_is_resized_linearly():
    table = relative_position_table(torch.arange(7.0)[:, None], 8)  # 7 distances stretched to 15
    assert table.shape == (8, 8, 1)
    by_distance = table[:, 0, 0]  # distances 0 to 7
    assert by_distance[0] == pytest.approx(3.0)
    assert (by_distance.diff() > 0).all()
