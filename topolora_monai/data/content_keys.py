"""Names for what settings hold, the same in every process and never shared by different settings."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from topolora_monai.errors import ConfigError

__all__ = ["content_key"]

_DEFAULT_MAKE = object().__reduce_ex__(2)[0]
"""What pickle makes an object with that is no more than its class and attributes."""


def content_key(value: Any) -> str:
    """A name for what a value holds: equal for equal content in any process, another for any other content.

    Lists and tuples of equal members are equal; the order of a mapping does not count.

    Args:
        value: texts, numbers, None, data types, lists and mappings of these, and objects that are no more than
            their attributes, which count together with the source of their classes' modules.

    Returns:
        64 hexadecimal digits.

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


def _describe(value: Any, where: str) -> Any:
    """What JSON can hold of a value.

    Args:
        value: anything.
        where: how it was reached, for messages.
    """
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
