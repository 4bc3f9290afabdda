"""A traced network refuses images of another size than its own instead of answering wrongly."""

import warnings

import pytest
import torch

from topolora_monai.networks import build_network


@pytest.mark.parametrize("name", ["vit_tiny_test", "little_wnet"])
def test_another_size_raises(name):
    network = build_network(name, image_size=64)
    image = torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network, image[:1])
    with torch.no_grad():
        torch.testing.assert_close(traced(image), network(image), rtol=0, atol=1e-5)
        for other in (image[..., :39, :], image[..., :55]):
            with pytest.raises(
                torch.jit.Error, match=r"takes images of 40x56 pixels \(height x width\), not (39x56|40x55)"
            ):
                traced(other)
