"""Downloads from a server of this process: pinned, resumed, refused; archives unpacked safely."""

import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from topolora_monai.data.download import Archive, download_archives, download_file, file_sha256, unpack_archives
from topolora_monai.errors import DataError, OutputError

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
    with pytest.raises(OutputError, match="cannot save"):
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


def test_archive_cannot_write_elsewhere(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / "a.tar", "w") as tar:
        member = tarfile.TarInfo("../outside.txt")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"text"))
    with pytest.raises(DataError, match="damaged or unsafe"):
        unpack_archives([Archive("a.tar", creates="a", into="a")], root, checksum=False)
    with zipfile.ZipFile(root / "b.zip", "w") as archive:
        archive.writestr("../outside.txt", "text")
    unpack_archives([Archive("b.zip", creates="b", into="b")], root, checksum=False)
    assert not (tmp_path / "outside.txt").exists()
    assert not (root / "outside.txt").exists()


def test_archive_for_other_tools(tmp_path):
    (tmp_path / "a.rar").touch()
    with pytest.raises(DataError, match="unpacked by hand"):
        unpack_archives([Archive("a.rar", creates="a")], tmp_path, checksum=False)
