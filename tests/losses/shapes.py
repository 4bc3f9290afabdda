"""Small masks and predictions for the tests of losses."""

import torch


def tree(size=48):
    """Two crossing bars, shape (1, 1, size, size)."""
    mask = torch.zeros(1, 1, size, size)
    mask[..., 5:-5, size // 2 - 2 : size // 2 + 2] = 1
    mask[..., size // 3 : size // 3 + 2, 4:-4] = 1
    return mask


def noisy_logits(target, seed=0):
    """A prediction that resembles the target, each pixel with its own value."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(target.shape, generator=generator, dtype=torch.float64)
    return torch.logit(0.68 * target.double() + 0.01 + 0.3 * noise).to(target.dtype)


def certain(mask):
    """Logits whose sigmoid is the mask."""
    return 100.0 * mask - 50.0


def several(channels=3, size=24, batch=2, seed=0):
    """Logits and exclusive classes of one pixel each, both (batch, channels, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(0, channels, (batch, size, size), generator=generator)
    target = torch.nn.functional.one_hot(classes, channels).movedim(-1, 1).float()
    return torch.randn(batch, channels, size, size, generator=generator), target
