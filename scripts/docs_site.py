"""What the documentation's site needs beside Markdown: a hook of MkDocs, and an extension of Griffe for docstrings.

Files of the tree that lie outside of ``docs/`` become pages or downloads, and links that lead to them on a code host
lead to them on the site, too. Sphinx' roles in docstrings, and names of the package in running text, become links to
the reference.
"""

import posixpath
import re
from functools import partial
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "bundles/topolora_sam_segmentation/docs/README.md": "bundle.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
}
"""Where files of the tree stand on the site; what links to the README means the first page."""

_LINK = re.compile(r"(?<=\]\()(?!https?://|mailto:|#)([^)#\s]+)")
_CODE = re.compile(r"^(```.*?^```$)", re.DOTALL | re.MULTILINE)
_NAME = re.compile(r"(?<!\[)`(topolora_monai\.[\w.]+\w)`")
_ROLE = re.compile(r":(?:py:)?(?:mod|class|func|meth|data|attr|obj|exc):`(~?)([^`]+)`")
_EXAMPLE = re.compile(r"^(\s*)Example:$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies elsewhere."""
    for source, place in PAGES.items():
        if files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, content=(ROOT / source).read_text(encoding="utf-8")))
    for path in sorted((ROOT / "results").rglob("*.json")):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the tree into links between pages, and names into links to the reference."""
    here = page.file.src_uri
    source = next((ROOT / source for source, place in PAGES.items() if place == here), Path(config.docs_dir) / here)
    if (Path(config.docs_dir) / here).is_file():
        source = Path(config.docs_dir) / here

    def placed(link: re.Match[str]) -> str:
        target = (source.parent / link[1]).resolve()
        if not target.is_relative_to(ROOT):
            return link[1]
        inside = target.relative_to(ROOT).as_posix()
        place = PAGES.get(inside, inside.removeprefix("docs/"))
        return posixpath.relpath(place, posixpath.dirname(here) or ".")

    parts = _CODE.split(markdown)  # code stands at the odd places
    parts[::2] = [_NAME.sub(_reference, _LINK.sub(placed, part)) for part in parts[::2]]
    return "".join(parts)


class Docstrings(griffe.Extension):
    """Reads docstrings as they are meant: roles as links, ``Example:`` as a section of code."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite the docstrings of a package that was read."""
        unread: list[griffe.Object | griffe.Alias] = [pkg]
        while unread:
            read = unread.pop()
            if isinstance(read, griffe.Alias):
                continue
            unread += read.members.values()
            if read.docstring:
                text = _EXAMPLE.sub(r"\1Examples:", read.docstring.value)
                read.docstring.value = _ROLE.sub(partial(_role, read), text)


def _role(where: griffe.Object, role: re.Match[str]) -> str:
    short, name = role[1], role[2]
    try:
        full = name if name.startswith("topolora_monai.") else where.resolve(name)
    except griffe.NameResolutionError:
        full = name
    return _link(full, name.rpartition(".")[2] if short else name)


def _reference(name: re.Match[str]) -> str:
    parts = name[1].split(".")
    return _link(name[1], parts[-1] if len(parts) > 2 else name[1])  # of a module's names the last is enough


def _link(full: str, shown: str) -> str:
    """A link where the reference has the name, else the name alone."""
    return f'<autoref identifier="{full}" optional><code>{shown}</code></autoref>'
