"""Safetensors files with one JSON header: read without trust, written whole."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from topolora_monai.errors import AdapterFileError, first_line

_LARGEST_CONTENTS = 20_000_000  # bytes: names, shapes and header of a file; the largest network's take a twentieth
_LARGEST_HEADER = 1_000_000  # bytes: a thousand class names take a tenth


def read_header(path: str | Path, key: str, kind: str) -> dict[str, Any]:
    """Read the JSON header of a file, and none of its tensors.

    Args:
        path: the file; nothing in it is run.
        key: of the header in the file's metadata.
        kind: what the file should be, for an error.

    Raises:
        AdapterFileError: if the file is missing, damaged, or of another kind.
    """
    with _open(Path(path), kind) as file:
        metadata = file.metadata() or {}
    if key not in metadata:
        raise AdapterFileError(
            f"not {'an' if kind[0] in 'aeiou' else 'a'} {kind} of topolora_monai",
            path=path,
            expected=f"header {key}",
            found=", ".join(sorted(metadata)) or "no header",
            hint="base checkpoints are given by --weights",
        )
    return parse_header(metadata[key], path, kind)


def parse_header(text: str, path: str | Path, kind: str) -> dict[str, Any]:
    """The object that a header's JSON text stands for; what is longer than any model needs is not parsed.

    Raises:
        AdapterFileError: if it is too long, no JSON, no object, or says something twice.
    """
    if len(text) > _LARGEST_HEADER:
        raise _too_long(f"header of the {kind} file", path, f"{_LARGEST_HEADER:,} characters", len(text))
    try:
        header = json.loads(text, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise AdapterFileError(
            f"header of the {kind} file is damaged",
            path=path,
            expected="JSON",
            found=str(error)[:200],
            hint="copy it again",
        ) from error
    if not isinstance(header, dict):
        raise AdapterFileError(
            f"header of the {kind} file is damaged", path=path, expected="a JSON object", found=type(header).__name__
        )
    return header


def read_tensors(path: str | Path, kind: str) -> dict[str, Tensor]:
    """Read all tensors into memory of their own, so that the file may change afterwards.

    Raises:
        AdapterFileError: if the file is missing or damaged.
    """
    path = Path(path)
    with _open(path, kind) as file:
        try:
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError, ValueError, KeyError, AttributeError, RuntimeError) as error:
            raise _damaged(path, kind, error) from error


def count_tensors(path: str | Path, kind: str) -> tuple[int, int]:
    """Number of tensors and of their elements, from the file's contents alone; errors as of :func:`read_tensors`."""
    with _open(Path(path), kind) as file:
        sizes = [torch.Size(file.get_slice(name).get_shape()).numel() for name in file.keys()]  # noqa: SIM118
    return len(sizes), sum(sizes)


def non_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that hold an infinite value or none at all.

    Example:
        >>> non_finite({"a": torch.tensor([1.0]), "b": torch.tensor([float("nan")])})
        ['b']
    """
    return sorted(name for name, tensor in state.items() if not torch.isfinite(tensor).all())


def _open(path: Path, kind: str) -> Any:
    from topolora_monai.io.regular import require_file  # noqa: PLC0415 - the readers of images take seconds to import

    require_file(path, AdapterFileError, missing=f"{kind} file not found", hint="give the path of a .safetensors file")
    try:
        _check_contents(path, kind)
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, kind, error) from error


def _check_contents(path: Path, kind: str) -> None:
    """Refuse a table of contents that would take minutes to read; the format gives its length first."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
    if _LARGEST_CONTENTS < length <= path.stat().st_size:  # beyond the file's end it is damaged, which shows anyway
        raise _too_long(f"table of contents of the {kind} file", path, f"{_LARGEST_CONTENTS:,} bytes", length)


def _too_long(what: str, path: str | Path, most: str, found: int) -> AdapterFileError:
    return AdapterFileError(
        f"{what} is too long",
        path=path,
        expected=f"at most {most}",
        found=f"{found:,}",
        hint="the file is damaged or hostile; take another one",
    )


def _damaged(path: Path, kind: str, error: Exception) -> AdapterFileError:
    pickled = path.suffix.lower() in (".pt", ".pth", ".ckpt")
    return AdapterFileError(
        f"{kind} file is damaged or not a safetensors file",
        path=path,
        found=first_line(error),
        hint="pickled files are not read; take the .safetensors file of the run" if pickled else "copy it again",
    )


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which readers differ on the entry that counts where a name comes twice."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)[:50]!r} is said twice")
    return entries
