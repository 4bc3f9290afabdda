"""Deterministic preprocessing done once, in memory or on disk, under a key that knows what it was done with."""

from __future__ import annotations

import enum
import functools
import hashlib
import importlib.metadata
import inspect
import io
import json
import os
import pickle
import platform
import sys
import threading
import types
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path, PurePath
from typing import Any

import monai.utils.enums
import numpy as np
import torch
from monai.bundle import ReferenceResolver
from monai.data import CacheDataset, MetaTensor, PersistentDataset
from monai.transforms import Compose, Transform
from monai.transforms.traits import RandomizableTrait
from monai.utils import StrEnum
from numpy.typing import NDArray
from torch.utils.data import Dataset

from topolora_monai.errors import ConfigError, OutputError

__all__ = ["cached", "content_key"]

_LIBRARIES = ("monai", "torch", "numpy", "scipy", "scikit-image", "pillow", "nibabel", "rasterio", "itk", "pydicom")
_BUNDLE_REFERENCES = ReferenceResolver._vars  # the global through which "@name" in an expression is looked up
_TEXT_ENUMS: list[Any] = [
    kind for _, kind in inspect.getmembers(monai.utils.enums, inspect.isclass) if issubclass(kind, StrEnum)
]
_PACKAGE = Path(__file__).parents[1]


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
    tensors, texts and numbers, are read by PyTorch's loader that runs no code, and have tensors in place of arrays.

    Args:
        data: what the transforms start from: texts (paths among them), numbers, and lists and mappings of these.
        transform: MONAI transforms; the first that is random, or none of MONAI's, and all after it are not cached.
        cache_dir: folder for the entries, made if need be; None keeps them in memory.
        cache_rate: fraction of distinct items to keep in memory, in [0, 1]; on disk it is always 1.

    Raises:
        ConfigError: for an impossible rate; with ``cache_dir``, for a transform or item whose content cannot be
            described, or when an item is asked for whose preprocessed form cannot be stored.
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
        memory: Dataset[Any] = CacheDataset(
            data, transform, cache_rate=cache_rate, hash_as_key=True, hash_func=_item_key, progress=False
        )
        return memory
    if cache_rate != 1:
        raise ConfigError("cache_rate is for memory", expected="1 with cache_dir", found=cache_rate)
    return _DiskCache(data, transform, Path(cache_dir))


def content_key(value: Any) -> str:
    """A name for what a value holds: equal for equal content in any process, another for any other content.

    Args:
        value: plain values, containers, paths, arrays, tensors, functions, classes, and objects of Python classes,
            whose attributes count together with the source of their classes' modules.

    Returns:
        64 hexadecimal digits.

    Raises:
        ConfigError: for what cannot be described, such as open files, generators or classes of a notebook.

    Example:
        >>> content_key({"a": 1, "b": [2]}) == content_key({"b": [2], "a": 1})
        True
        >>> content_key([1, 2]) == content_key([2, 1])
        False
    """
    try:
        description = _describe(value, type(value).__name__)
    except RecursionError as error:
        raise ConfigError("cannot name the content of what refers to itself", found=type(value).__name__) from error
    return _digest(json.dumps(description, sort_keys=True).encode())


class _DiskCache(PersistentDataset):
    """MONAI's, with keys by content, writes beside the final place and checked reads."""

    def __init__(
        self, data: Sequence[Mapping[str, Any]], transform: Compose | Sequence[Callable[..., Any]], folder: Path
    ) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_write(folder, error) from error
        super().__init__(data, transform, cache_dir=folder, weights_only=True)
        self.folder = folder
        self.transform_hash = _transform_key(self.transform)

    def set_data(self, data: Sequence[Mapping[str, Any]]) -> None:
        """Take other items; entries are found by content, so none are deleted."""
        self.data = data

    def _cachecheck(self, item: Mapping[str, Any]) -> Any:
        key = content_key([self.transform_hash, item, _stamps(item)])
        path = self.folder / f"{key}.pt"
        if path.is_file():
            try:
                return _load(path)
            except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
                reason = str(error).partition("\n")[0]
                warnings.warn(f"damaged cache entry is made anew: {path} ({reason})", stacklevel=2)
        content = _serialise(self._pre_transform(deepcopy(item)))
        _write(content, path)
        return _load(io.BytesIO(content))  # the same now as when it is read later


def _item_key(item: Any) -> bytes:
    return content_key(item).encode()


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
    files = sorted(_PACKAGE.rglob("*.py"))
    return _digest(
        b"\0".join(part for path in files for part in (bytes(path.relative_to(_PACKAGE)), path.read_bytes()))
    )


def _stamps(value: Any) -> list[Any]:
    """Name, size and time of change of every file that an item names, or that lies in a folder it names."""
    if isinstance(value, Mapping):
        return [_stamps(value[key]) for key in sorted(value, key=str)]
    if isinstance(value, (list, tuple)):
        return [_stamps(member) for member in value]
    if not isinstance(value, (str, PurePath)) or not str(value):
        return []
    path = Path(value)
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
        return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    except (OSError, ValueError):  # a text that is no path
        return []


def _load(source: Path | io.BytesIO) -> Any:
    with torch.serialization.safe_globals(_TEXT_ENUMS):  # in the records of MONAI's transforms
        return torch.load(source, weights_only=True)


def _serialise(item: Any) -> bytes:
    """As ``torch.save`` does, of what ``torch.load`` reads without pickle."""
    buffer = io.BytesIO()
    try:
        torch.save(_storable(item), buffer)
        _load(io.BytesIO(buffer.getvalue()))
    except (pickle.PicklingError, pickle.UnpicklingError, TypeError, AttributeError) as error:
        raise ConfigError(
            "a preprocessed item cannot be cached on disk",
            expected="tensors, arrays, texts and numbers, and lists and mappings of these",
            found=str(error).partition("WeightsUnpickler error: ")[2].partition(" was not")[0] or error,
            hint="leave cache_dir out, or let a random transform come before the one that makes it",
        ) from error
    return buffer.getvalue()


def _storable(value: Any) -> Any:
    """Tensors for arrays, numbers for NumPy's; tensors without the rest of the storage they are a view of."""
    if isinstance(value, torch.Tensor):
        tensor = value.detach().clone()
        if isinstance(tensor, MetaTensor):
            tensor.meta, tensor.applied_operations = _storable(tensor.meta), _storable(tensor.applied_operations)
        return tensor
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _storable(member) for key, member in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_storable(member) for member in value)
    return value


def _write(content: bytes, path: Path) -> None:
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")  # several workers may make one entry at a time
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    except OSError as error:
        raise _cannot_write(path.parent, error) from error
    finally:
        beside.unlink(missing_ok=True)


def _cannot_write(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        "cannot write to the cache folder",
        path=folder,
        found=str(error),
        hint="choose another cache_dir, or make room for it",
    )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@functools.singledispatch
def _describe(value: Any, where: str) -> Any:
    """What JSON can hold of a value. Here: objects of Python classes, by class and attributes.

    Args:
        value: anything.
        where: how it was reached, for messages.
    """
    kind = type(value)
    if not all(_is_python(base) for base in kind.__mro__[:-1]):  # others may hold more than attributes
        raise _indescribable(value, where)
    slots = [name for base in kind.__mro__ for name in _slots(base) if hasattr(value, name)]
    attributes = {**{name: getattr(value, name) for name in slots}, **getattr(value, "__dict__", {})}
    # What is local to a thread is no setting: MONAI's transforms note there, from their first use on, what they trace.
    return {
        "object": _describe(kind, where),
        "attributes": {
            name: _describe(held, f"{where}.{name}")
            for name, held in attributes.items()
            if not isinstance(held, threading.local)
        },
    }


@_describe.register(type(None))
@_describe.register(bool)
@_describe.register(int)
@_describe.register(float)
@_describe.register(str)
def _(value: Any, where: str) -> Any:
    return value


@_describe.register(complex)
@_describe.register(bytes)
@_describe.register(range)
@_describe.register(slice)
@_describe.register(type(Ellipsis))
@_describe.register(PurePath)
@_describe.register(torch.dtype)
@_describe.register(torch.device)
@_describe.register(np.dtype)
@_describe.register(np.generic)
def _(value: Any, where: str) -> Any:
    return {type(value).__name__: repr(value)}


@_describe.register
def _(value: enum.Enum, where: str) -> Any:
    return {"enum": _describe(type(value), where), "name": value.name}


@_describe.register(list)
@_describe.register(tuple)
def _(value: Sequence[Any], where: str) -> Any:
    return {_name(type(value)): [_describe(member, f"{where}[{index}]") for index, member in enumerate(value)]}


@_describe.register(set)
@_describe.register(frozenset)
def _(value: set[Any], where: str) -> Any:
    return {"set": sorted((_describe(member, where) for member in value), key=json.dumps)}


@_describe.register(Mapping)
def _(value: Mapping[Any, Any], where: str) -> Any:
    pairs = [[_describe(key, where), _describe(held, f"{where}[{key!r}]")] for key, held in value.items()]
    return {_name(type(value)): sorted(pairs, key=lambda pair: json.dumps(pair[0], sort_keys=True))}


@_describe.register(np.ndarray)
def _(value: NDArray[Any], where: str) -> Any:
    if value.dtype.hasobject:
        return {"array": value.shape, "members": _describe(value.ravel().tolist(), where)}
    return {"array": [str(value.dtype), value.shape], "content": _digest(np.ascontiguousarray(value).tobytes())}


@_describe.register
def _(value: torch.Tensor, where: str) -> Any:
    content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return {"tensor": [str(value.dtype), value.shape], "content": _digest(content.tobytes())}


@_describe.register(functools.partial)
def _(value: functools.partial[Any], where: str) -> Any:
    return {"partial": _describe([value.func, value.args, value.keywords], where)}


@_describe.register
def _(value: types.MethodType, where: str) -> Any:
    return {"method": value.__name__, "of": _describe(value.__self__, where)}


@_describe.register(types.BuiltinFunctionType)
@_describe.register(types.MethodDescriptorType)
@_describe.register(np.ufunc)
def _(value: Any, where: str) -> Any:
    owner = getattr(value, "__self__", None)
    bound = None if owner is None or inspect.ismodule(owner) else _describe(owner, where)
    return {"builtin": f"{getattr(value, '__module__', '')}.{value.__name__}", "of": bound}


@_describe.register
def _(value: types.ModuleType, where: str) -> Any:
    return {
        "module": value.__name__,
        "version": str(getattr(value, "__version__", "")),
        "source": _source(value.__name__),
    }


@_describe.register
def _(value: types.FunctionType, where: str) -> Any:
    """By its code and what that refers to; code from a file by that file, which holds its helpers too."""
    code = value.__code__
    held = [value.__defaults__, value.__kwdefaults__, *(cell.cell_contents for cell in value.__closure__ or ())]
    if Path(code.co_filename).is_file():
        beyond: Any = _file_digest(code.co_filename)
    else:  # an expression in a bundle
        beyond = {name: _describe(used, f"{where}: {name}") for name, used in _globals(value).items()}
    return {"function": _name(value), "code": _describe(code, where), "holds": _describe(held, where), "beyond": beyond}


@_describe.register
def _(value: types.CodeType, where: str) -> Any:
    return {"code": _digest(value.co_code), "names": value.co_names, "constants": _describe(value.co_consts, where)}


@_describe.register
def _(value: type, where: str) -> Any:
    """By name and the source of its module and those of its bases."""
    if value.__module__ == "__main__" and not _is_python(value):  # typed at a prompt
        raise _indescribable(value, where)
    return {"class": _name(value), "sources": [_source(base.__module__) for base in value.__mro__]}


def _globals(function: types.FunctionType) -> dict[str, Any]:
    """The globals that a function uses; of a bundle's resolved references only those it names."""
    codes = [function.__code__]
    for code in codes:  # grows by functions within
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    names = {name for code in codes for name in code.co_names}
    texts = {constant for code in codes for constant in code.co_consts if isinstance(constant, str)}
    used = {name: function.__globals__[name] for name in names & function.__globals__.keys()}
    references = used.pop(_BUNDLE_REFERENCES, {})
    return {**used, **{f"@{name}": references[name] for name in texts & references.keys()}}


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _is_python(kind: type) -> bool:
    return (_file(kind.__module__) or "").endswith((".py", ".pyc"))


def _source(module: str) -> str | None:
    """Digest of a module's file; None for one built into Python."""
    file = _file(module)
    return _file_digest(file) if file else None


def _file(module: str) -> str | None:
    return getattr(sys.modules.get(module), "__file__", None)


@functools.cache
def _file_digest(path: str) -> str:
    return _digest(Path(path).read_bytes())


def _indescribable(value: Any, where: str) -> ConfigError:
    return ConfigError(
        "cannot tell whether a cached result of this would still be right",
        expected="plain values, containers, arrays, functions, and objects of classes from a module",
        found=f"{_name(type(value)) if not isinstance(value, type) else _name(value)} in {where}",
        hint="leave cache_dir out, or put the class into a module and what cannot be described out of its attributes",
    )
