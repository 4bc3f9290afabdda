"""Archives of data sets that would write elsewhere, never end, or bring more than files."""

import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.corpus.cases import Case, Must, Write, cut, flipped, patched, written
from tests.corpus.images import deflated_zeros

_WAYS = ("unpack",)
CREATES = "data"
"""Folder that a sound archive makes."""


def _zip(change: Callable[[zipfile.ZipFile], object] = lambda file: None) -> Write:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(f"{CREATES}/image.txt", "pixels " * 200)
            change(file)

    return write


def _zip_entry(name: str, content: bytes = b"hostile", mode: int = stat.S_IFREG | 0o644) -> Write:
    def add(file: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo(name)
        info.create_system, info.external_attr = 3, mode << 16
        file.writestr(info, content)

    return _zip(add)


def _tar(change: Callable[[tarfile.TarFile], object] = lambda file: None, mode: str = "w:gz") -> Write:
    def write(path: Path) -> None:
        with tarfile.open(path, mode) as file:
            _tar_file(file, f"{CREATES}/image.txt", b"pixels " * 200)
            change(file)

    return write


def _tar_file(file: tarfile.TarFile, name: str, content: bytes = b"hostile") -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    file.addfile(info, io.BytesIO(content))


def _tar_entry(name: str, kind: bytes, link: str = "", then: str | None = None) -> Write:
    """An entry that is no file, and a file that is written through it."""

    def add(file: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.devmajor, info.devminor = kind, link, 1, 3
        file.addfile(info)
        if then:
            _tar_file(file, then)

    return _tar(add)


def _zip_bomb(size: int, entries: int = 1) -> Write:
    """Entries of zeros, each of ``size`` bytes and a thousandth of it on disk."""

    def write(path: Path) -> None:
        body, crc = deflated_zeros(size)[2:-4], 0
        for _ in range(size >> 20):
            crc = zlib.crc32(bytes(1 << 20), crc)
        local, central = b"", b""
        for number in range(entries):
            name = f"{CREATES}/zeros{number}".encode()
            facts = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, crc, len(body), size, len(name), 0)
            central += b"PK\1\2" + struct.pack("<H", 20) + facts + struct.pack("<HHHII", 0, 0, 0, 0, len(local)) + name
            local += b"PK\3\4" + facts + name + body
        end = struct.pack("<HHHHIIH", 0, 0, entries, entries, len(central), len(local), 0)
        path.write_bytes(local + central + b"PK\5\6" + end)

    return write


def _tar_bomb(path: Path) -> None:
    import gzip

    info = tarfile.TarInfo(f"{CREATES}/zeros")
    info.size = 8 << 30
    from tests.corpus.images import gzip_bomb

    head = gzip.compress(info.tobuf(tarfile.GNU_FORMAT))
    path.write_bytes(head + gzip_bomb(info.size + 1024))  # gzip files one after the other are one


def _many(path: Path) -> None:
    """Files without content, more than are worth a byte each."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{CREATES}/image.txt", "pixels")
        for number in range(5_000):
            file.writestr(f"{CREATES}/{number}", b"")


def _size_lies(path: Path) -> None:
    """A file whose table of contents says that it is a hundredth of what comes out."""
    _zip()(path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.index(b"PK\1\2") + 24, 14)
    path.write_bytes(content)


def _case(name: str, suffix: str, write: Write, must: Must = "refuse", short: bool = False) -> Case:
    def make(folder: Path) -> Path:
        root = folder / "root"
        root.mkdir()
        write(root / f"archive{suffix}")
        return root / f"archive{suffix}"

    return Case(f"archive/{name}", make, _WAYS, must, None, short)


def cases() -> Iterator[Case]:
    """All of this module. ``refuse or read`` of an entry means: refused, or put inside of the folder."""
    link, char = stat.S_IFLNK | 0o777, stat.S_IFCHR | 0o666
    for suffix, whole in {".zip": _zip(), ".tar.gz": _tar(), ".tar": _tar(mode="w"), ".tgz": _tar()}.items():
        yield _case(f"whole{suffix}", suffix, whole, "read", short=suffix == ".zip")
        yield _case(f"empty{suffix}", suffix, written(b""))
        yield _case(
            f"cut{suffix}", suffix, cut(whole, 0.5), "refuse" if suffix != ".tar" else "survive", suffix == ".zip"
        )
        yield _case(f"page{suffix}", suffix, written(b"<html>404</html>" * 40), short=suffix == ".tar.gz")
    for seed in range(4):
        yield _case(f"bit-{seed}.zip", ".zip", flipped(_zip(), seed), "refuse or read")
        yield _case(f"bit-{seed}.tar.gz", ".tar.gz", flipped(_tar(), seed), "refuse or read", short=seed == 0)
    for name, place in {"parent": "../hostile", "parents": "data/../../../hostile", "absolute": "/tmp/hostile-of-a-zip",
                        "backslashes": "..\\..\\hostile", "drive": "C:\\hostile", "dot": "./data/./../hostile",
                        "long": "a" * 5000, "nul": "data/a\0b", "without-name": "data//",
                        "bell": "data/\a\n"}.items():  # fmt: skip
        yield _case(f"{name}.zip", ".zip", _zip_entry(place), "refuse or read", short=name in ("parent", "absolute"))
    yield _case("link-outside.zip", ".zip", _zip_entry("data/link", b"../../..", link), "refuse or read")
    yield _case("device.zip", ".zip", _zip_entry("data/device", b"", char), "refuse or read")
    yield _case("setuid.zip", ".zip", _zip_entry("data/tool", b"#!/bin/sh\n", stat.S_IFREG | 0o4755), "refuse or read")
    yield _case("file-and-folder.zip", ".zip", _zip_entry(f"{CREATES}/image.txt/inside"))
    yield _case("encrypted.zip", ".zip", patched(patched(_zip(), 6, b"\1\0"), -1, b""), "survive")
    for name, place in {
        "parent": "../hostile",
        "parents": "data/../../../hostile",
        "absolute": "/tmp/hostile-of-a-tar",
    }.items():
        elsewhere = _tar(lambda file, place=place: _tar_file(file, place))
        yield _case(f"{name}.tar.gz", ".tar.gz", elsewhere, "refuse or read", short=name == "parent")
    for name, kind, target, then in (
        ("link-outside", tarfile.SYMTYPE, "../../..", "data/link/hostile"),
        ("link-absolute", tarfile.SYMTYPE, "/tmp", "data/link/hostile-of-a-tar"),
        ("link-to-passwords", tarfile.SYMTYPE, "/etc/passwd", None),
        ("hard-link-outside", tarfile.LNKTYPE, "../../../../../etc/passwd", None),
        ("hard-link-absolute", tarfile.LNKTYPE, "/etc/passwd", None),
        ("link-to-itself", tarfile.SYMTYPE, "link", None),
        ("character-device", tarfile.CHRTYPE, "", None),
        ("block-device", tarfile.BLKTYPE, "", None),
        ("pipe", tarfile.FIFOTYPE, "", None),
    ):
        must: Must = "refuse or read" if kind in (tarfile.SYMTYPE, tarfile.FIFOTYPE) else "refuse"
        yield _case(f"{name}.tar.gz", ".tar.gz", _tar_entry("data/link", kind, target, then), must,
                    short=name in ("link-absolute", "character-device"))  # fmt: skip
    yield _case("bomb-8-gigabytes.zip", ".zip", _zip_bomb(2 << 30, 4), short=True)
    yield _case("bomb-8-gigabytes.tar.gz", ".tar.gz", _tar_bomb, short=True)
    yield _case("5000-empty-files.zip", ".zip", _many, "survive")
    yield _case("size-lies.zip", ".zip", _size_lies)
    yield _case("table-far-away.zip", ".zip", patched(_zip(), -6, struct.pack("<I", 0xFFFFFFF0)))
