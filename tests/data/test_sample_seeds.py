"""An item's randomness is its own: the same in the main process and in workers, another in each epoch."""

import pytest
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, RandFlipd, RandGaussianNoised, RandTorchVisiond

from topolora_monai.data import SampleSeeds
from topolora_monai.engines import EpochSeed


def samples(workers, epochs=(1, 2, 3), seed=0):
    items = [{"image": torch.full((3, 4, 4), float(number) / 9)} for number in range(5)]
    transform = Compose([
        RandGaussianNoised("image", prob=1.0), RandFlipd("image", prob=0.5),
        RandTorchVisiond(keys="image", name="ColorJitter", brightness=0.2),
    ])  # fmt: skip
    data = SampleSeeds(CacheDataset(items, transform, progress=False), seed)
    loader = DataLoader(data, batch_size=2, num_workers=workers, persistent_workers=workers > 0)
    seeder = EpochSeed(seed, data)
    drawn = []
    for epoch in epochs:
        seeder(type("Engine", (), {"state": type("State", (), {"epoch": epoch})}))
        drawn.append(torch.cat([batch["image"].as_tensor() for batch in loader]))
    return drawn


def test_every_item_and_epoch_has_its_own():
    drawn = samples(0)
    values = torch.stack(drawn).flatten(0, 1).flatten(1).std(dim=1)
    assert len(set(values.tolist())) == 15
    assert not torch.equal(samples(0, seed=1)[0], drawn[0])


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_that_outlive_an_epoch_draw_the_same(workers):
    for one, other in zip(samples(0), samples(workers), strict=True):
        assert torch.equal(one, other)


def test_starting_later_changes_nothing():
    assert torch.equal(samples(0, epochs=(3,))[0], samples(0)[2])


def test_the_global_stream_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    data = SampleSeeds(CacheDataset([{"image": torch.ones(3, 2, 2)}], Compose([]), progress=False), 0)
    torch.manual_seed(5)
    data[0]
    assert torch.equal(torch.rand(1), expected)
