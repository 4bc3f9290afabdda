"""Names that clients send and that become part of a path."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from topolora_monai.errors import ConfigError

RESULT_SUFFIXES = (".png", ".tif", ".tiff", ".nii", ".nii.gz", ".nrrd")
"""Kinds of label files that are written and taken, in lower case."""
LABEL_SUFFIXES = (*RESULT_SUFFIXES, ".seg.nrrd")
"""Endings of label files that are kept; the last is how 3D Slicer names its segmentations."""

_LONGEST = 200
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f/\\:*?\"<>|\u2044\u2215\u2216\u29f5\u29f8\u29f9]")  # and likenesses of slashes
_ENCODED = re.compile(r"%([0-9a-f]{2}|u[0-9a-f]{4})", re.IGNORECASE)


class RefusedNameError(ConfigError):
    """A name that could lead out of the folder it belongs to."""


def checked_name(name: str, kind: str) -> str:
    """A name of an image, label, tag, session or model, percent-decoded once, that is safe as one component of a path.

    Raises:
        RefusedNameError: if it is empty or long, begins with a dot, or holds a separator, a colon, a control character,
            a percent-encoded character, or a character that Unicode takes for one of these.

    Example:
        >>> checked_name("21_training", "image")
        '21_training'
        >>> checked_name("../secret", "image")
        Traceback (most recent call last):
        ...
        topolora_monai.label_app.names.RefusedNameError: name of an image, label, tag, session or model is refused
          found:    image '../secret'
          to do:    take a name that the server lists, without folders
    """
    plain = unicodedata.normalize("NFKC", name)
    refused = (
        not name
        or len(name) > _LONGEST
        or any(text.startswith(".") or _FORBIDDEN.search(text) or _ENCODED.search(text) for text in (name, plain))
        or plain != plain.rstrip(" .")
    )
    if refused:
        raise RefusedNameError(
            "name of an image, label, tag, session or model is refused",
            found=f"{kind} {name[:80]!a}",
            hint="take a name that the server lists, without folders",
        )
    return name


def ending(file_name: str, known: Iterable[str]) -> str:
    """The longest of the known endings that a file's name has in any case; empty without one."""
    return max((suffix for suffix in known if file_name.lower().endswith(suffix)), key=len, default="")


def checked_suffix(file_name: str, allowed: tuple[str, ...], kind: str) -> str:
    """The ending of a file's name in lower case, one of those allowed.

    Raises:
        RefusedNameError: for another ending.

    Example:
        >>> checked_suffix("/tmp/a.b/21.NII.gz", RESULT_SUFFIXES, "label")
        '.nii.gz'
    """
    suffix = ending(file_name, allowed)
    if not suffix or "\0" in file_name:
        raise RefusedNameError(
            f"{kind} file of an unknown kind", expected=", ".join(allowed), found=ascii(Path(file_name).name[-40:])
        )
    return suffix


def inside(folder: Path, path: Path) -> bool:
    """Whether a path, with every symbolic link followed, lies in a folder.

    Example:
        >>> inside(Path("/studies"), Path("/studies/../etc/passwd"))
        False
    """
    return path.resolve().is_relative_to(folder.resolve())


def leads_out(path: str) -> bool:
    """Whether a path with folders, percent-encoded up to twice, may leave the one it is below.

    Example:
        >>> leads_out("studies/1.2/series"), leads_out("a/..%5c..%5csystem")
        (False, True)
    """
    plain = unicodedata.normalize("NFKC", unquote(unquote(path))).replace("\\", "/")
    return any(part in (".", "..") for part in plain.split("/"))
