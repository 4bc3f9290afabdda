"""Fetching a file that its owners let anyone download: pinned by its checksum, resumable, with progress."""

import contextlib
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath

from filelock import FileLock
from tqdm import tqdm

from topolora_monai.errors import DataError
from topolora_monai.io.atomic import writing
from topolora_monai.io.regular import FILE, path_kind

_BLOCK = 1 << 20
_TIMEOUT = 30.0


def download_file(url: str, path: Path, sha256: str) -> None:
    """Download by http or https to ``.NAME.part`` and rename once the checksum, lower-case hexadecimal, agrees.

    A second call goes on where one stopped, and a file with the right checksum is kept.

    Raises:
        DataError: if the address cannot be reached, the transfer stops, or the content is another.
        OutputError: if the file cannot be written.
    """
    with writing(path, "the download", "choose another folder"):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock")
        with FileLock(lock):  # all who download the file go on with one part
            try:
                _download(url, path, sha256)
            finally:
                with contextlib.suppress(OSError):
                    lock.unlink()


def _download(url: str, path: Path, sha256: str) -> None:
    if path_kind(path) == FILE and file_sha256(path) == sha256:
        return
    beside = path.with_name(f".{path.name}.part")
    try:
        _fetch(url, beside)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise DataError(
            "download failed",
            path=url,
            found=str(error),
            hint="run the same command again: it goes on where it stopped",
        ) from error
    found = file_sha256(beside)
    if found != sha256:
        beside.unlink()
        raise DataError(
            "downloaded file is not the published one",
            path=url,
            expected=f"SHA-256 {sha256}",
            found=found,
            hint="try again; if it stays so, the owners have changed it or something between has",
        )
    os.replace(beside, path)


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, lower-case hexadecimal."""
    with Path(path).open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _fetch(url: str, path: Path) -> None:
    start = path.stat().st_size if path.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # it was all there already
        raise
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0  # the server sends everything
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with (
            path.open("ab" if start else "wb") as file,
            tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=PurePosixPath(url).name) as progress,
        ):
            while block := response.read(_BLOCK):
                file.write(block)
                progress.update(len(block))
        if total is not None and path.stat().st_size < total:
            raise ConnectionError(f"connection closed after {path.stat().st_size} of {total} bytes")
