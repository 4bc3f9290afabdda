"""Deterministic preprocessing done once, in memory or on disk, under a key that knows what it was done with."""

import contextlib
import functools
import hashlib
import importlib.metadata
import io
import json
import pickle
import platform
import sys
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

from topolora_monai.errors import ConfigError
from topolora_monai.io import volume_state
from topolora_monai.io.atomic import atomic_write, writing
from topolora_monai.io.regular import path_kind

_LIBRARIES = ("monai", "torch", "numpy", "scipy", "scikit-image", "pillow", "nibabel", "rasterio", "itk-io")
_PACKAGE = Path(__file__).parents[1]
_DEFAULT_MAKE = object().__reduce_ex__(2)[0]
"""What pickle makes an object with that is no more than its class and attributes."""
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
    later runs. Its key holds the item; size and time of change of every file it names; class, arguments and order of
    the deterministic transforms; the source of their modules and of this package; and the versions of the libraries
    that read and transform. Entries of before stay until the folder is deleted; damaged ones are made anew. They hold
    tensors, texts and numbers, and are read by PyTorch's loader that runs no code.

    Args:
        data: what the transforms start from: mappings of texts, paths among them, and numbers.
        transform: MONAI transforms; the first that is random, or none of MONAI's, and all after it are not cached.
        cache_dir: folder for the entries, made if need be; None keeps them in memory.
        cache_rate: fraction of distinct items to keep in memory, in [0, 1]; on disk it is always 1.

    Raises:
        ConfigError: for an impossible rate; with ``cache_dir``, for a transform whose content cannot be described,
            such as one that holds a function, or an item whose preprocessed form cannot be stored.
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


def content_key(value: Any) -> str:
    """A name, 64 hexadecimal digits, for what a value holds: the same for equal content alone, in any process.

    Args:
        value: texts, numbers, None, data types, lists and mappings of these, and objects that are no more than
            their attributes, which count together with the source of their classes' modules.

    Raises:
        ConfigError: for what cannot be described, such as functions, arrays, open files or classes of a notebook.

    Example:
        >>> content_key({"a": 1, "b": [2]}) == content_key({"b": [2], "a": 1})
        True
        >>> content_key([1, 2]) == content_key([2, 1])
        False
    """
    description = _describe(value, type(value).__name__)
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


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
        states = {key: volume_state(text) for key, text in item.items() if isinstance(text, str) and path_kind(text)}
        path = self.folder / f"{content_key([self.transform_hash, item, states])}.pt"
        if path.is_file():
            try:
                return _load(path)
            except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
                reason = str(error).partition("\n")[0]
                warnings.warn(f"damaged cache entry is made anew: {path} ({reason})", stacklevel=2)
        content = _serialise(self._pre_transform(deepcopy(item)))
        with atomic_write(path, **_CACHE) as beside:
            beside.write_bytes(content)
        return _load(io.BytesIO(content))  # the same now as when it is read later


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
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
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


def _describe(value: Any, where: str) -> Any:
    """What JSON can hold of a value; ``where`` says in messages how it was reached."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, torch.dtype):
        return {"dtype": str(value)}
    if isinstance(value, type):
        return _describe_class(value)
    if isinstance(value, (list, tuple)):
        return [_describe(member, f"{where}[{index}]") for index, member in enumerate(value)]
    if isinstance(value, Mapping):
        pairs = [[_describe(key, where), _describe(held, f"{where}[{key!r}]")] for key, held in value.items()]
        return {"mapping": sorted(pairs, key=lambda pair: json.dumps(pair[0], sort_keys=True))}
    return _describe_object(value, where)


def _describe_object(value: Any, where: str) -> dict[str, Any]:
    """By class and attributes, if these are all that it is made of."""
    kind = type(value)
    # As for pickle, so that MONAI's transforms leave out what they note of their use.
    try:
        make, arguments, attributes, *_ = value.__reduce_ex__(2)
    except (TypeError, ValueError):  # not to be pickled, or in another form
        make = None
    if make is not _DEFAULT_MAKE or _source(kind.__module__) is None:
        raise ConfigError(
            "cannot tell whether a cached result of this would still be right",
            expected="texts, numbers, lists and mappings of these, and objects of classes from a module",
            found=f"{kind.__module__}.{kind.__qualname__} in {where}",
            hint="leave cache_dir out, or take it out of the attributes of the transform",
        )
    return {
        **_describe_class(kind),
        "arguments": _describe(arguments[1:], kind.__qualname__),
        "attributes": _describe(attributes, kind.__qualname__),
    }


def _describe_class(kind: type) -> dict[str, Any]:
    """By name and the source of its module and those of its bases."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    return {"class": name, "sources": [_source(base.__module__) for base in kind.__mro__]}


def _source(module: str) -> str | None:
    """Digest of a module's file; None for what is built into Python or typed at a prompt."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return _file_digest(file) if file else None


@functools.cache
def _file_digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
