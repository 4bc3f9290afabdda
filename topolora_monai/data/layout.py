"""Finding a data set's folders and files as they occur in the wild, and refusing what could mean two things."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from topolora_monai.data.items import Item, plain_stem, scans_in
from topolora_monai.errors import DataError

Key = Callable[[str], str | set[str] | None]
"""From a file's stem to what images and masks share, of which there may be several; None passes a file over."""


def find_folder(root: Path, *names: str) -> Path | None:
    """The one folder among ``names``, which may be nested paths, whatever the case of their letters.

    One that lies in another counts before it; the empty name is ``root`` itself. A ``DataError`` if several are there.
    """
    found = {path.resolve(): path for name in names for path in _matching(root, [p for p in name.split("/") if p])}
    inner = [path for real, path in found.items() if not any(real in other.parents for other in found)]
    if len(inner) > 1:
        raise DataError(
            "several folders could be meant",
            path=root,
            expected=f"one of {', '.join(names)}",
            found=", ".join(sorted(str(path.relative_to(root)) for path in inner)),
            hint="keep the right one",
        )
    return inner[0] if inner else None


def unwrap(root: Path, marker: Callable[[Path], bool]) -> Path | None:
    """``root`` or a folder up to two levels below it that alone has the marker, as archives unpack into one more."""
    for level in ([root], _folders(root), [inner for outer in _folders(root) for inner in _folders(outer)]):
        marked = [folder for folder in level if marker(folder)]
        if len(marked) > 1:
            raise DataError(
                "several copies of the data set",
                path=root,
                expected="one",
                found=", ".join(folder.name for folder in marked),
                hint="give the folder of one of them",
            )
        if marked:
            return marked[0]
    return None


class Part(NamedTuple):
    """One kind of file that belongs to items: where it is, its key, and what to call one in an error."""

    folder: Path
    key: Key = str
    what: str = "mask"


def pairs(image: Part, **others: Part) -> list[Item]:
    """Join the images of a folder with what belongs to them, by the item's keys, such as ``label``.

    Returns:
        Items in order of the images' keys; ``name`` is the image's stem.

    Raises:
        DataError: if an image has no such file, or several.
    """
    indices = {name: by_key(scans_in(part.folder), part.key) for name, part in others.items()}
    items = []
    for shared, paths in sorted(by_key(scans_in(image.folder), image.key).items()):
        path = require_unique(paths, shared, image.folder, "image")
        item = Item(name=plain_stem(path), image=str(path))
        for name, part in others.items():
            file = require_unique(indices[name].get(shared, []), shared, part.folder, part.what)
            item[name] = str(file)  # type: ignore[literal-required]
        items.append(item)
    return items


def by_key(files: Iterable[Path], key: Key = str) -> dict[str, list[Path]]:
    """Files under what they share with others."""
    index: dict[str, list[Path]] = {}
    for path in files:
        names = key(plain_stem(path)) or ()
        for name in {names} if isinstance(names, str) else names:
            index.setdefault(name, []).append(path)
    return index


def require_unique(paths: Sequence[Path], key: str, folder: Path, what: str) -> Path:
    """The one file that belongs to an image. A ``DataError`` if there is none, or more than one."""
    if not paths:
        raise DataError(
            f"image without {what}: {key}",
            path=folder,
            expected=f"one file of that name in {folder.name}",
            found="none",
            hint="add the missing file, or take the image out",
        )
    if len(paths) > 1:
        raise DataError(
            f"several files for one {what}: {key}",
            path=folder,
            expected="one",
            found=", ".join(path.name for path in paths),
            hint="keep the right one",
        )
    return paths[0]


def content(folder: Path) -> str:
    """The first entries of a folder, for an error."""
    names = sorted(path.name for path in folder.iterdir())
    return (", ".join(names[:5]) + (", ..." if len(names) > 5 else "")) if names else "an empty folder"


def _matching(root: Path, parts: list[str]) -> list[Path]:
    if not parts:
        return [root]
    here = [path for path in _folders(root) if path.name.lower() == parts[0].lower()]
    return [match for path in here for match in _matching(path, parts[1:])]


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
