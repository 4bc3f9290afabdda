"""Downloads from a server of this process: pinned, resumed, refused; archives unpacked safely."""

import errno
import gzip
import hashlib
import io
import os
import shutil
import stat
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.processes import run_code
from topolora_monai.data import download
from topolora_monai.data.download import Archive, download_archives, unpack_archives
from topolora_monai.errors import DataError, OutputError
from topolora_monai.io.download import download_file, file_sha256

CONTENT = bytes(range(256)) * 20_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT under /file, with ranges; under /short it breaks off; under /whole it ignores ranges."""

    requests: list = []  # noqa: RUF012 - shared by all handlers, cleared by the fixture

    def do_GET(self):
        asked = self.headers.get("Range")
        self.requests.append((self.path, asked))
        if self.path == "/missing":
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.path != "/whole" else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = start + len(CONTENT) // 3 if self.path == "/short" else len(CONTENT)
        self.wfile.write(CONTENT[start:end])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    Handler.requests.clear()
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


def test_downloaded_whole_and_kept(server, tmp_path):
    for _ in range(2):
        download_file(f"{server}/file", tmp_path / "a", DIGEST)
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert Handler.requests == [("/file", None)]


def test_goes_on_where_it_stopped(server, tmp_path):
    for _ in range(2):
        with pytest.raises(DataError, match="goes on where it stopped"):
            download_file(f"{server}/short", tmp_path / "a", DIGEST)
    assert not (tmp_path / "a").exists()
    download_file(f"{server}/file", tmp_path / "a", DIGEST)
    assert (tmp_path / "a").read_bytes() == CONTENT
    third = len(CONTENT) // 3
    assert [asked for _, asked in Handler.requests] == [None, f"bytes={third}-", f"bytes={2 * third}-"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_two_downloads_of_one_file_take_turns(server, tmp_path):
    threads = [threading.Thread(target=download_file, args=(f"{server}/file", tmp_path / "a", DIGEST)) for _ in "1234"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert Handler.requests == [("/file", None)]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_complete_part_is_not_asked_for_again(server, tmp_path):
    (tmp_path / ".a.part").write_bytes(CONTENT)
    download_file(f"{server}/file", tmp_path / "a", DIGEST)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_server_without_ranges_starts_over(server, tmp_path):
    (tmp_path / ".a.part").write_bytes(CONTENT[:1000])
    download_file(f"{server}/whole", tmp_path / "a", DIGEST)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_other_content_is_refused_and_not_kept(server, tmp_path):
    with pytest.raises(DataError, match="not the published one") as error:
        download_file(f"{server}/file", tmp_path / "a", "0" * 64)
    assert DIGEST in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_missing_address_and_no_connection(server, tmp_path):
    with pytest.raises(DataError, match=r"download failed.*/missing") as error:
        download_file(f"{server}/missing", tmp_path / "a", DIGEST)
    assert "404" in str(error.value)
    with pytest.raises(DataError, match="download failed"):
        download_file("http://127.0.0.1:9/file", tmp_path / "a", DIGEST)


def test_unwritable_folder(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write the download"):
        download_file(f"{server}/file", tmp_path / "file/a", DIGEST)


def test_archives_are_fetched_and_unpacked(server, tmp_path, monkeypatch):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("set/images/a.png", b"picture")
    monkeypatch.setattr(f"{__name__}.CONTENT", packed.getvalue())
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    archives = [Archive("set.zip", creates="set", url=f"{server}/file", sha256=digest)]
    for _ in range(2):
        download_archives(archives, tmp_path / "root", "ask the owners")
    assert (tmp_path / "root/set/images/a.png").read_bytes() == b"picture"
    assert len(Handler.requests) == 1


@pytest.mark.parametrize(
    "archives",
    [
        [],
        [Archive("a.zip", creates="a")],
        [Archive("a.zip", creates="a", url="http://127.0.0.1:9/a.zip")],  # nobody has published its checksum
    ],
)
def test_what_needs_an_account_says_where_to_ask(archives, tmp_path):
    with pytest.raises(DataError, match="without you") as error:
        download_archives(archives, tmp_path, "ask the owners at example.org")
    assert "ask the owners at example.org" in str(error.value)


def test_placed_archive_is_verified_when_asked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/b.txt", "text")
    wrong = [Archive("a.zip", creates="a", sha256="0" * 64)]
    with pytest.raises(DataError, match="archive is not the published one"):
        unpack_archives(wrong, tmp_path, checksum=True)
    right = [Archive("a.zip", creates="a", sha256=file_sha256(tmp_path / "a.zip"))]
    unpack_archives(right, tmp_path, checksum=True)
    assert (tmp_path / "a/b.txt").read_text() == "text"


def zipped(path, *members):
    """Write a zip of (name or ZipInfo, content)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)


def tarred(path, *members):
    """Write a tar of (name or TarInfo, content)."""
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as archive:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def link_in_zip():
    info = zipfile.ZipInfo("set/link.png")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


def in_tar(kind):
    info = tarfile.TarInfo("set/special.png")
    info.type, info.linkname = kind, "/etc/hostname"
    return info


UNSAFE = [
    (zipped, "set.zip", "../outside.txt", "leads out"),
    (zipped, "set.zip", "set/../../outside.txt", "leads out"),
    (zipped, "set.zip", "..\\outside.txt", "leads out"),
    (zipped, "set.zip", "/tmp/outside.txt", "absolute name"),
    (zipped, "set.zip", "C:\\outside.txt", "absolute name"),
    (zipped, "set.zip", link_in_zip(), "a link"),
    (tarred, "set.tar", "../outside.txt", "leads out"),
    (tarred, "set.tar.gz", "set/../../outside.txt", "leads out"),
    (tarred, "set.tar", "/tmp/outside.txt", "absolute name"),
    (tarred, "set.tar", in_tar(tarfile.SYMTYPE), "a link"),
    (tarred, "set.tgz", in_tar(tarfile.LNKTYPE), "a link"),
    (tarred, "set.tar", in_tar(tarfile.CHRTYPE), "a device"),
    (tarred, "set.tar", in_tar(tarfile.FIFOTYPE), "a device"),
]


@pytest.mark.parametrize(("pack", "name", "member", "message"), UNSAFE)
def test_what_leads_elsewhere_is_refused_by_name(pack, name, member, message, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    content = b"" if isinstance(member, tarfile.TarInfo) else b"text"
    pack(root / name, ("set/good.png", b"picture"), (member, content))
    with pytest.raises(DataError, match="was not unpacked") as error:
        unpack_archives([Archive(name, creates="set")], root, checksum=False)
    assert message in str(error.value)
    shown = member if isinstance(member, str) else getattr(member, "filename", None) or member.name
    assert repr(shown) in str(error.value)
    assert [path.name for path in root.iterdir()] == [name]
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


class TestSizes:
    @pytest.mark.parametrize(("pack", "name"), [(zipped, "set.zip"), (tarred, "set.tar.gz")])
    def test_a_bomb_is_refused(self, pack, name, tmp_path):
        pack(tmp_path / name, *((f"set/{number}.png", bytes(30_000_000)) for number in range(4)))
        with pytest.raises(DataError, match="more than is taken") as error:
            unpack_archives([Archive(name, creates="set")], tmp_path, checksum=False)
        assert "100 GB, 200 times" in str(error.value)
        assert "'set/3.png'" in str(error.value)
        assert [path.name for path in tmp_path.iterdir()] == [name]

    def test_a_few_empty_masks_are_taken(self, tmp_path):
        zipped(tmp_path / "set.zip", ("set/a.bmp", bytes(20_000_000)))
        unpack_archives([Archive("set.zip", creates="set")], tmp_path, checksum=False)
        assert (tmp_path / "set/a.bmp").stat().st_size == 20_000_000

    def test_too_many_files(self, tmp_path, monkeypatch):
        monkeypatch.setattr(download, "MOST_MEMBERS", 3)
        tarred(tmp_path / "set.tar", *((f"set/{number}", b"") for number in range(4)))
        with pytest.raises(DataError, match="more than is taken"):
            unpack_archives([Archive("set.tar", creates="set")], tmp_path, checksum=False)

    def test_a_header_of_gigabytes_is_not_read(self, tmp_path):
        header = tarfile.TarInfo("pax")
        header.type, header.size = tarfile.XHDTYPE, 8 << 30
        with gzip.open(tmp_path / "set.tar.gz", "wb") as file:
            file.write(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))
        with pytest.raises(DataError, match="damaged or of another kind"):
            unpack_archives([Archive("set.tar.gz", creates="set")], tmp_path, checksum=False)


class TestUnpacking:
    """Of archives without a folder of their own, as CHASE_DB1's and STARE's are."""

    ARCHIVE = Archive("set.zip", creates="set", into="set")

    @pytest.fixture
    def root(self, tmp_path):
        zipped(tmp_path / "set.zip", *((f"{number}.png", b"picture %d" % number) for number in range(3)))
        return tmp_path

    def assert_unpacked(self, root):
        assert sorted(path.name for path in root.iterdir()) == ["set", "set.zip"]
        assert sorted(path.name for path in (root / "set").iterdir()) == ["0.png", "1.png", "2.png"]
        assert (root / "set/2.png").read_bytes() == b"picture 2"

    @pytest.mark.parametrize("call", ["shutil.copyfileobj", "os.replace"])
    def test_killed_anywhere_and_started_again(self, root, call):
        code = (
            "import os, pathlib, shutil\n"
            "from topolora_monai.data.download import Archive, unpack_archives\n"
            f"{call} = lambda *_: os._exit(9)\n"
            f"unpack_archives([Archive('set.zip', creates='set', into='set')], pathlib.Path({str(root)!r}), False)"
        )
        assert run_code(code).returncode == 9
        assert not (root / "set").exists()
        assert len(list(root.iterdir())) == 2  # the archive, and what was being unpacked
        unpack_archives([self.ARCHIVE], root, checksum=False)
        self.assert_unpacked(root)

    def test_full_disk_and_started_again(self, root, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as until_then:
            until_then.setattr(shutil, "copyfileobj", full)
            with pytest.raises(OutputError, match="free some space, or unpack it yourself"):
                unpack_archives([self.ARCHIVE], root, checksum=False)
        assert [path.name for path in root.iterdir()] == ["set.zip"]
        unpack_archives([self.ARCHIVE], root, checksum=False)
        self.assert_unpacked(root)

    def test_an_empty_folder_does_not_count(self, root):
        (root / "set").mkdir()
        unpack_archives([self.ARCHIVE], root, checksum=False)
        self.assert_unpacked(root)

    def test_a_folder_that_holds_something_is_left_alone(self, root):
        (root / "set").mkdir()
        (root / "set/mine.png").touch()
        unpack_archives([self.ARCHIVE], root, checksum=False)
        assert [path.name for path in (root / "set").iterdir()] == ["mine.png"]

    def test_marker_comes_last(self, root, monkeypatch):
        zipped(root / "all.zip", ("images/a.png", b"a"), ("manual/a.png", b"b"))
        replace, moved = os.replace, []
        monkeypatch.setattr(os, "replace", lambda source, target: (moved.append(target.name), replace(source, target)))
        unpack_archives([Archive("all.zip", creates="images")], root, checksum=False)
        assert moved == ["manual", "images"]

    @pytest.mark.parametrize("kept", [0, 40, -30])
    def test_truncated(self, root, kept):
        (root / "set.zip").write_bytes((root / "set.zip").read_bytes()[:kept])
        with pytest.raises(DataError, match="damaged or of another kind"):
            unpack_archives([self.ARCHIVE], root, checksum=False)
        assert [path.name for path in root.iterdir()] == ["set.zip"]

    @pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
    def test_truncated_tar(self, tmp_path, name):
        tarred(tmp_path / name, ("a/b.png", bytes(range(256)) * 200))
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match="damaged or of another kind"):
            unpack_archives([Archive(name, creates="a")], tmp_path, checksum=False)
        assert [path.name for path in tmp_path.iterdir()] == [name]


def test_archive_for_other_tools(tmp_path):
    (tmp_path / "a.rar").touch()
    with pytest.raises(DataError, match="unpacked by hand"):
        unpack_archives([Archive("a.rar", creates="a")], tmp_path, checksum=False)
