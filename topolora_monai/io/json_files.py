"""JSON as everyone reads it: without NaN and infinity, which the standard lacks; files are written whole."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from topolora_monai.errors import DataError
from topolora_monai.io.atomic import atomic_write


def json_text(content: Any, indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """JSON of mappings, lists, texts and numbers; numbers that are not finite become ``null``.

    Args:
        content: what to write.
        indent: spaces of each level; None for one line.
        default: makes one of these of anything else, as :func:`json.dumps` asks it.

    Example:
        >>> json_text({"dice": 0.5, "cldice": float("nan")})
        '{"dice": 0.5, "cldice": null}'
    """
    return json.dumps(_finite(content), indent=indent, default=default, ensure_ascii=False, allow_nan=False)


def write_json(content: Mapping[str, Any], path: str | Path) -> None:
    """Write JSON as :func:`json_text` makes it beside its place, and rename it.

    Raises:
        OSError: if it cannot be written; an older file is left as it was.
    """
    with atomic_write(path) as beside:
        # Bytes of a file name that are no UTF-8 become JSON's own escapes.
        beside.write_text(json_text(content, indent=2) + "\n", encoding="utf-8", errors="backslashreplace")


def read_json(path: str | Path, hint: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: if it cannot be read, or holds something else; says ``hint``.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError("a part of the run is missing", path=path, hint=hint) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError("a part of the run is damaged", path=path, found=str(error), hint=hint) from error
    if not isinstance(content, dict):
        raise DataError(
            "a part of the run is damaged", path=path, expected="{...}", found=str(content)[:100], hint=hint
        )
    return content


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
