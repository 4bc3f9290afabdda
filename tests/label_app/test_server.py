"""The REST interface: every rule, with and without it."""

import asyncio
import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("monailabel", reason="needs MONAI Label: run `make label-test`")

from tests.label_app.conftest import upload
from tests.label_app.test_names import HARMFUL

SENDABLE = [name for name in HARMFUL if name]


def detail(response):
    return response.json()["detail"]


class TestSegmentation:
    def test_mask_is_that_of_the_bundle(self, client, studies, bundle):
        from monai.bundle import ConfigParser

        response = client.post("/infer/vessels?image=im1&output=image")
        assert response.status_code == 200, response.text
        found = np.asarray(Image.open(io.BytesIO(response.content)))
        parser = ConfigParser()
        parser.read_config(bundle / "configs/inference.yaml")
        parser["bundle_root"] = str(bundle)
        item = parser.get_parsed_content("preprocessing")({"image": str(studies / "im1.png")})
        logits = parser.get_parsed_content("inferer")(item["image"][None], parser.get_parsed_content("network"))
        mask = parser.get_parsed_content("postprocessing")({"pred": logits[0].detach()})["pred"]
        mask = np.asarray(mask).T  # MONAI Label's own writer takes (width, height)
        assert found.shape == (50, 70)
        assert 0 < found.sum() < found.size
        assert (found != mask).sum() <= 1

    def test_params_come_with_the_mask(self, client):
        response = client.post("/infer/vessels?image=im1&output=json")
        assert response.json()["label_names"] == {"vessel": 1}
        assert response.json()["pixels"]["vessel"] > 0

    def test_uploaded_image(self, client, studies):
        expected = client.post("/infer/vessels?image=im1&output=image").content
        response = client.post("/infer/vessels?output=image", **upload(studies / "im1.png", "file"))
        assert response.content == expected

    def test_kept_when_asked(self, client, studies):
        form = {"data": {"params": json.dumps({"save_label": True, "label_tag": "original"})}}
        assert client.post("/infer/vessels?image=im1", **form).status_code == 200
        assert (studies / "labels/original/im1.png").is_file()
        assert client.get("/datastore/").json()["label_tags"] == {"original": 1}

    @pytest.mark.parametrize("suffix", [".png", ".tif", ".nrrd", ".nii.gz"])
    def test_kinds_of_files(self, client, suffix, tmp_path):
        import SimpleITK

        expected = np.asarray(Image.open(io.BytesIO(client.post("/infer/vessels?image=im1&output=image").content)))
        form = {"data": {"params": json.dumps({"result_extension": suffix})}}
        (tmp_path / f"found{suffix}").write_bytes(client.post("/infer/vessels?image=im1&output=image", **form).content)
        found = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / f"found{suffix}")))
        np.testing.assert_array_equal(found.squeeze(), expected)

    def test_volume_slice_by_slice_in_its_geometry(self, client, studies, tmp_path):
        import nibabel

        values = np.random.default_rng(0).random((40, 36, 3), dtype=np.float32)
        affine = np.diag([0.5, 0.7, 3, 1]) + np.eye(4, k=3) * 5
        nibabel.save(nibabel.Nifti1Image(values, affine), studies / "volume.nii.gz")
        response = client.post("/infer/vessels?image=volume&output=image")
        assert response.status_code == 200, response.text
        (tmp_path / "found.nii.gz").write_bytes(response.content)
        found = nibabel.load(tmp_path / "found.nii.gz")
        assert found.shape == (40, 36, 3)
        np.testing.assert_allclose(found.affine, affine)
        form = {"data": {"params": json.dumps({"result_extension": ".nrrd"})}}
        (tmp_path / "found.nrrd").write_bytes(client.post("/infer/vessels?image=volume&output=image", **form).content)
        import SimpleITK

        nrrd = SimpleITK.ReadImage(str(tmp_path / "found.nrrd"))
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(nrrd), np.asarray(found.dataobj).T)
        np.testing.assert_allclose(nrrd.GetSpacing(), (0.5, 0.7, 3), rtol=1e-5)


def barrier_app(parties):
    """The app's models replaced by one that answers once as many requests as parties are inside it."""
    from monailabel.interfaces.tasks.infer_v2 import InferTask
    from monailabel.interfaces.utils.app import app_instance

    barrier = threading.Barrier(parties)

    class Meeting(InferTask):
        def is_valid(self):
            return True

        def __call__(self, request):
            barrier.wait(timeout=10)
            return None, {"met": True}

    app_instance()._infers = {"meeting": Meeting("segmentation", [], 2, "")}
    return barrier


class TestRequestsSideBySide:
    def together(self, client, count):
        answers = []
        calls = [
            threading.Thread(target=lambda: answers.append(client.post("/infer/meeting?image=im0&output=json")))
            for _ in range(count)
        ]
        for call in calls:
            call.start()
        for call in calls:
            call.join(60)
        return [answer.status_code for answer in answers]

    def test_three_inferences_meet(self, make_client):
        with make_client() as client:
            barrier_app(3)
            assert self.together(client, 3) == [200] * 3

    def test_upstream_serves_one_after_the_other(self, make_client):
        with make_client(without=["threads"]) as client:
            barrier = barrier_app(2)
            threading.Timer(3, barrier.abort).start()
            assert self.together(client, 2) == [500] * 2

    def test_every_endpoint_that_computes_is_a_plain_function(self, client):
        waiting = {
            route.endpoint.__name__
            for route in client.app.routes
            if asyncio.iscoroutinefunction(getattr(route, "endpoint", None))
        }
        assert waiting <= {"proxy", "proxy_wado", "proxy_qido", "proxy_stow", "openapi"}


class TestNames:
    PLACES = (
        ("POST", "/infer/vessels", "image"),
        ("GET", "/datastore/image", "image"),
        ("GET", "/datastore/image/info", "image"),
        ("GET", "/topolora/api/picture", "image"),
        ("GET", "/topolora/api/label", "tag"),
        ("POST", "/infer/vessels", "session_id"),
        ("DELETE", "/datastore/image", "id"),
    )

    @pytest.mark.parametrize("name", SENDABLE)
    def test_refused_in_every_place(self, client, name, studies, tmp_path):
        (tmp_path / "secret").write_text("secret")
        for method, path, key in self.PLACES:
            query = {"image": "im0"} | {key: name} if key == "tag" else {key: name}
            response = client.request(method, path, params=query)
            assert response.status_code == 400, (method, path, key, response.text)
            assert b"secret" not in response.content.replace(name.encode(), b"").replace(b"secret'", b"")

    @pytest.mark.parametrize("name", SENDABLE)
    def test_refused_when_something_is_kept(self, client, name, mask_file, studies, tmp_path):
        before = sorted(tmp_path.rglob("*"))
        for query in ({"image": name}, {"image": "im0", "tag": name}):
            assert client.put("/datastore/label", params=query, **upload(mask_file)).status_code == 400
        assert client.put("/datastore/", params={"image": name}, **upload(mask_file, "file")).status_code == 400
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize(
        "params",
        [
            {"image": "/etc/passwd"}, {"image": "../im0"}, {"label": "/etc/passwd"}, {"session": {"image": "/etc"}},
            {"result_extension": "/../../../tmp/x.png"}, {"result_extension": "x/../../y.png"},
            {"result_extension": ".exe"}, {"label_tag": "../../x", "save_label": True}, {"image_path": "/etc/passwd"},
            {"model_filename": "../../x.pt"}, {"image": "im0\0.png"}, {"nested": {"image": "../x"}},
            {"images": ["im0", "../x"]}, {"bundle_path": "/tmp"},
        ],
    )  # fmt: skip
    def test_params_cannot_point_elsewhere(self, client, params):
        response = client.post("/infer/vessels?image=im0", data={"params": json.dumps(params)})
        assert response.status_code == 400
        response = client.post("/activelearning/random", json=params)
        assert response.status_code == 400

    def test_encoded_twice_in_the_path(self, client):
        for path in ("/session/%2e%2e", "/session/..%2f..%2fx", "/session/%2e%2e%2fx", "/session/abc"):
            assert client.get(path).status_code in (400, 404)
            assert client.delete(path).status_code in (400, 404, 405)

    def test_files_of_the_server_are_not_images(self, client, tmp_path, monkeypatch, studies):
        """Upstream takes any name of an existing file, such as one in the folder it was started in."""
        (tmp_path / "im9.png").write_bytes((studies / "im0.png").read_bytes())
        monkeypatch.chdir(tmp_path)
        assert client.post("/infer/vessels?image=im9.png").status_code == 404

    def test_needed_without_the_rule(self, make_client, studies, tmp_path):
        """An image outside is uploaded to and read; with the rule it is neither."""
        client = make_client(without=["names"])
        response = client.post("/infer/vessels?output=image", **upload(studies / "im1.png", "file"))
        assert response.status_code == 200
        (tmp_path / "outside.png").write_bytes((studies / "im1.png").read_bytes())
        found = client.post("/infer/vessels", params={"image": str(tmp_path / "outside.png"), "output": "image"})
        assert found.content == response.content

    def test_links_out_of_the_studies(self, client, studies, tmp_path):
        (tmp_path / "outside.png").write_bytes((studies / "im1.png").read_bytes())
        (studies / "link.png").symlink_to(tmp_path / "outside.png")
        (studies / "within.png").symlink_to(studies / "im1.png")
        assert client.get("/datastore/image?image=link").status_code == 404
        assert client.post("/infer/vessels?image=link").status_code == 404
        assert client.get("/datastore/image?image=within").status_code == 200
        names = [entry["image"] for entry in client.get("/topolora/api/images").json()]
        assert "link" not in names
        assert "within" in names

    def test_image_replaced_by_a_link(self, client, studies, tmp_path):
        assert client.get("/datastore/image?image=im1").status_code == 200
        (tmp_path / "outside.png").write_bytes(b"x")
        (studies / "im1.png").unlink()
        (studies / "im1.png").symlink_to(tmp_path / "outside.png")
        assert client.get("/datastore/image?image=im1").status_code == 404


class TestErrors:
    CASES = (
        ("POST", "/infer/nope?image=im0", 404, "no model 'nope'"),
        ("POST", "/infer/vessels?image=nope", 404, "no image 'nope'"),
        ("POST", "/infer/vessels", 400, "inference of nothing"),
        ("POST", "/infer/vessels?image=im0&output=dicom_seg", 400, "DICOM server"),
        ("POST", "/infer/vessels?session_id=00000000-0000-0000-0000-000000000000", 404, "no such session"),
        ("POST", "/train/nope", 404, "no model 'nope'"),
        ("POST", "/batch/infer/nope", 404, "no model 'nope'"),
        ("POST", "/scoring/nope", 404, "no scoring method 'nope'"),
        ("POST", "/activelearning/nope", 404, "no strategy 'nope'"),
        ("DELETE", "/datastore/image?id=nope", 404, "no image 'nope'"),
        ("DELETE", "/datastore/label?id=im0&tag=final", 404, "no label final"),
        ("GET", "/datastore/dataset", 404, "no image has a final label"),
        ("GET", "/datastore/label?label=im0&tag=final", 404, "NOT Found"),
        ("GET", "/topolora/api/picture?image=nope", 404, "no image 'nope'"),
        ("GET", "/topolora/api/label?image=im0", 404, "no label final"),
        ("GET", "/datastore/image/info?image=nope", 404, "no image 'nope'"),
        ("GET", "/datastore/label/info?label=im0&tag=final", 404, "no label final"),
        ("PUT", "/model/vessels", 405, "Method Not Allowed"),
        ("POST", "/reload", 405, ""),
    )

    @pytest.mark.parametrize(("method", "path", "status", "text"), CASES)
    def test_is_a_status_and_a_sentence(self, client, method, path, status, text):
        response = client.request(method, path)
        assert (response.status_code, text in response.text) in ((status, True), (404 if not text else status, True))

    def test_params_that_are_no_json(self, client):
        response = client.post("/infer/vessels?image=im0", data={"params": "{"})
        assert response.status_code == 400
        assert "no JSON" in detail(response)

    def test_damaged_image(self, client, studies):
        (studies / "im0.png").write_bytes((studies / "im0.png").read_bytes()[:200])
        response = client.post("/infer/vessels?image=im0")
        assert response.status_code == 422
        assert "im0.png" in detail(response)

    def test_upstream_fails_with_500(self, make_client):
        client = make_client(without=["errors", "names"])
        assert client.post("/infer/nope?image=im0").status_code == 500


class TestTasks:
    """What runs in processes of its own."""

    @pytest.fixture
    def nothing_starts(self, monkeypatch):
        from monailabel.utils.async_tasks import task

        monkeypatch.setattr(task, "run_background_task", lambda *arguments: pytest.fail("a process was started"))

    @pytest.mark.parametrize(
        ("path", "params", "status"),
        [
            ("/train/tuned", {"max_epochs": "many"}, 400), ("/train/tuned", {"learning_rate": [1]}, 400),
            ("/train/tuned", {"validation_fraction": 2}, 400), ("/train/", {"max_epochs": 0}, 400),
            ("/train/", {"tuned": {"max_epochs": "many"}}, 400), ("/scoring/entropy", {"passes": "many"}, 400),
            ("/scoring/entropy", {"adapter": "nope"}, 400), ("/batch/infer/tuned", {"max_batch_size": "all"}, 400),
            ("/batch/infer/tuned", {"max_workers": -1}, 400), ("/batch/infer/tuned", {"images": ["im0", "nope"]}, 404),
        ],
    )  # fmt: skip
    def test_wrong_parameters_are_told_at_once(self, client, nothing_starts, path, params, status):
        response = client.post(path, json=params)
        assert (response.status_code, bool(response.json()["detail"])) == (status, True)

    @pytest.mark.parametrize("path", ["/train/", "/scoring/", "/batch/infer", "/train/?all=true"])
    def test_log_lines_reach_nobody(self, client, monkeypatch, path):
        from collections import deque

        from monailabel.utils.async_tasks import utils

        told = {
            "id": "x",
            "status": "ERROR",
            "details": deque(["a secret"]),
            "request": {"model": "tuned"},
        }
        for kind in ("train", "scoring", "batch_infer"):
            monkeypatch.setitem(utils.background_tasks, kind, [dict(told)])
        response = client.get(path)
        assert response.status_code == 200
        assert "secret" not in response.text
        found = response.json()[0] if "all" in path else response.json()
        assert found["details"][-1].startswith("it failed")  # 3D Slicer shows the last one


class TestPages:
    """That load nothing from elsewhere, which the content policy would not let them."""

    def check(self, response):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/html")
        assert "<script" not in response.text
        assert "//" not in response.text

    def test_interface(self, client):
        response = client.get("/docs")
        self.check(response)
        for told in ("POST /infer/{model}", "GET /topolora/api/labels", "All versions of an image", "session_id"):
            assert told in response.text

    def test_log(self, client):
        from monailabel.config import settings

        assert client.get("/logs/").status_code == 404
        logs = Path(settings.MONAI_LABEL_APP_DIR) / "logs"
        logs.mkdir()
        (logs / "app.log").write_text("first\n<b>second</b>\nthird\n")
        response = client.get("/logs/?lines=2&refresh=5")
        self.check(response)
        assert "first" not in response.text
        assert "&lt;b&gt;second&lt;/b&gt;\nthird" in response.text
        assert 'http-equiv="refresh" content="5"' in response.text
        assert client.get("/logs/?lines=1&text=true").text == "third\n"


class TestSizes:
    def test_upload(self, make_client, studies, mask_file):
        client = make_client(max_upload_mb=0.001)
        response = client.post("/infer/vessels", **upload(studies / "im0.png", "file"))
        assert response.status_code == 413

    def test_upload_in_pieces_without_its_length(self, make_client):
        client = make_client(max_upload_mb=0.001)
        pieces = (b"x" * 500 for _ in range(10))
        headers = {"content-type": "application/json"}
        assert client.post("/activelearning/random", content=pieces, headers=headers).status_code == 413

    def test_taken_without_the_rule(self, make_client, studies):
        client = make_client(without=["sizes"], max_upload_mb=0.001)
        assert client.post("/infer/vessels", **upload(studies / "im0.png", "file")).status_code == 200

    @pytest.mark.parametrize("path", ["/infer/vessels?image=im0", "/topolora/api/picture?image=im0"])
    def test_image(self, make_client, path):
        client = make_client(max_megapixels=0.003)
        response = client.request("POST" if "infer" in path else "GET", path)
        assert response.status_code == 413
        assert "50 x 70" in detail(response)

    def test_picture_that_unpacks_to_gigabytes(self, client, studies):
        """Refused by its header, without being decoded."""
        import struct
        import zlib

        def chunk(kind, data):
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
        (studies / "bomb.png").write_bytes(bomb)
        assert client.post("/infer/vessels?image=bomb").status_code == 413

    def test_archive(self, make_client, tmp_path):
        import zipfile

        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.png", b"0" * 2_000_000)
        client = make_client(max_upload_mb=1)
        files = {"files": ("a.zip", (tmp_path / "a.zip").read_bytes())}
        assert client.put("/session/?uncompress=true", files=files).status_code == 413


class TestSites:
    def test_other_sites_are_refused(self, client):
        foreign = {"origin": "https://evil.example"}
        assert client.get("/info/", headers=foreign).status_code == 403
        assert client.post("/infer/vessels?image=im0", headers=foreign).status_code == 403
        assert "access-control-allow-origin" not in client.get("/info/", headers=foreign).headers
        assert client.get("/info/", headers={"origin": "http://testserver"}).status_code == 200

    def test_allowed_site(self, make_client):
        client = make_client(cors_origins=["https://ohif.example"])
        response = client.get("/info/", headers={"origin": "https://ohif.example"})
        assert response.headers["access-control-allow-origin"] == "https://ohif.example"
        assert client.get("/info/", headers={"origin": "https://evil.example"}).status_code == 403
        asked = {"origin": "https://ohif.example", "access-control-request-method": "POST"}
        assert client.options("/infer/vessels", headers=asked).status_code == 200

    def test_served_without_the_rule(self, make_client):
        client = make_client(without=["sites"], allowed_hosts=["localhost"])
        foreign = {"origin": "https://evil.example", "host": "evil.example"}
        response = client.post("/infer/vessels?image=im0", headers=foreign)
        assert response.status_code == 200
        assert "content-security-policy" not in response.headers

    def test_what_a_page_can_send_without_asking_is_refused(self, client):
        """JSON is taken without its type, so it is the origin that keeps other pages out."""
        for kind in ({}, {"content-type": "text/plain"}):
            sent = {"content": b'{"client_id": "x"}', "headers": kind | {"origin": "https://evil.example"}}
            assert client.post("/activelearning/random", **sent).status_code == 403
        assert client.post("/activelearning/random", content=b'{"client_id": "x"}').status_code == 200

    def test_other_names_of_the_server(self, make_client):
        client = make_client(allowed_hosts=["localhost"])
        assert client.get("/health", headers={"host": "evil.example"}).status_code == 400
        assert client.get("/health", headers={"host": "localhost:8000"}).status_code == 200

    def test_policy_of_each_page(self, client):
        """OHIF decodes by WebAssembly in workers; our own page does not, and may not."""
        assert "wasm" not in client.get("/health").headers["content-security-policy"]
        policy = client.get("/ohif/").headers["content-security-policy"]
        rules = dict(rule.split(maxsplit=1) for rule in policy.split("; "))
        assert "'wasm-unsafe-eval'" in rules["script-src"].split()
        assert "blob:" in rules["worker-src"].split()
        assert rules["frame-ancestors"] == "'none'"

    def test_upstream_lets_every_site_read(self):
        from fastapi.testclient import TestClient
        from monailabel.app import app

        origin = {"origin": "https://evil.example"}
        assert TestClient(app).get("/openapi.json", headers=origin).headers["access-control-allow-origin"]


class TestPictures:
    def test_native_and_thumbnail(self, client, studies):
        response = client.get("/topolora/api/picture?image=im2")
        assert response.headers["content-type"] == "image/png"
        assert response.headers["x-image-shape"] == "50,70"
        found = np.asarray(Image.open(io.BytesIO(response.content)))
        np.testing.assert_array_equal(found, np.asarray(Image.open(studies / "im2.png")))
        small = Image.open(io.BytesIO(client.get("/topolora/api/picture?image=im2&size=35").content))
        assert small.size == (35, 25)

    def test_sixteen_bits_and_tiff(self, client, studies):
        deep = (np.arange(50 * 70, dtype=np.uint16) * 18).reshape(50, 70)
        Image.fromarray(deep).save(studies / "deep.tif")
        for window, (low, high) in {"": (1, 99), "&window=0,100": (0, 100)}.items():
            answer = client.get(f"/topolora/api/picture?image=deep{window}").content
            found = np.asarray(Image.open(io.BytesIO(answer)))[..., 0].astype(int)
            least, most = np.percentile(deep, (low, high))
            assert np.abs(found - np.clip((deep - least) / (most - least), 0, 1) * 255).max() <= 1


class TestSessions:
    def test_image_is_kept_and_segmented(self, client, studies):
        expected = client.post("/infer/vessels?image=im1&output=image").content
        files = {"files": ("im1.png", (studies / "im1.png").read_bytes())}
        session = client.put("/session/", files=files).json()["session_id"]
        assert client.post(f"/infer/vessels?session_id={session}&output=image").content == expected
        assert client.get(f"/session/{session}").status_code == 200
        assert client.delete(f"/session/{session}").status_code == 200
        assert client.get(f"/session/{session}").status_code == 404

    @pytest.mark.parametrize("name", ["..", "a\0b.png", ".hidden"])
    def test_names_of_files(self, client, name):
        assert client.put("/session/", files={"files": (name, b"x")}).status_code in (400, 422)


def test_openapi_lists_the_interface(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/info/", "/infer/{model}", "/datastore/label", "/train/{model}", "/topolora/api/labels"} <= set(paths)
    assert "/reload" not in paths


def test_next_sample(client):
    found = client.post("/activelearning/random", json={"client_id": "test"}).json()
    assert found["id"] in ("im0", "im1", "im2", "im3")
    info = client.get("/datastore/image/info", params={"image": found["id"]}).json()
    assert info["strategy"]["random"]["client_id"] == "test"


class TestOrientation:
    def test_picture_mask_and_submission_are_upright(self, client, studies, mask_file, tmp_path):
        exif = Image.Exif()
        exif[274] = 6
        upright = Image.open(studies / "im1.png")
        upright.transpose(Image.Transpose.ROTATE_90).save(studies / "lying.png", exif=exif)
        shown = client.get("/topolora/api/picture?image=lying")
        assert shown.headers["x-image-shape"] == "50,70"
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(shown.content))), np.asarray(upright))
        masks = [client.post(f"/infer/vessels?image={name}&output=image").content for name in ("lying", "im1")]
        found, expected = (np.asarray(Image.open(io.BytesIO(mask))) for mask in masks)
        np.testing.assert_array_equal(found, expected)
        assert Image.open(io.BytesIO(masks[0])).getexif().get(274) is None
        assert client.get("/datastore/image/info?image=lying").json()["shape"] == [50, 70]
        assert client.put("/datastore/label?image=lying", **upload(mask_file)).status_code == 200
        Image.open(mask_file).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying.png")
        refused = client.put("/datastore/label?image=lying", **upload(tmp_path / "lying.png"))
        assert refused.status_code == 422
        assert "another size" in detail(refused)


def test_palette_of_white_and_black_is_a_label_as_it_shows(tmp_path):
    from topolora_monai.label_app.tasks.masks import read_label

    mask = np.eye(5, dtype=np.uint8)
    Image.fromarray(mask).save(tmp_path / "image.png")
    for first, colours in ((1 - mask, [255] * 3 + [0] * 3), (mask, [0] * 3 + [255] * 3), (mask, [0] * 3 + [128, 0, 0])):
        picture = Image.fromarray(first, mode="P")
        picture.putpalette(colours)
        picture.save(tmp_path / "a.png")
        np.testing.assert_array_equal(read_label(tmp_path / "a.png", tmp_path / "image.png"), mask)
