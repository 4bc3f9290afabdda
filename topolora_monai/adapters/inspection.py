"""What adapter files hold, whether they can be relied on, how two differ, and what a preset costs."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from topolora_monai.adapters.adapt import prepare
from topolora_monai.adapters.config import PRESETS, AdaptationConfig, preset_config
from topolora_monai.adapters.files import (
    adapt_as_stored,
    adapter_state,
    build_as_stored,
    is_complete,
    load_adapter,
    read_adapter_tensors,
    read_spec,
    settings_as_stored,
)
from topolora_monai.adapters.released import find_adapter
from topolora_monai.adapters.tensor_files import count_tensors
from topolora_monai.networks import build_network
from topolora_monai.spec import ModelSpec


@dataclass(frozen=True)
class AdapterSummary:
    """An adapter file in numbers.

    Args:
        path: the file.
        sha256: of the file.
        size: in bytes.
        tensors: number of tensors.
        parameters: number of their elements.
        spec: what the file says of itself.
    """

    path: Path
    sha256: str
    size: int
    tensors: int
    parameters: int
    spec: ModelSpec


def describe_adapter(path: str | Path) -> AdapterSummary:
    """Read header and table of contents of an adapter file, and its checksum.

    Raises:
        AdapterFileError: if the file is missing, damaged, or not an adapter of this package.
    """
    from topolora_monai.io.download import file_sha256  # noqa: PLC0415 - image readers take seconds to import

    path = find_adapter(path)
    spec = read_spec(path)
    tensors, parameters = count_tensors(path, "adapter")
    return AdapterSummary(path, file_sha256(path), path.stat().st_size, tensors, parameters, spec)


def verify_adapter(path: str | Path, weights: str | Path | None = None) -> tuple[AdapterSummary, bool]:
    """Read an adapter file whole and hold it against the network it is for.

    Args:
        path: the file.
        weights: checkpoint of the base; with None its weights are not compared.

    Returns:
        The file, if it is sound, and whether the base's weights were at hand and are those it was trained on; otherwise
        only names, shapes and values were looked at.

    Raises:
        AdapterFileError: if the file is missing or damaged, its header lacks something, it does not fit the
            network, a value is not finite, or ``weights`` are not those it was trained on.
        CheckpointError: if ``weights`` cannot be read.

    Example:
        >>> import tempfile
        >>> from topolora_monai.adapters import adapt, save_adapter
        >>> file = Path(tempfile.mkdtemp()) / "adapter.safetensors"
        >>> save_adapter(adapt(build_network("vit_tiny_test"), preset_config("adapter_only")), file, crop_size=512)
        >>> verify_adapter(file)[0].tensors
        5
    """
    summary = describe_adapter(path)
    network = build_as_stored(summary.spec, path, weights=weights)
    if weights is not None:
        load_adapter(network, path)
        return summary, True
    adaptation = adapt_as_stored(network, summary.spec, read_adapter_tensors(path), path)
    return summary, adaptation.base_sha256 == summary.spec.base_sha256 or is_complete(network)


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
    """Compare headers and tensors of two adapter files; settings of adaptation by their present names and defaults.

    The two factors of a low-rank update are compared as they are stored, though another pair of factors can
    have the same product.

    Raises:
        AdapterFileError: if a file is missing, damaged, or not an adapter of this package, or its settings of
            adaptation are not known.
    """
    settings = _differing(_settings(first), _settings(second))
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


class PresetSummary(NamedTuple):
    """A :class:`Preset` on one base: how many parameters train, and how large its adapter file is.

    ``file_bytes`` are those of the tensors; the header adds a few kB. ``mergeable`` is as of :class:`AdaptationConfig`.
    """

    preset: str
    trains: str
    paper: str
    trainable: int
    file_bytes: int
    mergeable: str


def summarize_preset(preset: str, network_name: str) -> PresetSummary:
    """Count a preset on a base, without memory for its weights.

    Raises:
        ConfigError: for an unknown name, or a base that the preset does not fit.

    Example:
        >>> summary = summarize_preset("lora", "vit_tiny_test")
        >>> summary.file_bytes == 4 * summary.trainable, summary.mergeable
        (True, 'fully')
    """
    config = preset_config(preset)
    with torch.device("meta"):
        network = build_network(network_name)
        prepare(network, config)
    trainable = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    file_bytes = sum(tensor.nbytes for tensor in adapter_state(network).values())
    trains, paper, _ = PRESETS[preset]
    return PresetSummary(preset, trains, paper, trainable, file_bytes, config.mergeable)


def _settings(path: str | Path) -> dict[str, Any]:
    spec = read_spec(path)
    with settings_as_stored(path):
        adaptation = AdaptationConfig.from_dict(dict(spec.adaptation)).to_dict()
    return spec.to_header() | {"adaptation": json.loads(json.dumps(adaptation))}  # lists for tuples


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
