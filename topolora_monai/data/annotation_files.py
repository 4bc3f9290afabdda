"""What COCO's and labelme's files have in common."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topolora_monai.errors import ConfigError, DataError, unknown_choice
from topolora_monai.io.regular import FILE, path_kind, require_list, shortened

__all__ = ["Place", "category_values", "find_image", "finite_points", "json_files", "load_json"]

_FOREGROUND = 255


class Place(NamedTuple):
    """Where in an annotation file something is."""

    path: Path
    what: str

    def refuse(
        self, message: str, expected: str, found: object, hint: str = "correct it and export again"
    ) -> DataError:
        """The error for what is wrong there."""
        return DataError(f"{message} ({self.what})", path=self.path, expected=expected, found=found, hint=hint)


def load_json(path: str | Path) -> Any:
    """Content of a JSON file.

    Raises:
        DataError: if it cannot be read, or is not JSON.
    """
    require_list(path)
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise DataError("file cannot be read", path=path, found=error.strerror) from error
    except (ValueError, RecursionError) as error:
        raise DataError("not valid JSON", path=path, found=str(error), hint="export or copy it again") from error


def json_files(folder: Path) -> list[Path]:
    """JSON files of a folder in order of name, hidden ones passed over."""
    files = (path for path in folder.iterdir() if path.suffix.lower() == ".json" and path.is_file())
    return sorted(path for path in files if not path.name.startswith("."))


def category_values(
    names: Iterable[str], chosen: Sequence[str] | None, class_index: bool, path: Path
) -> dict[str, int]:
    """Mask value of each category that is drawn: 255, or its number from 1.

    Args:
        names: categories that there are, in order of their numbers.
        chosen: those to draw, in order of their numbers; None for all.
        class_index: give each a number instead of 255.
        path: of the annotations, for messages.

    Raises:
        ConfigError: if there is none of a chosen name, or more than 255 are to be numbered.

    Example:
        >>> category_values(["vein", "artery"], None, True, Path("a.json"))
        {'vein': 1, 'artery': 2}
        >>> category_values(["vein", "artery"], ["artery"], False, Path("a.json"))
        {'artery': 255}
    """
    known = list(dict.fromkeys(names))
    for name in chosen or ():
        if name not in known:
            raise unknown_choice(f"category of {path}", name, known)
    drawn = known if chosen is None else list(chosen)
    if class_index and len(drawn) > 255:
        raise ConfigError("too many categories for class numbers", path=path, expected="255", found=len(drawn))
    return {name: number if class_index else _FOREGROUND for number, name in enumerate(drawn, start=1)}


def find_image(file_name: Any, folders: Sequence[Path], place: Place) -> Path:
    """The one file that a name stands for.

    Args:
        file_name: relative to one of ``folders``.
        folders: where to look.
        place: that names it.

    Raises:
        DataError: if it is no text, or in none or several of the folders.
    """
    if not isinstance(file_name, str) or not file_name:
        raise place.refuse("image has no file name", "file_name", file_name)
    paths = [folder / file_name for folder in folders]
    found = [path for path in paths if path_kind(path) == FILE]
    if len(found) == 1:
        return found[0]
    if not found:
        tried = " or ".join(shortened(str(path)) for path in paths)
        raise place.refuse("image file not found", tried, "none", "put the image there, or correct the path")
    raise place.refuse("several image files", "one", ", ".join(str(path) for path in found), "keep the right one")


def finite_points(points: Any, least: int, what: str, place: Place) -> NDArray[np.float64]:
    """Coordinates as an array of shape (N, 2), float64.

    Args:
        points: N pairs.
        least: smallest N.
        what: they outline, for messages.
        place: where they are.

    Raises:
        DataError: if they are fewer, not in pairs, or not finite numbers.
    """
    try:
        array = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.full((1, 1), np.nan)
    if array.size and (array.ndim != 2 or array.shape[1] != 2 or not np.isfinite(array).all()):
        raise place.refuse(f"{what} has points that are none", "pairs of finite numbers", str(points)[:100])
    if len(array) < least:
        raise place.refuse(f"{what} has fewer than {least} points", f"at least {least}", len(array))
    return array
