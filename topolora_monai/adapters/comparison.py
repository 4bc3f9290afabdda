"""What differs between two adapter files."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from topolora_monai.adapters.files import read_adapter_tensors, read_spec

__all__ = ["AdapterComparison", "GroupComparison", "compare_adapters"]


@dataclass(frozen=True)
class GroupComparison:
    """Tensors of one part of the network in two files, each taken as one long vector.

    Args:
        group: the part, such as ``image_encoder lora_A``.
        tensors: number of tensors that both files have in the same shape.
        norms: Euclidean norm in either file.
        relative_difference: norm of the difference over the larger of the two norms; 0 for equal ones.
        cosine: of the angle between the two; NaN where one is zero.
    """

    group: str
    tensors: int
    norms: tuple[float, float]
    relative_difference: float
    cosine: float


@dataclass(frozen=True)
class AdapterComparison:
    """Two adapter files held against each other.

    Args:
        settings: name of an entry of the header that differs (nested ones joined by dots) to its two values,
            None where a file has none.
        groups: the tensors that can be compared, part by part.
        only_first: names of tensors that only the first file has.
        only_second: names of tensors that only the second file has.
        reshaped: names of tensors that differ in shape or type.
        equal: whether nothing differs, to the bit.
    """

    settings: dict[str, tuple[Any, Any]]
    groups: list[GroupComparison]
    only_first: list[str]
    only_second: list[str]
    reshaped: list[str]
    equal: bool


def compare_adapters(first: str | Path, second: str | Path) -> AdapterComparison:
    """Compare headers and tensors of two adapter files.

    The two factors of a low-rank update are compared as they are stored, though another pair of factors can
    have the same product.

    Raises:
        AdapterFileError: if a file is missing, damaged, or not an adapter of this package.
    """
    settings = _differing(read_spec(first).to_header(), read_spec(second).to_header())
    a, b = read_adapter_tensors(first), read_adapter_tensors(second)
    both = sorted(a.keys() & b.keys())
    comparable = [name for name in both if (a[name].shape, a[name].dtype) == (b[name].shape, b[name].dtype)]
    only_first, only_second = sorted(a.keys() - b.keys()), sorted(b.keys() - a.keys())
    reshaped = sorted(set(both) - set(comparable))
    same_values = all(torch.equal(a[name], b[name]) for name in comparable)
    return AdapterComparison(
        settings,
        list(_groups(a, b, comparable)),
        only_first,
        only_second,
        reshaped,
        equal=same_values and not (settings or only_first or only_second or reshaped),
    )


def _differing(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    first, second = dict(_flat(a)), dict(_flat(b))
    names = list(first) + [name for name in second if name not in first]
    pairs = {name: (first.get(name), second.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _groups(a: dict[str, Tensor], b: dict[str, Tensor], names: Iterable[str]) -> Iterator[GroupComparison]:
    members: dict[str, list[str]] = defaultdict(list)
    for name in names:
        members[_group(name)].append(name)
    for group, own in sorted(members.items()):
        norm_a, norm_b = _norm(a[name] for name in own), _norm(b[name] for name in own)
        difference = _norm(a[name].double() - b[name].double() for name in own)
        product = math.fsum(float((a[name].double() * b[name].double()).sum()) for name in own)
        largest = max(norm_a, norm_b)
        yield GroupComparison(
            group,
            len(own),
            (norm_a, norm_b),
            difference / largest if largest else 0.0,
            product / (norm_a * norm_b) if norm_a and norm_b else math.nan,
        )


def _group(name: str) -> str:
    """Part of the network and factor of a low-rank update: ``image_encoder lora_A``, ``mask_decoder.iou_token``."""
    parts = name.split(".")
    factor = next((part for part in parts if part.startswith("lora_")), None)
    return f"{parts[0]} {factor}" if factor else ".".join(parts[:2])


def _norm(tensors: Iterable[Tensor]) -> float:
    return math.sqrt(math.fsum(float(tensor.double().square().sum()) for tensor in tensors))
