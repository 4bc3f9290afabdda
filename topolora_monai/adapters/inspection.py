"""What an adapter file holds, and whether it can be relied on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from topolora_monai.adapters.files import (
    adapt_as_stored,
    build_as_stored,
    is_complete,
    load_adapter,
    read_adapter_tensors,
    read_spec,
)
from topolora_monai.adapters.tensor_files import count_tensors
from topolora_monai.spec import ModelSpec

__all__ = ["AdapterSummary", "VerifiedAdapter", "describe_adapter", "verify_adapter"]


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


@dataclass(frozen=True)
class VerifiedAdapter:
    """An adapter file that passed.

    Args:
        summary: the file.
        base_checked: whether the base's weights were at hand and are those it was trained on; otherwise only
            names, shapes and values were looked at.
    """

    summary: AdapterSummary
    base_checked: bool


def describe_adapter(path: str | Path) -> AdapterSummary:
    """Read header and table of contents of an adapter file, and its checksum.

    Raises:
        AdapterFileError: if the file is missing, damaged, or not an adapter of this package.
    """
    from topolora_monai.io.download import file_sha256  # noqa: PLC0415 - image readers take seconds to import

    path = Path(path)
    spec = read_spec(path)
    tensors, parameters = count_tensors(path, "adapter")
    return AdapterSummary(path, file_sha256(path), path.stat().st_size, tensors, parameters, spec)


def verify_adapter(
    path: str | Path, build: Callable[..., nn.Module], weights: str | Path | None = None
) -> VerifiedAdapter:
    """Read an adapter file whole and hold it against the network it is for.

    Args:
        path: the file.
        build: makes the network, as :func:`~topolora_monai.networks.build_network`.
        weights: checkpoint of the base; with None its weights are not compared.

    Returns:
        What was found, if the file is sound.

    Raises:
        AdapterFileError: if the file is missing or damaged, its header lacks something, it does not fit the
            network, a value is not finite, or ``weights`` are not those it was trained on.
        CheckpointError: if ``weights`` cannot be read.

    Example:
        >>> import tempfile
        >>> from topolora_monai.adapters import adapt, preset_config, save_adapter
        >>> from topolora_monai.networks import build_network
        >>> file = Path(tempfile.mkdtemp()) / "adapter.safetensors"
        >>> save_adapter(adapt(build_network("vit_tiny_test"), preset_config("adapter_only")), file, crop_size=512)
        >>> verify_adapter(file, build_network).summary.tensors
        5
    """
    summary = describe_adapter(path)
    network = build_as_stored(summary.spec, build, path, weights=weights)
    if weights is not None:
        load_adapter(network, path)
        return VerifiedAdapter(summary, base_checked=True)
    adaptation = adapt_as_stored(network, summary.spec, read_adapter_tensors(path), path)
    same_base = adaptation.base_sha256 == summary.spec.base_sha256
    return VerifiedAdapter(summary, base_checked=same_base or is_complete(network))
