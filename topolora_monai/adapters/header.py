"""What the header of an adapter file has to say, and of which type."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from topolora_monai.errors import AdapterFileError

__all__ = ["FORMAT", "checked_header", "network_settings"]

FORMAT = 1
"""Number of the present format of adapter files."""

_Check = tuple[str, Callable[[Any], bool]]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_TEXT: _Check = ("text", lambda value: isinstance(value, str))
_WHOLE: _Check = ("a whole number from 1", _is_whole)

_REQUIRED: dict[str, _Check] = {
    "package_version": _TEXT,
    "network_name": _TEXT,
    "base_sha256": (
        "64 hexadecimal digits",
        lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None,
    ),
    "adaptation": ("an object", lambda value: isinstance(value, dict)),
}
_OPTIONAL: dict[str, _Check] = {
    "labels": (
        "a list of texts",
        lambda value: isinstance(value, list) and all(isinstance(label, str) for label in value),
    ),
    "image_size": _WHOLE,
    "crop_size": _WHOLE,
    "in_channels": _WHOLE,
    "out_channels": _WHOLE,
    "mask_tokens": _WHOLE,
    "bits": ("a whole number from 8 to 16", lambda value: _is_whole(value) and 8 <= value <= 16),
    "multiclass_head": _TEXT,
    "fit": _TEXT,
    "dataset": _TEXT,
    "threshold": ("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1),
    "threshold_by": _TEXT,
    "temperature": ("a number above 0", lambda value: _is_number(value) and value > 0),
    "pretrained": ("true or false", lambda value: isinstance(value, bool)),
}
_NETWORK = ("network_name", "image_size", "in_channels", "out_channels", "fit", "multiclass_head", "mask_tokens")


def checked_header(header: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """A header whose known entries are there and of the right type; further ones are left as they are.

    Args:
        header: as read; an optional entry may be None.
        path: the file, for an error.

    Raises:
        AdapterFileError: for a format that is not known, an entry that is missing, or a value of another type.
    """
    if header.get("format") != FORMAT or isinstance(header["format"], bool):
        raise AdapterFileError(
            "adapter file of an unknown format",
            path=path,
            expected=FORMAT,
            found=header.get("format"),
            hint=f"use topolora_monai {header.get('package_version')}",
        )
    for name, (kind, holds) in (_REQUIRED | _OPTIONAL).items():
        value = header.get(name)
        if value is None and name in _OPTIONAL:
            continue
        if not holds(value):
            raise AdapterFileError(
                f"header of the adapter file has a wrong {name}",
                path=path,
                expected=kind,
                found=repr(value)[:100] if name in header else "nothing",
                hint="the file is damaged or was edited; copy it again",
            )
    return header


def network_settings(header: dict[str, Any]) -> dict[str, Any]:
    """Arguments of :func:`~topolora_monai.networks.build_network`, but the weights, that a header gives.

    Example:
        >>> network_settings({"network_name": "vit_t", "image_size": 512, "threshold": 0.4})
        {'network_name': 'vit_t', 'image_size': 512}
    """
    return {name: header[name] for name in _NETWORK if header.get(name) is not None}
