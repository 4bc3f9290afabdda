"""Several adapters on one base in one process, chosen request by request."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from topolora_monai.adapters.files import build_as_stored, check_base, load_adapter, read_spec
from topolora_monai.errors import ConfigError, unknown_choice
from topolora_monai.spec import ModelSpec

_CLASS_TOKENS = "mask_decoder.class_tokens"  # copies of a mask token to begin with, made anew for each network


@dataclass(frozen=True)
class _Entry:
    network: nn.Module
    spec: ModelSpec | None
    lock: Any = field(default_factory=threading.RLock)


class AdapterLibrary:
    """Networks that share the memory of one base and differ in what was trained.

    Each adapter has a network object of its own whose frozen parameters are the base's tensors, so that choosing
    one is looking it up, whatever methods, ranks and sizes the others have. Memory is that of the base plus the
    adapters; building a network takes that of another base for a moment. The base is never changed.

    Requests for different adapters run side by side, those for the same one in turn: networks may keep
    intermediate results between their layers. Adapters may be loaded, replaced and dropped meanwhile; a request
    under way finishes on the network it began with.

    Args:
        base: a freshly built network with its weights, on any device; put into evaluation mode.

    Example:
        >>> import tempfile, torch
        >>> from topolora_monai.adapters import adapt, preset_config, save_adapter
        >>> from topolora_monai.networks import build_network
        >>> path = Path(tempfile.mkdtemp()) / "vessels.safetensors"
        >>> adaptation = adapt(build_network("vit_tiny_test", image_size=64), preset_config("lora"))
        >>> save_adapter(adaptation, path, image_size=64)
        >>> library = AdapterLibrary(build_network("vit_tiny_test"))
        >>> library.load("vessels", path)
        >>> library.names
        ('base', 'vessels')
        >>> with library.use("vessels") as network, torch.inference_mode():
        ...     network(torch.rand(1, 3, 40, 50)).shape
        torch.Size([1, 1, 40, 50])
    """

    BASE = "base"
    """Name of the base without any adapter."""

    def __init__(self, base: nn.Module) -> None:
        self._base = base.eval()
        self._entries: dict[str, _Entry] = {self.BASE: _Entry(self._base, None)}

    @property
    def names(self) -> tuple[str, ...]:
        """What can be used, the base first."""
        return tuple(self._entries)

    def spec(self, name: str) -> ModelSpec | None:
        """What the adapter's file says; None for the base, a :class:`ConfigError` for an unknown name."""
        return self._entry(name).spec

    def load(self, name: str, path: str | Path) -> None:
        """Load an adapter file for this base under a name; one of the same name is replaced.

        Sizes, channels and classes may be others than the base was built with.

        Raises:
            ConfigError: if the name is that of the base.
            AdapterFileError: if the file is damaged or belongs to another base; what was loaded stays.
        """
        if name == self.BASE:
            raise ConfigError(f"{self.BASE} is the network without adapter", hint="choose another name")
        spec = read_spec(path)
        self._entries[name] = _Entry(self._adapted(spec, path), spec)

    def drop(self, name: str) -> None:
        """Forget an adapter, so that its memory is free once no request uses it.

        Raises:
            ConfigError: for an unknown name or the base.
        """
        if name == self.BASE:
            raise ConfigError("the base cannot be dropped", hint="drop the library")
        self._entry(name)
        self._entries.pop(name, None)

    @contextmanager
    def use(self, name: str) -> Iterator[nn.Module]:
        """The network of an adapter or of :attr:`BASE`, for one request at a time; not to be changed or moved.

        It is in evaluation mode, on the base's device.

        Raises:
            ConfigError: for an unknown name.
        """
        entry = self._entry(name)
        with entry.lock:
            yield entry.network

    def _entry(self, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is None:
            raise unknown_choice("adapter", name, self.names)
        return entry

    def _adapted(self, spec: ModelSpec, path: str | Path) -> nn.Module:
        check_base(self._base, spec, path)
        network = build_as_stored(spec, path)
        _share(self._base, network)
        load_adapter(network, path)
        device = next(self._base.parameters()).device
        return network.to(device).requires_grad_(False).eval()


def _share(base: nn.Module, network: nn.Module) -> None:
    """Put the base's tensors in the place of the network's own; what the base does not have is left."""
    own = network.state_dict()
    shared = {
        name: tensor
        for name, tensor in base.state_dict().items()
        if name != _CLASS_TOKENS and name in own and own[name].shape == tensor.shape
    }
    network.load_state_dict(shared, strict=False, assign=True)
    if _CLASS_TOKENS in own:
        decoder: Any = network.get_submodule("mask_decoder")
        decoder.reset_class_tokens()
