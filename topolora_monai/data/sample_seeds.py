"""Randomness that belongs to an item, and order that belongs to an epoch, and not to whoever loads them."""

import hashlib
from typing import Any

import ignite.distributed as idist
import torch
from monai.transforms import Randomizable
from torch.utils.data import Dataset, DistributedSampler


class SampleSeeds(Dataset[Any]):
    """A data set whose random transforms draw the same for an item in an epoch, in whatever process and order.

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
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # worker processes may outlive an epoch

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


class WholeBatches(DistributedSampler[Any]):
    """One shuffled order for all processes, by seed and epoch.

    Each step that they take together has the same items, however many share them; the last is filled from the start.

    Args:
        data: whose items are ordered.
        batch_size: items in a step of one process.
        seed: of the run.
        processes: that train together, of which this is number ``rank``; None for those that do.
        rank: see there.
        items: of an epoch, which takes as many from the start of its order; None for all.

    Example:
        >>> alone = list(WholeBatches(range(7), 4, seed=0))
        >>> first, second = (list(WholeBatches(range(7), 2, 0, processes=2, rank=rank)) for rank in (0, 1))
        >>> [sorted(alone[k : k + 4]) for k in (0, 4)] == [sorted(first[k : k + 2] + second[k : k + 2]) for k in (0, 2)]
        True
        >>> len(alone), set(alone) == set(range(7))
        (8, True)
        >>> len(list(WholeBatches(range(7), 2, items=3)))
        4
    """

    def __init__(
        self,
        data: Any,
        batch_size: int,
        seed: int = 0,
        processes: int | None = None,
        rank: int | None = None,
        items: int | None = None,
    ) -> None:
        processes = idist.get_world_size() if processes is None else processes
        super().__init__(data, processes, idist.get_rank() if rank is None else rank, shuffle=True, seed=seed)
        count = len(data) if items is None else min(items, len(data))
        self.num_samples = -(-count // (batch_size * processes)) * batch_size
        self.total_size = self.num_samples * processes
        self.drop_last = self.total_size < len(data)  # else the order is filled from its start
