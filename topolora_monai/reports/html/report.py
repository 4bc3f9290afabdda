"""Write the report of some runs: a page and its pictures, in one folder."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from topolora_monai.errors import OutputError
from topolora_monai.io.atomic import atomic_write, folder_beside, writing
from topolora_monai.reports.html.content import build_content
from topolora_monai.reports.html.page import render_page
from topolora_monai.reports.html.pictures import ImagePictures, make_pictures
from topolora_monai.reports.html.runs import Run, open_runs

__all__ = ["write_report"]

_PAGE, _FILES = "report.html", "report_files"


def write_report(folders: Sequence[str | Path], out: str | Path) -> Path:
    """Write ``report.html``, and its pictures in ``report_files``.

    The page opens from disk, asks nothing of a network, and prints on A4; the folder can be moved or zipped as it is.
    An older report in it is replaced once the new one is whole.

    Args:
        folders: of runs that were evaluated; further ones are compared with the first.
        out: folder to write to; created.

    Returns:
        Path of the page.

    Raises:
        DataError: if a run has not been evaluated, or one of its files is damaged.
        OutputError: if the report cannot be written, or ``out`` holds other things under the names it needs.
    """
    runs = open_runs(folders)
    out = Path(out).absolute()
    _check(out)
    with writing(out, "the report", "choose another --out"), _folder_in(out) as beside:
        (beside / _FILES).mkdir()
        pictures = _all_pictures(runs, beside)
        page = render_page(build_content(runs, pictures))
        shutil.rmtree(out / _FILES, ignore_errors=True)
        os.replace(beside / _FILES, out / _FILES)
        with atomic_write(out / _PAGE) as page_beside:
            page_beside.write_text(page, encoding="utf-8")
    return out / _PAGE


@contextlib.contextmanager
def _folder_in(out: Path) -> Iterator[Path]:
    out.mkdir(parents=True, exist_ok=True)
    with folder_beside(out / _FILES) as beside:
        yield beside


def _check(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise OutputError("--out is a file", path=out, expected="a folder", hint="choose another --out")
    if (out / _FILES).exists() and not (out / _PAGE).is_file():
        raise OutputError(
            f"--out holds a {_FILES} that is of no report", path=out, hint="choose another --out, or move it away"
        )


def _all_pictures(runs: Sequence[Run], beside: Path) -> list[dict[str, ImagePictures]]:
    total = sum(len(run.names) for run in runs)
    with tqdm(total=total, desc="pictures", unit="image", delay=2, disable=None) as progress:
        return [
            {name: _one(run, name, beside, number, row, progress) for row, name in enumerate(run.names)}
            for number, run in enumerate(runs)
        ]


def _one(run: Run, name: str, beside: Path, number: int, row: int, progress: tqdm[Any]) -> ImagePictures:
    """Folders are numbered: names are of others and may be no good names of files."""
    made = make_pictures(run, name, beside / _FILES / str(number) / f"{row:04d}", beside)
    progress.update()
    return made
