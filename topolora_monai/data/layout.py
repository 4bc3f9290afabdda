"""Finding a data set's folders and files as they occur in the wild, and refusing what could mean two things."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from topolora_monai.data.items import Item, image_files, plain_stem, require_unique
from topolora_monai.errors import DataError

__all__ = ["Part", "by_key", "content", "find_folder", "found_in", "pairs", "unwrap"]

Key = Callable[[str], str | None]
"""From a file's stem to what images and masks share; None passes a file over."""


def find_folder(root: Path, *names: str) -> Path | None:
    """The one folder among ``names``, which may be nested paths, whatever the case of their letters.

    Raises:
        DataError: if several are there.
    """
    found = {path.resolve(): path for name in names for path in _matching(root, name.split("/"))}
    if len(found) > 1:
        raise DataError(
            "several folders could be meant",
            path=root,
            expected=f"one of {', '.join(names)}",
            found=", ".join(sorted(str(path.relative_to(root)) for path in found.values())),
            hint="keep the right one",
        )
    return next(iter(found.values()), None)


def unwrap(root: Path, marker: Callable[[Path], bool]) -> Path | None:
    """``root`` or a folder up to two levels below it that alone has the marker, as archives unpack into one more."""
    for level in ([root], _folders(root), [inner for outer in _folders(root) for inner in _folders(outer)]):
        marked = [folder for folder in level if marker(folder)]
        if len(marked) == 1:
            return marked[0]
        if marked:
            raise DataError(
                "several copies of the data set",
                path=root,
                expected="one",
                found=", ".join(folder.name for folder in marked),
                hint="give the folder of one of them",
            )
    return None


class Part(NamedTuple):
    """One kind of file that belongs to images: where it is, its key, and what to call one in an error."""

    folder: Path
    key: Key
    what: str = "mask"


def pairs(images: Path, key: Key = str, **parts: Part | None) -> list[Item]:
    """Join the images of a folder with what belongs to them.

    Args:
        images: folder of images.
        key: what an image's stem shares with its masks.
        **parts: for keys of an item, such as ``label``; what is None is left out.

    Returns:
        Items in order of the images' keys; ``name`` is the image's stem.

    Raises:
        DataError: if an image has no such file, or several.
    """
    given = {name: part for name, part in parts.items() if part is not None}
    indices = {name: by_key(found_in(part.folder), part.key) for name, part in given.items()}
    items = []
    for shared, paths in sorted(by_key(found_in(images), key).items()):
        image = require_unique(paths, shared, images, "image")
        item = Item(name=plain_stem(image), image=str(image))
        for name, part in given.items():
            file = require_unique(indices[name].get(shared, []), shared, part.folder, part.what)
            item[name] = str(file)  # type: ignore[literal-required]
        items.append(item)
    return items


def by_key(files: Iterable[Path], key: Key) -> dict[str, list[Path]]:
    """Files under what they share with others."""
    index: dict[str, list[Path]] = {}
    for path in files:
        name = key(plain_stem(path))
        if name is not None:
            index.setdefault(name, []).append(path)
    return index


def content(folder: Path) -> str:
    """The first entries of a folder, for an error."""
    names = sorted(path.name for path in folder.iterdir())
    return (", ".join(names[:5]) + (", ..." if len(names) > 5 else "")) if names else "an empty folder"


def found_in(folder: Path | None) -> list[Path]:
    """Image files of a folder that may be absent."""
    return image_files(folder) if folder else []


def _matching(root: Path, parts: list[str]) -> list[Path]:
    if not parts:
        return [root]
    here = [path for path in _folders(root) if path.name.lower() == parts[0].lower()]
    return [match for path in here for match in _matching(path, parts[1:])]


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
