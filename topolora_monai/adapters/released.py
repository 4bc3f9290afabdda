"""Adapters that come with the package, by name, and files of half the size."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from topolora_monai.adapters.tensor_files import non_finite
from topolora_monai.errors import AdapterFileError, ConfigError

INDEX_FILE = "index.json"
"""What a folder of released adapters holds, with the checksums of its files."""
FOLDER = Path(__file__).with_name("released_files")


@dataclasses.dataclass(frozen=True)
class ReleasedAdapter:
    """One adapter that comes with the package.

    Attributes:
        name: that stands for its file wherever an adapter is asked for.
        sha256: of the file.
        network_name, checkpoint: of its base, by which that is found or fetched; of random weights without the latter.
        licence: of the adapter.
        data: trained on, with its terms and citation.
        folder: that it lies in.
    """

    name: str
    sha256: str
    network_name: str
    checkpoint: str | None
    licence: str
    data: str
    folder: Path

    @property
    def path(self) -> Path:
        """Its file."""
        return self.folder / f"{self.name}.safetensors"

    @property
    def card(self) -> Path:
        """What it is for, what it was trained on, how well it does, and its limits; Markdown."""
        return self.folder / f"{self.name}.md"

    def entry(self) -> dict[str, str | None]:
        """As the index has it."""
        fields = ("sha256", "network_name", "checkpoint", "licence", "data")
        return {field: getattr(self, field) for field in fields}


def released_adapters(folder: Path | None = None) -> dict[str, ReleasedAdapter]:
    """The adapters that come with the package, or lie in another such folder, by name.

    Raises:
        ConfigError: if the package's list of them is damaged.

    Example:
        >>> all(adapter.path.is_file() for adapter in released_adapters().values())
        True
    """
    from topolora_monai.io.json_files import read_json  # noqa: PLC0415 - the readers of images take seconds to import

    folder = FOLDER if folder is None else folder
    if not (folder / INDEX_FILE).is_file():
        return {}
    index = read_json(folder / INDEX_FILE, "install the package again")
    try:
        return {name: ReleasedAdapter(name, folder=folder, **entry) for name, entry in index.items()}
    except TypeError as error:
        raise ConfigError("list of adapters is damaged", path=folder / INDEX_FILE, found=error) from error


def find_adapter(adapter: str | Path) -> Path:
    """Path of an adapter that is given by its path or by the name of one that comes with the package.

    Args:
        adapter: path of a file, or a key of :func:`released_adapters`; a file of that name goes first.

    Raises:
        AdapterFileError: for a word that is neither, or if the named file is not what was released.

    Example:
        >>> find_adapter("runs/drive/adapter.safetensors").name
        'adapter.safetensors'
    """
    path = Path(adapter)
    try:
        is_path = bool(path.suffix) or len(path.parts) != 1 or path.exists()
    except OSError:  # a name that no file can have, which reading it tells
        is_path = True
    if is_path:
        return path
    known = released_adapters()
    if str(adapter) not in known:
        raise AdapterFileError(
            "neither an adapter file nor the name of one that comes with the package",
            path=adapter,
            expected=", ".join(known) or "a path, since none comes with this version",
            hint="`topolora adapter list` shows the names; of a run, give its folder or its adapter.safetensors",
        )
    from topolora_monai.io.download import file_sha256  # noqa: PLC0415 - see above

    released = known[str(adapter)]
    found = file_sha256(released.path) if released.path.is_file() else None
    if found != released.sha256:
        raise AdapterFileError(
            f"adapter {released.name} is not as it was released",
            path=released.path,
            expected=f"SHA-256 {released.sha256}",
            found=found or "no file",
            hint="install the package again",
        )
    return released.path


def is_released(adapter: str | Path) -> bool:
    """Whether an adapter is one that comes with the package, so that its base may be fetched for it."""
    return find_adapter(adapter).absolute().parent == FOLDER


def halved(state: Mapping[str, Tensor], path: str | Path) -> tuple[dict[str, Tensor], float]:
    """Tensors of an adapter in half the space: 32-bit numbers become 16-bit ones, which loading widens again.

    Args:
        state: the tensors.
        path: their file, for an error.

    Returns:
        The tensors, and the largest change of one, as a share of its norm.

    Raises:
        AdapterFileError: if a number is too large for 16 bits, or none at all.

    Example:
        >>> state, change = halved({"a": torch.tensor([1.0, 1 / 3])}, "a.safetensors")
        >>> state["a"].dtype, change < 2**-11
        (torch.float16, True)
    """
    small = {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in state.items()}
    broken = non_finite(small)
    if broken:
        raise AdapterFileError(
            "numbers of the adapter do not fit into 16 bits",
            path=path,
            expected="up to 65,504",
            found=", ".join(broken[:3]),
            hint="keep the file as it is",
        )
    rounded = ((state[name], one.float()) for name, one in small.items() if one.dtype == torch.float16)
    changes = ((tensor.float() - one).norm() / tensor.float().norm() for tensor, one in rounded if tensor.any())
    return small, max(map(float, changes), default=0.0)
