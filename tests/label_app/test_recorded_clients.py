"""What 3D Slicer, OHIF, CVAT and QuPath send, replayed; ``recorded/`` describes it, read in their plugins' sources."""

import email
import hashlib
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("monailabel", reason="needs MONAI Label: run `make label-test`")

import SimpleITK

RECORDED = Path(__file__).with_name("recorded")
FIELD = re.compile(r"\{(\w+)\}")
SERIES = "1.2.826.0.1.3680043.8.498.1"


class Replay:
    """One client's requests by name, sent to the app with the values a person's work fills in."""

    def __init__(self, name, client):
        recorded = json.loads((RECORDED / f"{name}.json").read_text())
        self.requests = {request["name"]: request for request in recorded["requests"]}
        self.headers = {"origin": recorded["origin"]} if "origin" in recorded else {}
        self.client = client

    def __call__(self, name, status=200, **values):
        request = self.requests[name]
        form = {key: text(filled(value, values)) for key, value in request.get("form", {}).items()}
        files = {key: opened(filled(value, values)) for key, value in request.get("files", {}).items()}
        if form and not files:  # these clients send every form as multipart/form-data
            files, form = {key: (None, value) for key, value in form.items()}, {}
        headers = self.headers | request.get("headers", {})
        told = {"headers": headers, "params": filled(request.get("query", {}), values)}
        if "json" in request:
            told["json"] = filled(request["json"], values)
        elif "body" in request:  # without a content-type
            told["content"] = json.dumps(filled(request["body"], values)).encode()
        else:
            told |= {"files": files or None, "data": form or None}
        response = self.client.request(request["method"], filled(request["path"], values), **told)
        assert response.status_code == status, (name, response.text)
        answer = parts(response) if "multipart" in response.headers.get("content-type", "") else response
        if status == 200:
            self.check(request["reads"], answer)
        return answer

    def check(self, reads, answer):
        """Everything that the client goes on to read is there."""
        content = answer if isinstance(answer, dict) else None
        for path in reads if isinstance(reads, list) else []:
            found = content if content is not None else answer.json()
            for key in re.sub(r"\[\]|[:. ].*|\.\*\..*", "", path).split("."):
                assert key in found, (path, found)
                found = found[key]


def filled(value, values):
    """Names in braces replaced; a text that is one name alone becomes the value itself."""
    if isinstance(value, dict):
        return {key: filled(entry, values) for key, entry in value.items()}
    if isinstance(value, list):
        return [filled(entry, values) for entry in value]
    if not isinstance(value, str):
        return value
    whole = FIELD.fullmatch(value)
    return values[whole[1]] if whole else FIELD.sub(lambda found: str(values[found[1]]), value)


def text(value):
    return value if isinstance(value, str) else json.dumps(value)


def opened(path):
    return str(path), Path(path).read_bytes(), "application/octet-stream"


def parts(response):
    """Of an answer in parts: fields by name, and the one that has a file name as ``file``, with its ending."""
    head = f"content-type: {response.headers['content-type']}\r\n\r\n".encode()
    found = {}
    for part in email.message_from_bytes(head + response.content).get_payload():
        content = part.get_payload(decode=True)
        if part.get_filename():
            found |= {"file": content, "file_name": part.get_filename()}
        else:
            found[part.get_param("name", header="content-disposition")] = json.loads(content)
    return found


def read_itk(folder, content, name):
    (folder / name).write_bytes(content)
    return SimpleITK.ReadImage(str(folder / name))


def assert_same_geometry(label, image):
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(label, name)(), getattr(image, name)(), rtol=1e-5, err_msg=name)


def array(image):
    return SimpleITK.GetArrayFromImage(image)


@pytest.fixture
def automatic(client):
    """The mask of an image as the client has it without prompts."""

    def ask(image, model="tuned"):
        return np.asarray(Image.open(io.BytesIO(client.post(f"/infer/{model}?image={image}&output=image").content)))

    return ask


@pytest.fixture
def volume(studies):
    """A series as a volume, with axes turned and slices of 4 mm."""
    values = np.random.default_rng(0).random((3, 36, 40), dtype=np.float32)
    image = SimpleITK.GetImageFromArray(values)
    image.SetSpacing((0.5, 0.7, 4))
    image.SetOrigin((-12, 30, 5))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(studies / f"{SERIES}.nii.gz"))
    return SimpleITK.ReadImage(str(studies / f"{SERIES}.nii.gz"))


class TestSlicer:
    @pytest.fixture
    def slicer(self, client):
        return Replay("slicer", client)

    def test_from_first_image_to_submitted_label(self, slicer, studies, automatic, tmp_path):
        assert slicer("signing_in").json()["enabled"] is False
        info = slicer("info").json()
        assert info["labels"] == ["vessel"]
        kinds = {name: (model["type"], model["dimension"], model["labels"]) for name, model in info["models"].items()}
        assert kinds["tuned"] == ("segmentation", 2, {"vessel": 1})
        assert kinds["tuned_clicks"] == ("deepgrow", 2, {"vessel": 1})  # which shows the tools for clicks
        sample = slicer("next").json()
        downloaded = slicer("download", id=sample["id"]).content
        algorithm, _, digest = sample["checksum"].partition(":")
        assert hashlib.new(algorithm, downloaded).hexdigest() == digest
        image = read_itk(tmp_path, downloaded, sample["name"])
        assert sample["id"] in slicer("datastore").json()["objects"]

        answer = slicer("automatic", id=sample["id"])
        assert answer["file_name"].endswith(".nrrd")
        label = read_itk(tmp_path, answer["file"], "found.nrrd")
        assert label.GetPixelID() == SimpleITK.sitkUInt8
        assert_same_geometry(label, image)
        mask = array(label)
        np.testing.assert_array_equal(mask, automatic(sample["id"]))
        assert set(np.unique(mask)) == {0, 1}

        (row, column), (other_row, other_column) = np.argwhere(mask == 0)[5], np.argwhere(mask == 1)[-40]
        points = {"foreground": [[int(column), int(row), 0]], "background": [[int(other_column), int(other_row), 0]]}
        answer = slicer("clicks", id=sample["id"], slice=0, **points)
        clicked = array(read_itk(tmp_path, answer["file"], "clicked.nrrd"))
        assert (clicked[row, column], clicked[other_row, other_column]) == (1, 0)

        answer = slicer("box", id=sample["id"], slice=0, roi=[20, 39, 10, 29, 0, 0])
        boxed = array(read_itk(tmp_path, answer["file"], "boxed.nrrd"))
        changed = np.argwhere(boxed != mask)
        assert len(changed) > 0
        assert changed.min(axis=0).tolist() >= [10, 20]
        assert (changed.max(axis=0) <= [29, 39]).all()

        # Slicer keeps pictures as volumes of one slice.
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(clicked[None]), str(tmp_path / "label.nii.gz"))
        saved = slicer("submit", id=sample["id"], label_file=tmp_path / "label.nii.gz").json()
        assert (saved["image"], saved["tag"], saved["version"]) == (sample["id"], "final", 1)
        kept = SimpleITK.ReadImage(str(studies / f"labels/final/{sample['id']}.nii.gz"))
        np.testing.assert_array_equal(array(kept)[0], clicked)
        told = slicer("info").json()["datastore"]
        assert (told["completed"], told["total"]) == (1, 4)
        slicer("training", status=404)  # nothing is trained

    @pytest.mark.parametrize("suffix", [".jpg", ".tif"])
    def test_mask_lies_on_a_picture_with_a_resolution(self, slicer, studies, suffix, tmp_path):
        """ITK takes the dots per inch of a file for the size of its pixels."""
        Image.open(studies / "im1.png").save(studies / f"scan{suffix}", dpi=(72, 72))
        image = SimpleITK.ReadImage(str(studies / f"scan{suffix}"))
        assert image.GetSpacing()[0] == pytest.approx(25.4 / 72)
        answer = slicer("automatic", id="scan")
        assert_same_geometry(read_itk(tmp_path, answer["file"], "found.nrrd"), image)

    def test_clicks_in_a_slice_leave_the_others_empty(self, slicer, volume, tmp_path):
        """Slicer adds the answer to what the annotator drew in other slices."""
        answer = slicer("automatic", id=SERIES)
        before = read_itk(tmp_path, answer["file"], "automatic.nrrd")
        assert_same_geometry(before, volume)
        assert array(before).any(axis=(1, 2)).all()
        row, column = np.argwhere(array(before)[1] == 0)[3]
        answer = slicer("clicks", id=SERIES, slice=1, foreground=[[int(column), int(row), 1]], background=[])
        after = read_itk(tmp_path, answer["file"], "clicked.nrrd")
        assert_same_geometry(after, volume)
        assert array(after)[1, row, column] == 1
        assert not array(after)[[0, 2]].any()

    def test_image_of_its_own(self, slicer, studies, automatic, tmp_path):
        own = tmp_path / "own.png"
        own.write_bytes((studies / "im1.png").read_bytes())
        session = slicer("session", image_file=own).json()["session_id"]
        slicer("session_there", session=session)
        answer = slicer("of_session", id="MRHead", session=session)
        np.testing.assert_array_equal(array(read_itk(tmp_path, answer["file"], "found.nrrd")), automatic("im1"))
        assert slicer("upload", id="own", image_file=own).json() == {"image": "own"}
        assert (studies / "own.png").read_bytes() == own.read_bytes()

    def test_mask_that_was_made_beforehand(self, slicer, client, automatic, tmp_path):
        form = {"data": {"params": json.dumps({"save_label": True})}}
        assert client.post("/infer/tuned?image=im1", **form).status_code == 200
        kept = slicer("datastore").json()["objects"]["im1"]["labels"]["original"]["info"]
        assert kept["params"]["label_names"] == {"vessel": 1}
        answer = slicer("original", id="im1")
        assert 'filename="im1.png"' in answer.headers["content-disposition"]
        np.testing.assert_array_equal(array(read_itk(tmp_path, answer.content, "im1.png")), automatic("im1"))


class TestOhif:
    """As far as it goes without a DICOM server: a volume has the name of a series."""

    @pytest.fixture
    def ohif(self, client):
        return Replay("ohif", client)

    def test_from_first_image_to_clicks(self, ohif, volume, tmp_path):
        info = ohif("info").json()
        assert {name: model["type"] for name, model in info["models"].items()} == {
            "vessels": "segmentation", "tuned": "segmentation", "tuned_clicks": "deepgrow",
        }  # fmt: skip
        assert ohif("next").json()["id"]
        response = ohif("automatic", series=SERIES)
        before = read_itk(tmp_path, response.content, "automatic.nrrd")
        assert_same_geometry(before, volume)
        assert voxels(response.content, volume.GetSize()).tolist() == array(before).tolist()
        row, column = np.argwhere(array(before)[1] == 0)[3]
        response = ohif("clicks", series=SERIES, foreground=[[int(column), int(row), 1]], background=[])
        after = voxels(response.content, volume.GetSize())
        assert after[1, row, column] == 1
        np.testing.assert_array_equal(after[[0, 2]], array(before)[[0, 2]])
        ohif("training", status=404)

    def test_voxels_alone_become_a_label_in_the_geometry_of_the_image(self, ohif, volume, studies, tmp_path):
        expected = np.random.default_rng(1).integers(0, 2, volume.GetSize()[::-1], dtype=np.uint8)
        (tmp_path / "label.bin").write_bytes(expected.tobytes())
        assert ohif("submit", series=SERIES, label_file=tmp_path / "label.bin").json()["label"] == SERIES
        kept = SimpleITK.ReadImage(str(studies / f"labels/final/{SERIES}.nii.gz"))
        assert_same_geometry(kept, volume)
        np.testing.assert_array_equal(array(kept), expected)
        (tmp_path / "label.bin").write_bytes(bytes(7))
        ohif("submit", status=422, series=SERIES, label_file=tmp_path / "label.bin")


def voxels(content, size):
    """Of an NRRD, as its reader in the browser takes them: by its header's encoding, eight bits each."""
    import zlib

    head, _, data = content.partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
    assert fields["type"] in ("unsigned char", "uint8")
    assert fields["encoding"] in ("raw", "gzip")
    raw = zlib.decompress(data, 31) if fields["encoding"] == "gzip" else data
    return np.frombuffer(raw, np.uint8).reshape(size[::-1])


class TestCvat:
    @pytest.fixture
    def cvat(self, client):
        return Replay("cvat", client)

    @pytest.fixture
    def frame(self, studies, tmp_path):
        """As CVAT sends it, and again in the studies to compare with."""
        Image.open(studies / "im1.png").save(tmp_path / "tmpx1.jpg")
        (studies / "frame.jpg").write_bytes((tmp_path / "tmpx1.jpg").read_bytes())
        return tmp_path / "tmpx1.jpg"

    def test_polygons_are_the_mask(self, cvat, frame, automatic):
        from PIL import ImageDraw

        assert "tuned" in cvat("info").json()["models"]
        answer = cvat("detector", image_file=frame, client="cvat")
        expected = automatic("frame")
        drawn = Image.new("L", (700, 500))
        for note in answer["params"]["annotations"]:
            for element in note["annotation"]["elements"]:
                assert element["label"] == "vessel"
                for contour in element["contours"]:
                    corners = np.array(contour, int)  # as the function cuts them
                    ImageDraw.Draw(drawn).polygon([tuple(corner) for corner in (corners * 10).tolist()], fill=1)
        assert 0 < expected.sum() < expected.size
        np.testing.assert_array_equal(np.asarray(drawn)[5::10, 5::10], expected)

    def test_mask_by_clicks_and_box(self, cvat, frame, automatic):
        before = automatic("frame")
        row, column = np.argwhere(before == 0)[5]
        answer = cvat("interactor", image_file=frame, client="c", foreground=[[int(column), int(row)]], background=[])
        mask = np.asarray(Image.open(io.BytesIO(answer["file"])))
        assert mask.shape == before.shape
        assert mask[row, column] == 1
        two_corners = cvat("interactor_box", image_file=frame, client="c", roi=[[20, 10], [39, 29]])["file"]
        boxed = np.asarray(Image.open(io.BytesIO(two_corners)))
        outside = np.ones(boxed.shape, bool)
        outside[10:30, 20:40] = False
        np.testing.assert_array_equal(boxed[outside], before[outside])
        assert (boxed != before).any()
        assert cvat("tracker", image_file=frame, client="c", roi=[20, 10, 39, 29])["file"] == two_corners

    @pytest.mark.parametrize("name", ["detector", "interactor", "tracker"])
    def test_its_functions_themselves(self, name, client, frame, automatic, monkeypatch):
        """The code that MONAI Label installs for CVAT, with its connection replaced."""
        import base64
        import runpy
        import sys
        from types import SimpleNamespace

        from monailabel.client.client import MONAILabelUtils

        def method(verb, server, path, body=None, headers=None, content_type=None):
            response = client.request(verb, path, json=body)
            return response.status_code, response.content, None, response.headers

        def multipart(verb, server, path, fields, files, headers=None):
            kind, body = MONAILabelUtils.encode_multipart_formdata(fields, files)
            response = client.request(verb, path, content=bytes(body), headers={"content-type": kind})
            assert response.status_code == 200, response.text
            found = parts(response)
            return 200, {"params": found["params"]}, {found["file_name"]: found["file"]}, response.headers

        monkeypatch.setattr(MONAILabelUtils, "http_method", staticmethod(method))
        monkeypatch.setattr(MONAILabelUtils, "http_multipart", staticmethod(multipart))
        monkeypatch.setenv("MONAI_LABEL_MODEL", "tuned" if name == "detector" else "tuned_clicks")
        plugin = Path(sys.prefix) / f"monailabel/plugins/cvat/{name}.py"
        code = runpy.run_path(str(plugin))
        context = SimpleNamespace(
            logger=SimpleNamespace(info=lambda text: None), user_data=SimpleNamespace(), Response=lambda body, **_: body
        )
        code["init_context"](context)
        data = {"image": base64.b64encode(frame.read_bytes())}
        data |= {"interactor": {"pos_points": [], "neg_points": [], "obj_bbox": [[0, 0], [69, 49]]}}.get(name, {})
        data |= {"tracker": {"shapes": [[0, 0, 69, 49]], "states": []}}.get(name, {})
        if name == "tracker":
            pytest.importorskip("cv2", reason="the function itself needs OpenCV")
        answer = json.loads(code["handler"](context, SimpleNamespace(body=data)))
        if name == "detector":
            assert {shape["label"] for shape in answer} == {"vessel"}
            assert all(len(shape["points"]) >= 8 for shape in answer)
        elif name == "interactor":
            assert np.shape(answer["mask"]) == (50, 70)
            assert set(np.unique(answer["mask"])) == {0, 1}


class TestQuPath:
    @pytest.fixture
    def qupath(self, client):
        return Replay("qupath", client)

    def drawn(self, answer, shape=(50, 70)):
        """The polygons of an annotation file, drawn by their corners ten times as large."""
        from PIL import ImageDraw

        root = ElementTree.fromstring(answer.content)
        image = Image.new("L", (shape[1] * 10, shape[0] * 10))
        for part in root.iter("Annotation"):
            assert part.get("Name") == "vessel"
            for ring in part:
                corners = [(float(corner.get("X")) * 10, float(corner.get("Y")) * 10) for corner in ring]
                ImageDraw.Draw(image).polygon(corners, fill=1)
        return np.asarray(image)[5::10, 5::10]

    def large_parts(self, mask):
        """Those of at least 30 pixels."""
        from skimage.morphology import remove_small_objects

        return remove_small_objects(mask.astype(bool), max_size=29, connectivity=1).astype(np.uint8)

    def test_from_first_image_to_submitted_label(self, qupath, studies, automatic, tmp_path):
        assert qupath("signing_in").json()["enabled"] is False
        model = qupath("info").json()["models"]["tuned"]
        assert isinstance(model["dimension"], int)
        assert model["labels"] == {"vessel": 1}
        sample = qupath("next").json()
        assert qupath("download", id=sample["id"]).content == Path(sample["path"]).read_bytes()
        qupath("there", id=sample["id"])
        qupath("there", status=404, id="elsewhere")
        expected = self.large_parts(automatic(sample["id"]))
        assert expected.any()
        whole = {"location": [0, 0], "size": [0, 0], "foreground": [], "background": []}
        answer = qupath("region", model="tuned", id=sample["id"], **whole)
        np.testing.assert_array_equal(self.drawn(answer), expected)

        (tmp_path / "annotations.xml").write_bytes(answer.content)
        saved = qupath("submit", id=sample["id"], label_file=tmp_path / "annotations.xml").json()
        assert saved["version"] == 1
        kept = np.asarray(Image.open(studies / f"labels/final/{sample['id']}.png"))
        np.testing.assert_array_equal(kept, expected)

    def test_region_in_coordinates_of_the_picture(self, qupath, automatic):
        mask = automatic("im1")
        region = np.zeros_like(mask)
        region[10:40, 5:60] = mask[10:40, 5:60]
        asked = {"location": [5, 10], "size": [55, 30], "foreground": [], "background": []}
        answer = qupath("region", model="tuned", id="im1", **asked)
        np.testing.assert_array_equal(self.drawn(answer), self.large_parts(region))
        sides = ElementTree.fromstring(answer.content).find("Annotations")
        assert [sides.get(side) for side in "XYWH"] == ["5", "10", "55", "30"]

    def test_clicks(self, qupath, automatic):
        row, column = np.argwhere(automatic("im1") == 1)[-40]
        points = {"foreground": [], "background": [[int(column), int(row)]]}
        whole = {"location": [0, 0], "size": [0, 0]}
        answer = qupath("region", model="tuned_clicks", id="im1", **whole, **points)
        assert self.drawn(answer)[row, column] == 0

    def test_patch_of_an_image_elsewhere(self, qupath, studies, automatic, tmp_path):
        patch = tmp_path / "patch123.png"
        Image.open(studies / "im1.png").crop((5, 0, 65, 50)).save(patch)
        (studies / "same.png").write_bytes(patch.read_bytes())
        answer = qupath("patch", model="tuned", image_file=patch, foreground=[], background=[])
        np.testing.assert_array_equal(self.drawn(answer, (50, 60)), self.large_parts(automatic("same")))
        assert qupath("save_image", id="im1-patch-5_0_60_50", image_file=patch).json()["image"] == "im1-patch-5_0_60_50"
        assert (studies / "im1-patch-5_0_60_50.png").read_bytes() == patch.read_bytes()

    def test_tiff_is_read_as_a_picture(self, qupath, studies, automatic):
        Image.open(studies / "im1.png").save(studies / "scan.tif")
        whole = {"location": [0, 0], "size": [0, 0], "foreground": [], "background": []}
        answer = qupath("region", model="tuned", id="scan", **whole)
        np.testing.assert_array_equal(self.drawn(answer), self.large_parts(automatic("im1")))

    def test_training_with_its_settings(self, qupath, monkeypatch):
        from monailabel.utils.async_tasks import task

        started = []

        def run(request, method):
            started.append((method, request))
            return {}

        monkeypatch.setattr(task, "run_background_task", run)
        qupath("train", model="tuned")
        assert started == [("train", {"model": "tuned", "max_epochs": 1, "user": "nobody named"})]

    @pytest.mark.parametrize(
        ("path", "body", "words"),
        [
            ("/infer/wsi/tuned?image=im1&output=dsa", {}, "asap or json"),
            ("/infer/wsi/tuned?image=im1&output=asap", {"level": 2}, "level 0"),
            ("/infer/wsi/tuned?image=im1&output=asap", {"location": [-1, 0]}, "location"),
            ("/infer/wsi/tuned?image=volume&output=asap", {}, "not of volumes"),
            ("/infer/wsi/tuned?image=im1&output=asap", {"params": {"image": "/etc/passwd"}}, "refused"),
            ("/infer/wsi/nope?image=im1&output=asap", {}, "no model"),
        ],
    )
    def test_what_cannot_be_is_said(self, client, studies, path, body, words):
        values = np.zeros((4, 20, 20), np.uint8)
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(studies / "volume.nii.gz"))
        response = client.post(path, content=json.dumps(body))
        assert response.status_code in (400, 404), response.text
        assert words in response.json()["detail"]

    @pytest.mark.parametrize(
        "content",
        [
            b"<a><b></a>", b"\xff\xfe<\x00", b"<a><Annotation Name='vessel'><Coordinates><Coordinate/><Coordinate/>"
            b"<Coordinate/></Coordinates></Annotation></a>",
            b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
            b"<a><Annotation Name='bone'><Coordinates><Coordinate X='0' Y='0'/><Coordinate X='9' Y='0'/>"
            b"<Coordinate X='9' Y='9'/></Coordinates></Annotation></a>",
        ],
    )  # fmt: skip
    def test_annotation_files_that_cannot_be(self, client, studies, content):
        files = {"label": ("im1.xml", content)}
        response = client.put("/datastore/label?image=im1", files=files)
        assert response.status_code == 422, response.text
        assert not (studies / "labels").exists()
