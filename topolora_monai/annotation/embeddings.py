"""What the image encoder saw in an image, kept while the image is worked on."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from topolora_monai.io import volume_state

__all__ = ["ContentDigest", "EmbeddingCache", "ImageEmbedding", "Tiles"]


@dataclass(frozen=True)
class Tiles:
    """Encoder features of the tiles of an image.

    Args:
        features: what the mask decoder takes, each of shape (N, D, h, w).
        corners: (row, column) of the tiles' first pixels in the image; negative where a tile is larger than it.
        size: side of a tile in pixels.
    """

    features: tuple[Tensor, ...]
    corners: tuple[tuple[int, int], ...]
    size: int


@dataclass(frozen=True)
class ImageEmbedding:
    """One image as one adapted network sees it.

    Args:
        probability: of the foreground classes without any prompt, float32 (K, H, W), on the CPU.
        logits: what they come from, likewise.
        contrast: see :func:`~topolora_monai.annotation.evidence.local_contrast`, (H, W).
        valid: where the image holds data, (H, W).
        tiles: None for a network without prompts.
    """

    probability: Tensor
    logits: Tensor
    contrast: NDArray[np.float32]
    valid: NDArray[np.bool_]
    tiles: Tiles | None

    @property
    def nbytes(self) -> int:
        """Memory of all arrays."""
        tensors = [self.probability, self.logits, *(self.tiles.features if self.tiles else ())]
        return sum(tensor.nbytes for tensor in tensors) + self.contrast.nbytes + self.valid.nbytes


class EmbeddingCache:
    """The embeddings used last, up to so many bytes; one that several threads ask for is made once.

    Args:
        capacity: in bytes; the embedding used last is kept even if it is larger.

    Example:
        >>> cache = EmbeddingCache(1000)
        >>> cache.get("a", lambda: None) is None, cache.nbytes
        (True, 0)
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

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._entries

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The embedding of a key, made by the first who asks while the others wait; an error is not kept.

        Args:
            key: of everything that the embedding depends on.
            make: gives the embedding; its ``nbytes`` count, 0 without.
        """
        with self._lock:
            entry = self._entries.get(key)
            mine = entry is None
            if entry is None:
                entry = self._entries[key] = Future()
            self._entries.move_to_end(key)
        if not mine:
            return entry.result()
        try:
            made = make()
        except BaseException as error:
            with self._lock:
                self._entries.pop(key, None)
            entry.set_exception(error)
            raise
        entry.set_result(made)
        with self._lock:
            self._trim(key)
        return made

    def clear(self) -> None:
        """Forget all; requests under way keep what they use."""
        with self._lock:
            self._entries.clear()

    def _held(self) -> int:
        done = (entry.result() for entry in self._entries.values() if entry.done() and entry.exception() is None)
        return sum(getattr(embedding, "nbytes", 0) for embedding in done)

    def _trim(self, keep: Hashable) -> None:
        """Drop the least recently used that are finished, but never ``keep``."""
        excess = self._held() - self.capacity
        for key, entry in list(self._entries.items()):
            if excess <= 0:
                return
            if key != keep and entry.done():
                excess -= getattr(entry.result(), "nbytes", 0)
                del self._entries[key]


class ContentDigest:
    """SHA-256 of the files of an image, computed again only when they change.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.png"
        >>> _ = path.write_bytes(b"1")
        >>> ContentDigest()({"image": str(path)})[:8]
        '6b86b273'
    """

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, str] = OrderedDict()

    def __call__(self, item: Mapping[str, Any]) -> str:
        """Digest of an item's image, with the number of its slice.

        Raises:
            OSError: if it cannot be read.
        """
        path = Path(item["image"])
        key = (str(path.absolute()), volume_state(path))
        with self._lock:
            digest = self._known.get(key)
        if digest is None:
            digest = _sha256(path)
            with self._lock:
                self._known[key] = digest
                while len(self._known) > self._most:
                    self._known.popitem(last=False)
        place = [str(item[name]) for name in ("axis", "slice") if name in item]
        return "-".join([digest, *place])


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
