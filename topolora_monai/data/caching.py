"""Deterministic preprocessing done once, in memory or on disk, under a key that knows what it was done with."""

from __future__ import annotations

import functools
import importlib.metadata
import io
import pickle
import platform
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from monai.data import CacheDataset, PersistentDataset
from monai.transforms import Compose, Transform
from monai.transforms.traits import RandomizableTrait
from monai.utils.enums import TraceKeys
from torch.utils.data import Dataset

from topolora_monai.data.content_keys import content_key
from topolora_monai.errors import ConfigError
from topolora_monai.io import volume_state
from topolora_monai.io.atomic import atomic_write, writing
from topolora_monai.io.regular import path_kind

__all__ = ["cached"]

_LIBRARIES = ("monai", "torch", "numpy", "scipy", "scikit-image", "pillow", "nibabel", "rasterio", "itk-io")
_PACKAGE = Path(__file__).parents[1]
_CACHE = {"what": "to the cache folder", "instead": "choose another cache_dir"}


def cached(
    data: Sequence[Mapping[str, Any]],
    transform: Compose | Sequence[Callable[..., Any]],
    cache_dir: str | Path | None = None,
    cache_rate: float = 1.0,
) -> Dataset[Any]:
    """A data set whose items are preprocessed once, up to the first random transform.

    Without ``cache_dir`` that happens now and in memory (MONAI's ``CacheDataset``); items that are equal share one
    entry. With it, each item is stored when first asked for (MONAI's ``PersistentDataset``) and found again by
    later runs. Its key holds the item; size and time of change of every file it names (of a folder, those of the
    files in it); class, arguments and order of the deterministic transforms; the source of their modules and of
    this package; and the versions of the libraries that read and transform. A change in any of these leads to
    another entry; those of before stay until the folder is deleted. Damaged entries are made anew. Entries hold
    tensors, texts and numbers, and are read by PyTorch's loader that runs no code.

    Args:
        data: what the transforms start from: mappings of texts, paths among them, and numbers.
        transform: MONAI transforms; the first that is random, or none of MONAI's, and all after it are not cached.
        cache_dir: folder for the entries, made if need be; None keeps them in memory.
        cache_rate: fraction of distinct items to keep in memory, in [0, 1]; on disk it is always 1.

    Raises:
        ConfigError: for an impossible rate; with ``cache_dir``, for a transform whose content cannot be described,
            such as one that holds a function, or when an item is asked for whose preprocessed form cannot be
            stored.
        OutputError: for a folder that cannot be made or written to.

    Example:
        >>> from monai.transforms import Lambdad, RandFlipd
        >>> calls = []
        >>> double = Lambdad("image", lambda x: calls.append(x) or 2 * x)
        >>> data = cached([{"image": 4}] * 3, [double, RandFlipd("label", prob=0, allow_missing_keys=True)])
        >>> [item["image"] for item in data], calls
        ([8, 8, 8], [4])
    """
    if not 0 <= cache_rate <= 1:
        raise ConfigError("cache_rate must be in [0, 1]", found=cache_rate)
    if cache_dir is None:
        memory: Dataset[Any] = CacheDataset(data, transform, cache_rate=cache_rate, hash_as_key=True, progress=False)
        return memory
    if cache_rate != 1:
        raise ConfigError("cache_rate is for memory", expected="1 with cache_dir", found=cache_rate)
    return _DiskCache(data, transform, Path(cache_dir))


class _DiskCache(PersistentDataset):
    """MONAI's, with keys by content, writes beside the final place and checked reads."""

    def __init__(
        self, data: Sequence[Mapping[str, Any]], transform: Compose | Sequence[Callable[..., Any]], folder: Path
    ) -> None:
        with writing(folder, **_CACHE):
            folder.mkdir(parents=True, exist_ok=True)
        super().__init__(data, transform, cache_dir=folder, weights_only=True)
        self.folder = folder
        self.transform_hash = _transform_key(self.transform)

    def set_data(self, data: Sequence[Mapping[str, Any]]) -> None:
        """Take other items; entries are found by content, so none are deleted."""
        self.data = data

    def _cachecheck(self, item: Mapping[str, Any]) -> Any:
        path = self.folder / f"{content_key([self.transform_hash, item, _file_states(item)])}.pt"
        if path.is_file():
            try:
                return _load(path)
            except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
                reason = str(error).partition("\n")[0]
                warnings.warn(f"damaged cache entry is made anew: {path} ({reason})", stacklevel=2)
        content = _serialise(self._pre_transform(deepcopy(item)))
        _write(content, path)
        return _load(io.BytesIO(content))  # the same now as when it is read later


def _file_states(item: Mapping[str, Any]) -> dict[str, Any]:
    """Name, time of change and size of every file that an item names, or that lies in a folder it names."""
    return {key: volume_state(value) for key, value in item.items() if isinstance(value, str) and path_kind(value)}


def _transform_key(transform: Compose) -> str:
    """Content of everything that happens to an item before it is stored."""
    first_random = transform.get_index_of_first(
        lambda step: isinstance(step, RandomizableTrait) or not isinstance(step, Transform)
    )
    versions = {"python": platform.python_version(), "topolora_monai": _package_source(), **_versions()}
    how = [transform.map_items, transform.unpack_items, transform.lazy, transform.overrides]
    return content_key([versions, how, *transform.transforms[:first_random]])


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def _package_source() -> str:
    return content_key({str(path.relative_to(_PACKAGE)): path.read_text("utf-8") for path in _PACKAGE.rglob("*.py")})


def _serialise(item: Mapping[str, Any]) -> bytes:
    """As ``torch.save`` does, of what ``torch.load`` reads without pickle."""
    buffer = io.BytesIO()
    try:
        torch.save(item, buffer)
        _load(io.BytesIO(buffer.getvalue()))
    except (pickle.PicklingError, pickle.UnpicklingError, TypeError, AttributeError) as error:
        raise ConfigError(
            "a preprocessed item cannot be cached on disk",
            expected="tensors, texts and numbers, and lists and mappings of these",
            found=", ".join(f"{key}: {type(value).__name__}" for key, value in item.items()),
            hint="leave cache_dir out, or let a random transform come before the one that makes it",
        ) from error
    return buffer.getvalue()


def _load(source: Path | io.BytesIO) -> Any:
    with torch.serialization.safe_globals([TraceKeys]):  # in the records of MONAI's transforms
        return torch.load(source, weights_only=True)


def _write(content: bytes, path: Path) -> None:
    with atomic_write(path, **_CACHE) as beside:
        beside.write_bytes(content)
