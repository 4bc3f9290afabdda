"""What a path leads to, asked before anything is opened: a named pipe would be waited for, without end."""

import os
import stat
from pathlib import Path

from topolora_monai.errors import DataError, TopoLoRAError

FILE, FOLDER = "a file", "a folder"

_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: FOLDER,
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_LARGEST_LIST = 8 * 2**30  # bytes; the largest public annotation files have 5 GB
_LONGEST_NAME, _LONGEST_PATH = 255, 4095  # bytes, on Linux; elsewhere less is allowed
_SHOWN = 200


def path_kind(path: str | Path) -> str | None:
    """``"a file"``, ``"a folder"``, ``"a named pipe"``, ``"a socket"`` or ``"a device"``; None for what is not there.

    Links are followed. A name that no file can have is not there.

    Example:
        >>> path_kind(Path.cwd()), path_kind("no such file"), path_kind("n" * 5000), path_kind("nul" + chr(0))
        ('a folder', None, None, None)
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - a path with NUL
    except (OSError, ValueError):
        return None
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def require_file(
    path: str | Path,
    error: type[TopoLoRAError] = DataError,
    *,
    missing: str = "file not found",
    hint: str = "check the path and that the disk is mounted",
    folders: bool = False,
) -> None:
    """Make sure that a path leads to a file, whose reading comes to an end, or with ``folders`` to a folder.

    A ``TopoLoRAError``, of the class ``error``, saying what is there instead; ``missing`` and ``hint`` where nothing
    is.
    """
    kind = path_kind(path)
    if kind == FILE or (folders and kind == FOLDER):
        return
    unusable = unusable_name(str(path))
    if unusable:
        raise error("no file can have this name", path=shortened(str(path)), found=unusable, hint=hint)
    if kind is None:
        raise error(missing, path=path, hint=hint)
    raise error(
        "not a file",
        path=path,
        expected="a file or a folder" if folders else "a file",
        found=kind,
        hint="give a file" if kind == FOLDER else "write what comes out of it to a file, and give that",
    )


def require_list(path: str | Path) -> None:
    """As :func:`require_file`, for a list or annotations, which are read whole; refuses what is larger than any."""
    require_file(path)
    size = Path(path).stat().st_size
    if size > _LARGEST_LIST:
        raise DataError(
            "file is too large for a list",
            path=path,
            expected=f"at most {_LARGEST_LIST:,} bytes",
            found=f"{size:,}",
            hint="divide it, or check that it is the file you mean",
        )


def unusable_name(path: str) -> str | None:
    """What keeps any file from having this path; None for a usable one.

    Example:
        >>> unusable_name("images/a.png"), unusable_name("a" + chr(0)), unusable_name("n" * 5000)
        (None, 'a NUL character', 'a name of 5000 characters')
    """
    if "\0" in path:
        return "a NUL character"
    try:
        longest = max(map(len, os.fsencode(path).split(b"/")))
    except UnicodeEncodeError:
        return "characters that are no text"
    if longest > _LONGEST_NAME or len(os.fsencode(path)) > _LONGEST_PATH:
        return f"a name of {max(map(len, path.split('/')))} characters"
    return None


def shortened(path: str) -> str:
    """A path for a message: without what terminals do not show, and not too long."""
    shown = path if path.isprintable() else ascii(path)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
