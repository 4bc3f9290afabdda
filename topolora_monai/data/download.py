"""Archives that owners let anyone download: fetched, verified, and unpacked safely."""

from __future__ import annotations

import contextlib
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from topolora_monai.errors import DataError, OutputError
from topolora_monai.io.download import download_file, file_sha256

__all__ = ["Archive", "download_archives", "download_file", "file_sha256", "unpack_archives"]

_UNPACKED = (".zip", ".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class Archive:
    """One file that owners publish.

    Args:
        name: of the file, as the owners call it.
        creates: folder below the data set's root that is there once it is unpacked.
        url: where it is; None when an account or a form stands before it.
        sha256: of the file, lower-case hexadecimal; None where nobody has published one.
        into: folder to unpack it in, below the root; archives without a folder of their own need one.
    """

    name: str
    creates: str
    url: str | None = None
    sha256: str | None = None
    into: str = ""


def download_archives(archives: Sequence[Archive], root: Path, access: str) -> None:
    """Fetch and unpack every archive whose content is not there yet.

    Raises:
        DataError: if one has no address or no pinned checksum, cannot be reached, or is not what it should be.
        OutputError: if ``root`` cannot be written.
    """
    missing = [archive for archive in archives if not (root / archive.creates).is_dir()]
    closed = [archive.name for archive in missing if archive.url is None or archive.sha256 is None]
    if closed or not archives:
        raise DataError(
            "this data set cannot be downloaded without you",
            path=root,
            found=f"no free address with a known checksum for {', '.join(closed)}" if closed else None,
            hint=access,
        )
    for archive in missing:
        download_file(str(archive.url), root / archive.name, str(archive.sha256))
    unpack_archives(missing, root, checksum=False)


def unpack_archives(archives: Sequence[Archive], root: Path, checksum: bool) -> None:
    """Unpack the archives that lie in ``root`` and are not unpacked yet.

    Args:
        archives: of the data set.
        root: its folder.
        checksum: compare with the pinned SHA-256 first, where there is one.

    Raises:
        DataError: if one is damaged, another file, or would write outside of its folder.
        OutputError: if ``root`` cannot be written.
    """
    for archive in archives:
        path = root / archive.name
        if not path.is_file() or (root / archive.creates).is_dir():
            continue
        if checksum and archive.sha256 and file_sha256(path) != archive.sha256:
            raise DataError(
                "archive is not the published one",
                path=path,
                expected=f"SHA-256 {archive.sha256}",
                found=file_sha256(path),
                hint="download it again",
            )
        if path.name.lower().endswith(_UNPACKED):
            _unpack(path, root / archive.into)
        else:
            raise DataError("archive has to be unpacked by hand", path=path, hint=f"unpack it into {root}")


def _unpack(path: Path, into: Path) -> None:
    """Unpack beside and move, so that an interrupted attempt leaves nothing that looks complete."""
    try:
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=into) as beside:
            with _reading(path):
                if path.name.lower().endswith(".zip"):
                    with zipfile.ZipFile(path) as archive:
                        archive.extractall(beside)  # drops leading slashes and ..
                else:
                    with tarfile.open(path) as tar:
                        tar.extractall(beside, filter="data")
            for entry in sorted(Path(beside).iterdir()):
                if not (into / entry.name).exists():
                    shutil.move(entry, into / entry.name)
    except OSError as error:
        raise OutputError(
            "cannot unpack the archive", path=path, found=error.strerror, hint="free some space, or unpack it yourself"
        ) from error


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise DataError(
            "archive is damaged or unsafe", path=path, found=str(error), hint="download it again"
        ) from error
