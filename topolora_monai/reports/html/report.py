"""Write the report of some runs: a page and its pictures, in one folder."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from topolora_monai.errors import OutputError
from topolora_monai.io.atomic import atomic_write, folder_beside, writing
from topolora_monai.reports.html.page import render_page
from topolora_monai.reports.html.pictures import ImagePictures, make_pictures
from topolora_monai.reports.html.runs import Run, open_runs

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
    if out.exists() and not out.is_dir():
        raise OutputError("--out is a file", path=out, expected="a folder", hint="choose another --out")
    if (out / _FILES).exists() and not (out / _PAGE).is_file():
        raise OutputError(
            f"--out holds a {_FILES} that is of no report", path=out, hint="choose another --out, or move it away"
        )
    with writing(out, "the report", "choose another --out"):
        out.mkdir(parents=True, exist_ok=True)
        with folder_beside(out / _FILES) as beside:
            page = render_page(runs, _all_pictures(runs, beside))
            shutil.rmtree(out / _FILES, ignore_errors=True)
            os.replace(beside / _FILES, out / _FILES)
        with atomic_write(out / _PAGE) as page_beside:
            page_beside.write_text(page, encoding="utf-8")
    return out / _PAGE


def _all_pictures(runs: Sequence[Run], beside: Path) -> list[dict[str, ImagePictures]]:
    """Folders are numbered: names are of others and may be no good names of files."""
    (beside / _FILES).mkdir()
    pictures: list[dict[str, ImagePictures]] = [{} for _ in runs]
    images = [(number, row, name) for number, run in enumerate(runs) for row, name in enumerate(run.names)]
    for number, row, name in tqdm(images, desc="pictures", unit="image", delay=2, disable=None):
        folder = beside / _FILES / str(number) / f"{row:04d}"
        pictures[number][name] = make_pictures(runs[number], name, folder, beside)
    return pictures
