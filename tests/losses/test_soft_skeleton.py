"""Values and gradients of the soft skeleton against MONAI's definition and finite differences."""

import pytest
import torch
from monai.losses.cldice import soft_skel

from topolora_monai.losses import soft_skeleton

SHAPES = [(2, 3, 21, 17), (1, 2, 9, 8, 7), (1, 1, 1, 5), (1, 1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_values_are_bit_identical_to_monai(shape, iterations):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(soft_skeleton(image, iterations), soft_skel(image, iterations - 1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [None, 4], ids=["distinct values", "many ties"])
@pytest.mark.parametrize("iterations", [1, 4, 7])
def test_gradient_is_that_of_max_pooling(shape, steps, iterations):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(shape, dtype=torch.float64, generator=generator)
    image = (image if steps is None else (image * steps).round() / steps).requires_grad_()
    weight = torch.rand(shape, dtype=torch.float64, generator=generator)
    ours = torch.autograd.grad((weight * soft_skeleton(image, iterations)).sum(), image)[0]
    theirs = torch.autograd.grad((weight * soft_skel(image, iterations - 1)).sum(), image)[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [(1, 1, 6, 6), (1, 1, 4, 4, 3)])
@pytest.mark.parametrize("iterations", [1, 3])
def test_gradient_by_finite_differences(shape, iterations):
    image = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: soft_skeleton(x, iterations), image, eps=1e-7, atol=1e-5)


def test_keeps_thin_lines_and_loses_what_is_too_wide():
    line, block = torch.zeros(1, 1, 20, 20), torch.zeros(1, 1, 40, 40)
    line[..., 10, 2:18] = 1
    block[..., 5:35, 5:35] = 1
    assert torch.equal(soft_skeleton(line, 3), line)
    assert soft_skeleton(block, 3).sum() < 20  # corners at most
    assert soft_skeleton(block, 20).sum() > soft_skeleton(block, 3).sum()


def test_flips_commute():
    image = torch.rand(1, 1, 31, 26)
    for axes in ((-1,), (-2,), (-1, -2)):
        assert torch.equal(soft_skeleton(image.flip(axes), 5), soft_skeleton(image, 5).flip(axes))


def test_keeps_one_level_and_one_skeleton_an_iteration_and_nothing_without_gradient():
    image = torch.rand(1, 1, 32, 32, requires_grad=True)
    skeleton = soft_skeleton(image, 10)
    assert len(skeleton.grad_fn.saved_tensors) == 2 * 10 + 1
    assert soft_skeleton(image.detach(), 10).grad_fn is None


def test_mask_of_bytes():
    mask = torch.rand(1, 2, 40, 40, generator=torch.Generator().manual_seed(0)) > 0.2
    skeleton = soft_skeleton(mask.to(torch.uint8), 5)
    assert skeleton.dtype == torch.uint8
    assert torch.equal(skeleton.float(), soft_skel(mask.float(), 4))


def test_leaves_its_input_alone():
    image = torch.rand(1, 1, 16, 16, requires_grad=True)
    before = image.detach().clone()
    soft_skeleton(image, 3).sum().backward()
    assert torch.equal(image.detach(), before)


def test_bad_arguments():
    with pytest.raises(ValueError, match="iterations"):
        soft_skeleton(torch.rand(1, 1, 4, 4), 0)
    with pytest.raises(ValueError, match="shape"):
        soft_skeleton(torch.rand(4, 4))
