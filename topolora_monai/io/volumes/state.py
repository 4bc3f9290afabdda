"""What tells a changed volume from the one that was read before."""

from __future__ import annotations

from pathlib import Path

__all__ = ["volume_state"]


def volume_state(path: str | Path) -> tuple[tuple[str, int, int], ...]:
    """What changes when a file does, or a file of a folder: name, time of change in ns, bytes.

    Raises:
        OSError: if it is missing.
    """
    path = Path(path)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
