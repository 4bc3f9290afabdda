"""Adapter files: safetensors with a JSON header that ties them to one base."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import topolora_monai
from topolora_monai.adapters.adapt import Adaptation, adapt
from topolora_monai.adapters.config import AdaptationConfig
from topolora_monai.adapters.tensor_files import non_finite, parse_header, read_header, read_tensors, write_tensors
from topolora_monai.errors import AdapterFileError, ConfigError
from topolora_monai.spec import MODEL_FORMAT, ModelSpec
from topolora_monai.weights import KNOWN_CHECKPOINTS

__all__ = [
    "adapt_as_stored",
    "adapter_state",
    "build_as_stored",
    "check_fit",
    "describe_model",
    "is_complete",
    "load_adapter",
    "read_adapter_header",
    "read_adapter_tensors",
    "read_spec",
    "save_adapter",
]

_HEADER_KEY = "topolora_monai"
_LONGEST_TEXT = 2_000_000  # characters; more than a header may have, whose own check then tells


def adapter_state(network: nn.Module) -> dict[str, Tensor]:
    """Everything training changes: trainable parameters and the buffers of modules that have some."""
    state: dict[str, Tensor] = {}
    for prefix, module in network.named_modules():
        own = {name: p for name, p in module.named_parameters(prefix, recurse=False) if p.requires_grad}
        state.update((name, p.detach()) for name, p in own.items())
        if own:
            kept = module.state_dict(prefix=f"{prefix}." if prefix else "").keys()
            buffers = module.named_buffers(prefix, recurse=False)
            state.update((name, buffer.detach()) for name, buffer in buffers if name in kept)
    return state


def save_adapter(adaptation: Adaptation, path: str | Path, /, **properties: Any) -> None:
    """Write an adapter file beside its place and rename it.

    Args:
        adaptation: the adapted network.
        path: where to; by custom ending in ``.safetensors``.
        **properties: what a user of the file needs to know, as plain JSON types: entries of
            :class:`~topolora_monai.model.ModelSpec` (``labels``, ``crop_size``, ``threshold``), and any others. What
            the network was built with is known without them.

    Raises:
        AdapterFileError: for a property that no file could be read with.
        OSError: if the file cannot be written; an older one is left as it was.
    """
    spec = describe_model(adaptation, path, **properties)
    write_tensors(adapter_state(adaptation.network), path, _HEADER_KEY, spec.to_header())


def describe_model(adaptation: Adaptation, path: str | Path, /, **properties: Any) -> ModelSpec:
    """What :func:`save_adapter` would write of a network, which is worth knowing before it is trained.

    Raises:
        AdapterFileError: for a property that no file could be read with.
    """
    header = {
        **getattr(adaptation.network, "settings", {}),
        **properties,
        "format": MODEL_FORMAT,
        "package_version": topolora_monai.__version__,
        "network_name": adaptation.base_name,
        "base_sha256": adaptation.base_sha256,
        "adaptation": adaptation.config.to_dict(),
    }
    return ModelSpec.from_header(json.loads(json.dumps(header)), path)


def read_spec(path: str | Path) -> ModelSpec:
    """What an adapter file, or a released bundle's ``model.json``, says of its model; no tensor is read.

    Raises:
        AdapterFileError: if the file is missing, damaged, or not an adapter of this package, or an entry is missing
            or not possible.
    """
    if Path(path).suffix.lower() == ".json":
        return ModelSpec.from_header(_read_json_header(Path(path)), path)
    return ModelSpec.from_header(read_header(path, _HEADER_KEY, "adapter"), path)


def read_adapter_header(path: str | Path) -> dict[str, Any]:
    """What :func:`read_spec` reads, as plain JSON types: the file's entries, and defaults for those it lacks.

    Raises:
        AdapterFileError: as :func:`read_spec`.
    """
    return read_spec(path).to_header()


def read_adapter_tensors(path: str | Path) -> dict[str, Tensor]:
    """Tensors of an adapter file by name, on the CPU, in memory of their own.

    Raises:
        AdapterFileError: if the file is missing or damaged.
    """
    return read_tensors(path, "adapter")


def load_adapter(network: nn.Module, path: str | Path) -> Adaptation:
    """Adapt a freshly built base as the file says and load its weights strictly.

    Args:
        network: the base the adapter was trained on, with the same weights unless the file holds them all;
            changed in place. What the file holds takes new memory: tensors that the network shares with
            another one are never written to.
        path: an adapter file.

    Returns:
        The adapted network, in the mode it came in.

    Raises:
        AdapterFileError: if the file is damaged, belongs to another base, a key is missing or unexpected, or a
            value is not finite.
    """
    spec, state = read_spec(path), read_adapter_tensors(path)
    adaptation = adapt_as_stored(network, spec, state, path)
    if adaptation.base_sha256 != spec.base_sha256 and not is_complete(network):
        fetch = f"run `topolora weights fetch {spec.checkpoint}`, or " if spec.checkpoint in KNOWN_CHECKPOINTS else ""
        raise AdapterFileError(
            "adapter is for other base weights",
            path=path,
            expected=f"base with SHA-256 {spec.base_sha256[:16]}...",
            found=f"{adaptation.base_sha256[:16]}...",
            hint=fetch + "give --weights the checkpoint that the adapter was trained on",
        )
    placed = {name: state[name].to(tensor.device) for name, tensor in adapter_state(network).items()}
    network.load_state_dict(placed, strict=False, assign=True)  # completeness is checked against the adapter's own keys
    return adaptation


def build_as_stored(spec: ModelSpec, build: Callable[..., nn.Module], path: str | Path, **given: Any) -> nn.Module:
    """The network that an adapter is for, before it is adapted.

    Args:
        spec: of the adapter file.
        build: makes it, as :func:`~topolora_monai.networks.build_network`.
        path: the file, for an error.
        **given: further arguments of ``build``, such as ``weights``.

    Raises:
        AdapterFileError: if no network can have these settings.
        CheckpointError: if ``weights`` cannot be used.
    """
    try:
        return build(**spec.network_settings, **given)
    except ConfigError as error:
        raise AdapterFileError("network of the adapter cannot be built", path=path, found=error) from error


def adapt_as_stored(network: nn.Module, spec: ModelSpec, state: dict[str, Tensor], path: str | Path) -> Adaptation:
    """Adapt a freshly built network as a model's, and make sure that the file's tensors fit; none is loaded.

    Args:
        network: of the model's ``network_name``, with any weights; changed in place.
        spec: of the adapter file.
        state: its tensors.
        path: the file, for an error.

    Raises:
        AdapterFileError: if the network is another one, the settings cannot be used, a key is missing or
            unexpected, a shape or type differs, or a value is not finite.
    """
    found_name = getattr(network, "base_name", "custom")
    if spec.network_name != found_name:
        raise AdapterFileError(
            "adapter is for another network",
            path=path,
            expected=spec.network_name,
            found=found_name,
            hint=f"build the network with network_name {spec.network_name}",
        )
    try:
        adaptation = adapt(network, AdaptationConfig.from_dict(dict(spec.adaptation)))
    except (ConfigError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise AdapterFileError("settings of the adapter cannot be used", path=path, found=error) from error
    check_fit(adapter_state(network), state, path)
    return adaptation


def is_complete(network: nn.Module) -> bool:
    """Whether adapting left nothing of the base, so that its weights do not matter."""
    return all(parameter.requires_grad for parameter in network.parameters())


def _read_json_header(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return parse_header(stream.read(_LONGEST_TEXT), path, "model")
    except OSError as error:
        raise AdapterFileError(
            "model file cannot be read", path=path, found=error.strerror, hint="copy the whole bundle again"
        ) from error


def check_fit(
    wanted: dict[str, Tensor],
    state: dict[str, Tensor],
    path: str | Path,
    what: str = "adapter",
    hint: str = "export it again, or take an earlier one",
) -> None:
    """Make sure that tensors of a file are those of a network, and finite.

    Args:
        wanted: of the network, by name.
        state: of the file.
        path: the file, for an error.
        what: it is, likewise.
        hint: what to do if it does not fit.

    Raises:
        AdapterFileError: if a name is missing or unexpected, a shape or type differs, or a value is not finite.
    """
    missing, unexpected = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    both = wanted.keys() & state.keys()
    changed = sorted(key for key in both if _form(wanted[key]) != _form(state[key]))
    if missing or unexpected or changed:
        raise AdapterFileError(
            f"{what} does not fit the network",
            path=path,
            expected=f"{len(wanted)} tensors",
            found=f"missing {missing or 'none'}; unexpected {unexpected or 'none'};"
            f" other shape or type {changed or 'none'}",
            hint=f"the file is damaged or was edited; {hint}",
        )
    broken = non_finite(state)
    if broken:
        raise AdapterFileError(
            f"{what} holds values that are not finite",
            path=path,
            found=", ".join(broken[:3]) + (f" and {len(broken) - 3} more" if len(broken) > 3 else ""),
            hint=f"its training diverged or the file is damaged; {hint}",
        )


def _form(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype
