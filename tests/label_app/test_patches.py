"""Every patch: the defect without it, and nothing of it with it."""

import hashlib
import importlib.metadata
import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from topolora_monai.cli import main
from topolora_monai.errors import ConfigError
from topolora_monai.label_app import patches


class TestVersion:
    def test_another_version_is_refused(self, monkeypatch):
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.9.0")
        with pytest.raises(ConfigError, match=r"expected: 0\.8\.5\n  found:    0\.9\.0"):
            patches.apply_patches()

    def test_missing(self, monkeypatch, capsys):
        def version(name):
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, "version", version)
        assert main(["label", "--studies", "nowhere"]) == 1
        assert "MONAI Label is not installed" in capsys.readouterr().err


class TestCommand:
    """What is refused before the server starts."""

    @pytest.fixture(autouse=True)
    def installed(self, monkeypatch):
        monkeypatch.setattr(patches, "check_version", lambda: None)

    def test_open_to_other_machines(self, tmp_path, capsys):
        assert main(["label", "--studies", str(tmp_path), "--host", "0.0.0.0"]) == 1
        assert "without signing in" in capsys.readouterr().err

    def test_no_such_adapter(self, tmp_path, capsys):
        assert main(["label", "--studies", str(tmp_path), "--adapter", str(tmp_path / "a.safetensors")]) == 1
        assert "check --adapter" in capsys.readouterr().err

    def test_name_of_an_adapter(self, tmp_path, capsys):
        (tmp_path / "a.safetensors").touch()
        assert main(["label", "--studies", str(tmp_path), "--adapter", f"../x={tmp_path / 'a.safetensors'}"]) == 1
        assert "refused" in capsys.readouterr().err


def test_each_says_what_upstream_would_need():
    names = [patch.name for patch in patches.PATCHES]
    assert len(set(names)) == len(names)
    for patch in patches.PATCHES:
        assert patch.defect
        assert patch.upstream
        assert "http" not in patch.defect + patch.upstream


def test_coroutines_become_plain_functions():
    async def endpoint(image: str, size: int = 0) -> str:
        return f"{image} {size}"

    async def waiting():
        import asyncio

        await asyncio.sleep(0)

    assert patches.in_threads(endpoint)("im1", size=3) == "im1 3"
    with pytest.raises(RuntimeError, match="waits"):
        patches.in_threads(waiting)()


class TestMonaiLabel:
    @pytest.fixture(autouse=True)
    def installed(self):
        pytest.importorskip("monailabel", reason="needs MONAI Label: run `make label-test`")
        import topolora_monai.label_app.main  # noqa: F401 - applies the patches

    def test_batch_without_gpu(self, without):
        from monailabel.interfaces.tasks.batch_infer import BatchInferTask

        class Store:
            def list_images(self):
                return ["im0"]

        devices = []

        def infer(request, store):
            devices.append(request["device"])
            return {}

        BatchInferTask()({"images": "all", "multi_gpu": True}, Store(), infer)
        assert devices == ["cpu"]
        without("batch_without_gpu")
        with pytest.raises(ZeroDivisionError):
            BatchInferTask()({"images": "all", "multi_gpu": True}, Store(), infer)

    def test_batch_goes_on(self, without, caplog):
        from monailabel.interfaces.tasks.batch_infer import BatchInferTask

        class Store:
            def list_images(self):
                return ["im0", "im1"]

        def infer(request, store):
            if request["image"] == "im0":
                raise ValueError("it is damaged")
            return {"label": "mask"}

        request = {"images": "all", "multi_gpu": False, "max_workers": 1}
        assert BatchInferTask()(request, Store(), infer) == {"im0": {}, "im1": {"label": "mask"}}
        assert "no mask of im0: it is damaged" in caplog.text
        without("batch_goes_on")
        with pytest.raises(ValueError, match="it is damaged"):
            BatchInferTask()(request, Store(), infer)

    def test_training_from_scratch(self, without):
        from monailabel.tasks.train.bundle import BundleTrainTask

        task = object.__new__(BundleTrainTask)
        handlers = []
        task._load_checkpoint("model.pt", False, handlers)
        assert handlers == []
        without("training_from_scratch")
        with pytest.raises(TypeError):
            task._load_checkpoint("model.pt", False, handlers)

    def test_training_goes_on_from_a_checkpoint_still(self, tmp_path):
        from monailabel.tasks.train.bundle import BundleConstants, BundleTrainTask

        task = object.__new__(BundleTrainTask)
        task.const, task.model_dict_key, task.load_strict = BundleConstants(), "model", False
        (tmp_path / "model.pt").touch()
        handlers = []
        task._load_checkpoint(str(tmp_path / "model.pt"), True, handlers)
        assert handlers[0]["_target_"] == "CheckpointLoader"

    def test_scoring_storm(self, without, client, monkeypatch):
        from monailabel.interfaces import app as interface
        from monailabel.interfaces.utils.app import app_instance

        started = []

        class Tasks:
            @staticmethod
            def run(method, request=None, **options):
                started.append(request["method"])
                return {}, None

        monkeypatch.setattr(interface, "AsyncTask", Tasks)
        app = app_instance()
        app._server_mode = app._auto_update_scoring = True
        for _ in range(3):
            client.post("/activelearning/random", json={})
        assert started == []
        app.async_scoring("topology")
        assert started == ["topology"]
        without("scoring_storm")
        client.post("/activelearning/random", json={})
        assert len(started) == 4

    def test_checksum(self, without, client, studies):
        """Of an image whose digest begins with a figure of the algorithm's name."""
        for number in range(300):
            content = (studies / "im0.png").read_bytes() + str(number).encode()
            digest = hashlib.sha256(content).hexdigest()
            if digest[0] in "256":
                break
        (studies / "im0.png").write_bytes(content)

        def status(checksum):
            return client.head("/datastore/image", params={"image": "im0", "check_sum": checksum}).status_code

        assert status(f"SHA256:{digest}") == 200
        assert status(digest) == 200
        assert status(f"SHA256:{digest[1:]}") == 404
        without("checksum")
        assert status(f"SHA256:{digest}") == 404

    def test_empty_archive(self, without, client, mask_file, tmp_path, monkeypatch):
        import tempfile
        import zipfile

        from tests.label_app.conftest import upload

        assert client.get("/datastore/dataset").status_code == 404
        client.put("/datastore/label?image=im1", **upload(mask_file))
        (tmp_path / "temporary").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
        archive = zipfile.ZipFile(io.BytesIO(client.get("/datastore/dataset").content))
        assert sorted(archive.namelist()) == ["image/im1.png", "label/im1.png"]
        assert list((tmp_path / "temporary").iterdir()) == []
        without("empty_archive")
        assert client.get("/datastore/dataset").status_code == 200
        assert len(list((tmp_path / "temporary").iterdir())) == 1

    def test_submissions(self, without, client, studies, tmp_path):
        Image.new("L", (9, 9)).save(tmp_path / "small.png")

        def status(content, name="mask.png"):
            files = {"label": (name, content)}
            return client.put("/datastore/label?image=im1", files=files).status_code

        small = (tmp_path / "small.png").read_bytes()
        contents = {"of another size": small, "damaged": small[:40], "no image": b"<html>"}
        assert {name: status(content) for name, content in contents.items()} == dict.fromkeys(contents, 422)
        assert not (studies / "labels").exists()
        without("submissions")
        assert {name: status(content) for name, content in contents.items()} == dict.fromkeys(contents, 200)
        assert (studies / "labels/final/im1.png").read_bytes() == b"<html>"

    def test_regions(self, without, client):
        from xml.etree import ElementTree

        def answer():
            return client.post("/infer/wsi/vessels?image=im1&output=asap", json={}).content

        assert ElementTree.fromstring(answer()).tag == "ASAP_Annotations"
        without("regions")
        assert answer().startswith(b"\x89PNG")

    def test_dicomweb(self, without, tmp_path, monkeypatch):
        """Programs from elsewhere are run without it; the rest needs a DICOM server, see ``test_orthanc``."""
        import shutil

        import monai.apps
        from monailabel.interfaces.app import MONAILabelApp

        downloaded = []
        monkeypatch.setattr(monai.apps, "download_and_extract", lambda url, output_dir: downloaded.append(url))
        monkeypatch.setattr(shutil, "which", lambda name: None)
        app = object.__new__(MONAILabelApp)
        app.app_dir = str(tmp_path)
        app._download_dcmqi_tools()
        assert downloaded == []
        without("dicomweb")
        app._download_dcmqi_tools()
        assert len(downloaded) == 1

    def test_settings(self, without, client, monkeypatch):
        from monailabel.utils.async_tasks import task

        monkeypatch.setattr(task, "run_background_task", lambda *arguments: {"id": "begun"})
        without("settings")
        assert client.post("/scoring/entropy", json={"passes": "many"}).json()["id"] == "begun"
        assert client.post("/batch/infer/tuned", json={"max_workers": "many"}).json()["id"] == "begun"

    def test_log_lines(self, without, client, monkeypatch):
        from monailabel.utils.async_tasks import utils

        told = {"id": "x", "status": "ERROR", "details": ["a secret"], "request": {}}
        monkeypatch.setitem(utils.background_tasks, "scoring", [told])
        without("log_lines")
        assert "a secret" in client.get("/scoring/").text

    def test_nothing_known(self, without, client):
        without("nothing_known")
        for path in ("/datastore/image/info?image=nope", "/datastore/label/info?label=im0&tag=final"):
            assert (client.get(path).status_code, client.get(path).json()) == (200, {})

    def test_log_page(self, without, client):
        from monailabel.config import settings

        (Path(settings.MONAI_LABEL_APP_DIR) / "logs").mkdir()
        (Path(settings.MONAI_LABEL_APP_DIR) / "logs/app.log").write_text("a line\n")
        without("log_page")
        assert 'src="https://' in client.get("/logs/").text

    def test_archives(self, without, client, tmp_path):
        def send(name):
            stream = io.BytesIO()
            with tarfile.open(fileobj=stream, mode="w") as archive:
                member = tarfile.TarInfo(name)
                member.size = 1
                archive.addfile(member, io.BytesIO(b"x"))
            return client.put("/session/?uncompress=true", files={"files": ("a.tar", stream.getvalue())}).status_code

        assert send("../../outside.png") == 400
        send(str(tmp_path / "outside.png"))  # upstream's own archives hold such names; it is unpacked inside
        assert [path.name for path in tmp_path.iterdir()].count("outside.png") == 0
        without("archives")
        assert send(str(tmp_path / "outside.png")) == 200
        assert (tmp_path / "outside.png").exists()


class TestProxy:
    @pytest.fixture(autouse=True)
    def installed(self):
        pytest.importorskip("monailabel", reason="needs MONAI Label: run `make label-test`")

    @pytest.fixture
    def dicom(self):
        """A DICOM server that says which of its pages was asked for."""
        import threading
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def do_GET(self):
                body = f"{self.path} {self.headers.get('authorization')}".encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/dicom-web"
        server.shutdown()

    def test_all_of_the_server_without_the_patch(self, without, make_client, dicom, monkeypatch):
        from monailabel.config import settings

        client = make_client(without=["names"])
        monkeypatch.setattr(settings, "MONAI_LABEL_STUDIES", dicom)
        assert client.get("/proxy/dicom/wado/..%2fsystem").status_code == 400
        without("proxy")
        assert client.get("/proxy/dicom/wado/..%2fsystem").text.startswith("/system")

    def test_dicomweb_alone(self, client, dicom, monkeypatch):
        from monailabel.config import settings

        assert client.get("/proxy/dicom/qido/studies").status_code == 404
        monkeypatch.setattr(settings, "MONAI_LABEL_STUDIES", dicom)
        monkeypatch.setattr("topolora_monai.label_app.requests_check._check_known", lambda request: None)
        found = client.get("/proxy/dicom/qido/studies?limit=3", headers={"authorization": "Bearer mine"})
        assert found.text == "/dicom-web/studies?limit=3 None"
        for path in ("..%2fsystem", "%2e%2e/system", "a/..%2f..%2fsystem", "..%5csystem", "%252e%252e%252fsystem"):
            assert client.get(f"/proxy/dicom/wado/{path}").status_code in (400, 404)
            assert "system" not in client.get(f"/proxy/dicom/wado/{path}").text.replace("'", "")
