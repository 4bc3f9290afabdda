"""Randomness that belongs to an item and not to whoever loads it."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from monai.transforms import Randomizable
from torch.utils.data import Dataset

__all__ = ["SampleSeeds"]


class SampleSeeds(Dataset[Any]):
    """A data set whose random transforms draw the same for an item in an epoch, in whatever process and order.

    Worker processes that outlive an epoch learn of the next by shared memory.

    Args:
        data: if it applies transforms, they are its ``transform``, as MONAI has it.
        seed: of the run.

    Example:
        >>> from monai.data import Dataset
        >>> from monai.transforms import Compose, RandShiftIntensity
        >>> images = Dataset([torch.zeros(1, 1), torch.zeros(1, 1)], Compose([RandShiftIntensity(1.0, prob=1.0)]))
        >>> data = SampleSeeds(images, seed=0)
        >>> first = float(data[0])
        >>> float(data[1]) == first, float(data[0]) == first
        (False, True)
        >>> data.set_epoch(1)
        >>> float(data[0]) == first
        False
    """

    def __init__(self, data: Any, seed: int) -> None:
        self.data = data
        self.seed = seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """What is drawn from now on, here and in worker processes."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        key = f"{self.seed} {int(self._epoch)} {index}"
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
        transform = getattr(self.data, "transform", None)
        if isinstance(transform, Randomizable):
            transform.set_random_state(seed=seed)
        with torch.random.fork_rng(devices=[]):  # torchvision's transforms draw from the global stream
            torch.default_generator.manual_seed(seed)  # the GPU's stream is left alone
            return self.data[index]
