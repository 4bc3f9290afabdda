"""Where known checkpoints are kept, and how they get there."""

from __future__ import annotations

import re
from pathlib import Path

from topolora_monai.errors import CheckpointError, ConfigError
from topolora_monai.weights.known import KNOWN_CHECKPOINTS, known_checkpoint
from topolora_monai.weights.reading import checkpoint_origin

__all__ = ["fetch_checkpoint", "find_checkpoint", "published_name", "weights_folder", "weights_record"]


def weights_folder() -> Path:
    """Default folder of fetched checkpoints, below the user's cache."""
    from topolora_monai.io.places import user_cache  # noqa: PLC0415 - the readers of images take seconds to import

    return user_cache() / "weights"


def find_checkpoint(weights: str | Path) -> Path:
    """Path of a checkpoint that is given by its path or by the name of a known one.

    Args:
        weights: path of a file, or a key of :data:`KNOWN_CHECKPOINTS` whose file has been fetched.

    Raises:
        CheckpointError: if there is no such file; says how to get it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "base.pth"
        >>> path.touch()
        >>> find_checkpoint(path) == path
        True
    """
    from topolora_monai.io.regular import FILE, path_kind, require_file  # noqa: PLC0415 - see weights_folder

    path = Path(weights)
    if path_kind(path) == FILE:
        return path
    if str(weights) not in KNOWN_CHECKPOINTS:
        require_file(
            path,
            CheckpointError,
            missing="checkpoint not found",
            hint="give --weights the path of a downloaded file, or a name that `topolora weights list` shows",
        )
    known = KNOWN_CHECKPOINTS[str(weights)]
    fetched = weights_folder() / known.file_name
    if not fetched.is_file():
        raise CheckpointError(
            f"checkpoint {known.name} has not been fetched",
            path=fetched,
            hint=f"run `topolora weights fetch {known.name}`"
            if known.url
            else f"{known.notes}, and give --weights its path",
        )
    return fetched


def published_name(weights: str | Path) -> str | None:
    """Name of the known checkpoint that a file is, or was converted from; None for any other.

    Args:
        weights: as of :func:`find_checkpoint`.

    Raises:
        CheckpointError: if there is no such file, or a ``.safetensors`` file is damaged.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "base.pth"
        >>> path.touch()
        >>> published_name(path)
    """
    from topolora_monai.io.download import file_sha256  # noqa: PLC0415 - see weights_folder

    path = find_checkpoint(weights)
    if path != Path(weights):
        return str(weights)
    converted_from = checkpoint_origin(path).get("name")
    if converted_from in KNOWN_CHECKPOINTS:
        return str(converted_from)
    size = path.stat().st_size
    alike = [known for known in KNOWN_CHECKPOINTS.values() if known.size == size and known.sha256]
    sha256 = file_sha256(path) if alike else None  # which takes seconds of a large file
    return next((known.name for known in alike if known.sha256 == sha256), None)


def weights_record(weights: str | Path | None) -> str | None:
    """What a run says of its ``weights``, to find them again from any folder: a name as it is, a file's whole path."""
    if weights is None:
        return None
    return str(Path(weights).absolute()) if Path(weights).is_file() else str(weights)


def fetch_checkpoint(name: str, folder: str | Path | None = None, sha256: str | None = None) -> Path:
    """Download a known checkpoint; a second call goes on where one stopped, or keeps what is whole.

    Args:
        name: a key of :data:`KNOWN_CHECKPOINTS`.
        folder: where to; by default :func:`weights_folder`.
        sha256: expected checksum, hexadecimal, for a file of which none is known.

    Returns:
        Path of the file, whose SHA-256 has been compared.

    Raises:
        ConfigError: for an unknown name, where no checksum is known or given, or where another one is known.
        CheckpointError: if the owners offer no plain address.
        DataError: if the address cannot be reached, the transfer stops, or the content is another.
        OutputError: if the file cannot be written.
    """
    from topolora_monai.io.download import download_file  # noqa: PLC0415 - see weights_folder

    known = known_checkpoint(name)
    if known.url is None:
        raise CheckpointError(
            f"checkpoint {name} cannot be downloaded without you",
            path=known.file_name,
            found="no plain address of its owners",
            hint=known.notes,
        )
    expected = _checksum(name, known.sha256, sha256)
    path = Path(folder or weights_folder()) / known.file_name
    download_file(known.url, path, expected)
    return path


def _checksum(name: str, known: str | None, given: str | None) -> str:
    given = given.lower() if given else None
    if given and not re.fullmatch(r"[0-9a-f]{64}", given):
        raise ConfigError("not a SHA-256", expected="64 hexadecimal digits", found=repr(given))
    if known and given and known != given:
        raise ConfigError(
            f"another SHA-256 of {name} is known", expected=known, found=given, hint="leave --sha256 away"
        )
    checksum = known or given
    if checksum is None:
        raise ConfigError(
            f"no SHA-256 of {name} is known, and nothing unpinned is fetched",
            hint="ask the owners for it and give --sha256",
        )
    return checksum
