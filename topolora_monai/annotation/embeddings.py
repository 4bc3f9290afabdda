"""What the image encoder saw in an image, kept while the image is worked on."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from topolora_monai.data import file_sha256
from topolora_monai.io import volume_state
from topolora_monai.model.tiling import TileGrid
from topolora_monai.networks import SamSegmenter


@dataclass(frozen=True)
class ImageEmbedding:
    """One image as one adapted network sees it.

    Args:
        probability: of the foreground classes without any prompt, float32 (K, H, W), on the CPU.
        logits: what they come from, likewise.
        contrast: see :func:`~topolora_monai.annotation.correction.local_contrast`, (H, W).
        valid: where the image holds data, (H, W).
        grid: of the tiles that were looked at.
        features: of the encoder in all tiles, each (N, D, h, w), as the mask decoder takes them; none of a network
            without prompts.
    """

    probability: Tensor
    logits: Tensor
    contrast: NDArray[np.float32]
    valid: NDArray[np.bool_]
    grid: TileGrid
    features: tuple[Tensor, ...]

    @property
    def nbytes(self) -> int:
        """Memory of all arrays."""
        tensors = [self.probability, self.logits, *self.features]
        return sum(tensor.nbytes for tensor in tensors) + self.contrast.nbytes + self.valid.nbytes


class EmbeddingCache:
    """The embeddings used last, up to so many bytes; one that several threads ask for is made once.

    Args:
        capacity: in bytes; the embedding used last is kept even if it is larger.

    Example:
        >>> cache = EmbeddingCache(1000)
        >>> len(cache.get("a", lambda: torch.zeros(3))), cache.nbytes
        (3, 12)
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, Future[Any]] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Bytes of the embeddings that are held."""
        with self._lock:
            return self._held()

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The embedding of a key, made by the first who asks while the others wait; an error is not kept."""
        with self._lock:
            mine = key not in self._entries
            entry = self._entries.setdefault(key, Future())
            self._entries.move_to_end(key)
        if mine:
            try:
                entry.set_result(make())
            except BaseException as error:
                with self._lock:
                    self._entries.pop(key, None)
                entry.set_exception(error)
            with self._lock:
                self._trim(key)
        return entry.result()

    def clear(self) -> None:
        """Forget all; requests under way keep what they use."""
        with self._lock:
            self._entries.clear()

    def _held(self) -> int:
        return sum(entry.result().nbytes for entry in self._entries.values() if entry.done() and not entry.exception())

    def _trim(self, keep: Hashable) -> None:
        """Drop the least recently used that are finished, but never ``keep``."""
        excess = self._held() - self.capacity
        for key, entry in list(self._entries.items()):
            if excess > 0 and key != keep and entry.done():
                excess -= entry.result().nbytes
                del self._entries[key]


def content_digest(item: Mapping[str, Any]) -> str:
    """SHA-256 of the files of an item's image, computed again only when they change, with the number of its slice.

    Raises:
        OSError: if they cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.png"
        >>> _ = path.write_bytes(b"1")
        >>> content_digest({"image": str(path)})[:8]
        '6b86b273'
    """
    path = Path(item["image"]).absolute()
    place = [str(item[name]) for name in ("axis", "slice") if name in item]
    return "-".join([_sha256(path, volume_state(path)), *place])


@lru_cache(maxsize=4096)
def _sha256(path: Path, state: Hashable) -> str:
    if path.is_file():
        return file_sha256(path)
    return hashlib.sha256("".join(file_sha256(file) for file in sorted(path.iterdir())).encode()).hexdigest()


class EncoderRecorder:
    """Runs a network on batches of tiles and keeps what its encoder saw.

    Args:
        network: a :class:`~topolora_monai.networks.SamSegmenter`; of any other nothing is kept.
    """

    def __init__(self, network: Any) -> None:
        self._network = network
        self._features: list[tuple[Tensor, ...]] = []

    def __call__(self, tiles: Tensor) -> Tensor:
        """Logits (B, K, h, w) of tiles (B, C, h, w)."""
        if not isinstance(self._network, SamSegmenter):
            answer: Tensor = self._network(tiles)
            return answer
        features = self._network.features(tiles)
        self._features.append(tuple(feature.to(torch.float16) for feature in features))
        return self._network.decode(features, (tiles.shape[-2], tiles.shape[-1]))

    def features(self) -> tuple[Tensor, ...]:
        """What was kept of all tiles, in half precision."""
        return tuple(plain_tensor(torch.cat(parts)) for parts in zip(*self._features, strict=True))


def plain_tensor(tensor: Tensor) -> Tensor:
    """A tensor of its own memory, without MONAI's metadata, that may be used outside of inference mode."""
    plain = tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
    with torch.inference_mode(False):
        return plain.detach().clone()
