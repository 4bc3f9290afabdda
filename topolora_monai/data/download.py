"""Archives that owners let anyone download: fetched, verified, and unpacked safely."""

import contextlib
import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, NamedTuple, cast

from topolora_monai.errors import DataError
from topolora_monai.io.atomic import folder_beside, remove_leftovers, writing
from topolora_monai.io.download import download_file, file_sha256

MOST_MEMBERS = 1_000_000
"""Files and folders that an archive may hold."""
_LARGEST_ARCHIVE = 100_000_000_000  # bytes that it may unpack to
_LARGEST_RATIO = 200  # times its own size; pictures reach 2 or 3, text and masks 50
_ALWAYS_FINE = 100_000_000  # bytes up to which the ratio does not matter, since a few empty masks exceed any
_UNPACKED = (".zip", ".tar", ".tar.gz", ".tgz")
_GZIP = b"\x1f\x8b"
_BLOCK = 1 << 20
_LARGEST_HEADER = 64 << 20
_DAMAGE = (
    EOFError,
    NotImplementedError,  # a compression of others
    RuntimeError,  # a password
    ValueError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What the readers of archives raise on those that are broken."""


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
    missing = [archive for archive in archives if not _is_there(root / archive.creates)]
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
    """Unpack the archives that lie in ``root`` and are not unpacked yet; ``checksum`` compares with a pinned SHA-256.

    An attempt that was killed or failed leaves nothing that looks complete, and the next one starts over.

    Raises:
        DataError: if one is damaged, another file, holds a link, a device or a name that leads elsewhere, or unpacks to
            more than 100 GB, 200 times its size or :data:`MOST_MEMBERS` files.
        OutputError: if ``root`` cannot be written.
    """
    for archive in archives:
        path = root / archive.name
        if not path.is_file() or _is_there(root / archive.creates):
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
            with writing(path, "what is in the archive", "unpack it yourself"):
                _unpack(archive, root)
        else:
            raise DataError("archive has to be unpacked by hand", path=path, hint=f"unpack it into {root}")


def _is_there(folder: Path) -> bool:
    """Whether a folder holds anything; one that an attempt left empty does not count."""
    remove_leftovers(folder)
    return folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())


def _unpack(archive: Archive, root: Path) -> None:
    """Unpack beside and rename; what tells that an archive is unpacked comes last."""
    path, into = root / archive.name, root / archive.into
    with folder_beside(path) as beside:
        with _reading(path):
            members = _zip_members(path) if path.name.lower().endswith(".zip") else _tar_members(path)
            for target, content in _checked(members, path, beside):
                target.parent.mkdir(parents=True, exist_ok=True)
                with content as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, _BLOCK)
        if into == root / archive.creates:
            for remains in into.iterdir() if into.is_dir() else ():  # hidden ones: see _is_there
                os.replace(remains, beside / remains.name)
            into.parent.mkdir(parents=True, exist_ok=True)
            if into.is_dir():
                into.rmdir()
            os.replace(beside, into)
            return
        into.mkdir(parents=True, exist_ok=True)
        marker = PurePosixPath(archive.creates).relative_to(archive.into).parts[0]
        for entry in sorted(beside.iterdir(), key=lambda entry: entry.name == marker):
            if not (into / entry.name).exists():
                os.replace(entry, into / entry.name)


class _Member(NamedTuple):
    """What an archive says of a file or folder in it, and how to read a file; ``kind`` names what is neither."""

    name: str
    size: int
    kind: str | None
    open: Callable[[], IO[bytes]] | None


def _checked(members: Iterable[_Member], path: Path, into: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """Place and content of each file; refuses what may do harm before it is read."""
    packed = path.stat().st_size
    most = min(_LARGEST_ARCHIVE, max(_LARGEST_RATIO * packed, _ALWAYS_FINE))
    total = 0
    for number, member in enumerate(members, 1):
        total += member.size
        if total > most or number > MOST_MEMBERS:
            raise DataError(
                "archive unpacks to more than is taken",
                path=path,
                expected=f"at most {_LARGEST_ARCHIVE / 1e9:.0f} GB, {_LARGEST_RATIO} times the archive's size beyond"
                f" {_ALWAYS_FINE / 1e6:.0f} MB, and {MOST_MEMBERS:,} files",
                found=f"{total / 1e6:,.0f} MB from {packed / 1e6:,.1f} MB at file {number:,} ({member.name[:100]!r})",
                hint="if it is the published one, unpack it yourself",
            )
        harm = member.kind or _leads_elsewhere(member.name)
        if harm:
            raise DataError(
                "archive is unsafe and was not unpacked",
                path=path,
                expected="files and folders below its own",
                found=f"{harm}: {member.name[:100]!r}",
                hint="take the one that its owners publish",
            )
        target = into.joinpath(*PurePosixPath(member.name).parts)
        if member.open is None:
            target.mkdir(parents=True, exist_ok=True)
        else:
            yield target, member.open()


def _leads_elsewhere(name: str) -> str | None:
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if path.is_absolute() or path.drive or path.root:
            return "an absolute name"
        if ".." in path.parts:
            return "a name that leads out of the folder"
    return None


def _zip_members(path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            form = stat.S_IFMT(info.external_attr >> 16)
            harmless = form in (0, stat.S_IFREG, stat.S_IFDIR)
            kind = None if harmless else "a link" if form == stat.S_IFLNK else "a device"
            yield _Member(info.filename, info.file_size, kind, None if info.is_dir() else partial(archive.open, info))


def _tar_members(path: Path) -> Iterator[_Member]:
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    with (
        gzip.open(path) if packed else path.open("rb") as raw,
        tarfile.open(fileobj=cast(Any, _InPieces(raw)), mode="r:") as archive,
    ):
        for info in archive:
            kind = None if info.isreg() or info.isdir() else "a device" if info.isdev() else "a link"
            content = partial(cast(Any, archive.extractfile), info) if info.isreg() else None
            yield _Member(info.name, info.size, kind, content)


class _InPieces:
    """A file that is never read as a whole, as the headers of a malicious archive would have it."""

    def __init__(self, file: gzip.GzipFile | BufferedReader) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._file.read(size)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise DataError(
            "archive is damaged or of another kind",
            path=path,
            found=str(error) or type(error).__name__,
            hint="download it again",
        ) from error
