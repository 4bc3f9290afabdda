"""Submitted labels: every version is kept, with who and when, whatever happens meanwhile."""

import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("monailabel", reason="needs MONAI Label: run `make label-test`")

from tests.label_app.conftest import upload
from topolora_monai.errors import DataError
from topolora_monai.label_app.datastore import StudyFolder
from topolora_monai.label_app.history import LabelHistory


def mask_file(folder, value, name="mask.png"):
    mask = np.zeros((50, 70), np.uint8)
    mask[value % 50, value % 70] = 1
    mask[0, value // 50 % 70] = 1
    Image.fromarray(mask).save(folder / name)
    return folder / name


class TestVersions:
    def test_each_submission_is_one(self, client, studies, tmp_path):
        contents = []
        for value in range(3):
            path = mask_file(tmp_path, value)
            contents.append(path.read_bytes())
            answer = client.put("/datastore/label?image=im1", **upload(path, client_id=f"client{value}")).json()
            assert answer["version"] == value + 1
            assert answer["sha256"] == hashlib.sha256(contents[-1]).hexdigest()
        assert (studies / "labels/final/im1.png").read_bytes() == contents[-1]
        told = client.get("/topolora/api/labels?image=im1").json()["labels"]["final"]
        assert [version["client_id"] for version in told] == ["client0", "client1", "client2"]
        assert [version["time"] for version in told] == sorted(version["time"] for version in told)
        kept = studies / ".topolora/labels/final/im1"
        assert [(kept / version["file"]).read_bytes() for version in told] == contents
        first = client.get("/topolora/api/label?image=im1&version=1").content
        np.testing.assert_array_equal(
            np.asarray(Image.open(io.BytesIO(first))), np.asarray(Image.open(io.BytesIO(contents[0])))
        )

    def test_restored_as_one_more(self, client, studies, tmp_path):
        contents = [mask_file(tmp_path, value, f"{value}.png").read_bytes() for value in range(2)]
        for value in range(2):
            client.put("/datastore/label?image=im1", **upload(tmp_path / f"{value}.png"))
        answer = client.post("/topolora/api/labels/restore", json={"image": "im1", "version": 1})
        assert answer.json()["version"] == 3
        assert (studies / "labels/final/im1.png").read_bytes() == contents[0]
        assert client.post("/topolora/api/labels/restore", json={"image": "im1", "version": 9}).status_code == 404

    def test_removed_is_one_more(self, client, studies, tmp_path):
        client.put("/datastore/label?image=im1", **upload(mask_file(tmp_path, 1)))
        assert client.delete("/datastore/label?id=im1&tag=final").status_code == 200
        assert not (studies / "labels/final/im1.png").exists()
        assert client.get("/datastore/").json()["completed"] == 0
        told = client.get("/topolora/api/labels?image=im1").json()["labels"]["final"]
        assert [version["file"] for version in told] == ["000001.png", None]

    def test_who_says_so_where_nobody_signs_in(self, client, tmp_path):
        answer = client.put("/datastore/label?image=im1", **upload(mask_file(tmp_path, 1), user="ann", note="x"))
        assert answer.json()["user"] == "ann"
        info = client.get("/datastore/label/info?label=im1&tag=final").json()
        assert (info["user"], info["note"], info["version"]) == ("ann", "x", 1)

    def test_another_kind_of_file_takes_the_place(self, client, studies, tmp_path):
        client.put("/datastore/label?image=im1", **upload(mask_file(tmp_path, 1)))
        client.put("/datastore/label?image=im1", **upload(mask_file(tmp_path, 2, "mask.tif")))
        assert [path.name for path in (studies / "labels/final").iterdir()] == ["im1.tif"]

    def test_other_tools_label_is_kept_too(self, studies, tmp_path):
        """One that was put into the folder by hand is a version before it is replaced."""
        store = StudyFolder(studies)
        (studies / "labels/final").mkdir(parents=True)
        by_hand = mask_file(studies / "labels/final", 7, "im1.png").read_bytes()
        assert store.get_labeled_images() == ["im1"]
        store.submit("im1", mask_file(tmp_path, 1), "final", {}, "ann")
        first, second = store.history.versions("im1", "final")
        assert store.history.path(first).read_bytes() == by_hand
        assert (first.user, second.user) == (None, "ann")
        edited = mask_file(studies / "labels/final", 9, "im1.png").read_bytes()
        again = StudyFolder(studies)
        assert (studies / "labels/final/im1.png").read_bytes() == edited
        assert len(again.history.versions("im1", "final")) == 3

    def test_image_is_moved_aside(self, client, studies, tmp_path):
        content = (studies / "im1.png").read_bytes()
        client.put("/datastore/label?image=im1", **upload(mask_file(tmp_path, 1)))
        assert client.delete("/datastore/image?id=im1").status_code == 200
        assert client.get("/datastore/").json() == {"total": 3, "completed": 0, "label_tags": {}}
        assert [path.read_bytes() for path in (studies / ".topolora/removed").rglob("im1.png")] == [content]

    def test_added_image(self, client, studies):
        files = {"file": ("new.png", (studies / "im1.png").read_bytes())}
        assert client.put("/datastore/?image=im9", files=files).json() == {"image": "im9"}
        assert (studies / "im9.png").read_bytes() == (studies / "im1.png").read_bytes()
        assert client.put("/datastore/?image=im9", files=files).status_code == 400
        assert client.put("/datastore/", files=files).json() == {"image": "new"}

    def test_threads_take_turns(self, studies, tmp_path):
        store = StudyFolder(studies)
        path = mask_file(tmp_path, 1)
        calls = [
            threading.Thread(target=store.submit, args=("im1", path, "final", {}, f"user{number}"))
            for number in range(8)
        ]
        for call in calls:
            call.start()
        for call in calls:
            call.join()
        versions = store.history.versions("im1", "final")
        assert [version.version for version in versions] == list(range(1, 9))
        assert {version.user for version in versions} == {f"user{number}" for number in range(8)}


class TestLabelsThatAreNone:
    @pytest.mark.parametrize(
        ("name", "content"),
        [("mask.png", b"nothing"), ("mask.png", b""), ("mask.nii.gz", b"nothing"), ("mask.nrrd", b"NRRD")],
    )
    def test_damaged(self, client, name, content, studies):
        response = client.put("/datastore/label?image=im1", files={"label": (name, content)})
        assert response.status_code == 422
        assert not (studies / "labels").exists()

    def test_another_size(self, client, tmp_path):
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "small.png")
        response = client.put("/datastore/label?image=im1", **upload(tmp_path / "small.png"))
        assert response.status_code == 422
        assert "another size" in response.text

    def test_another_kind(self, client, tmp_path):
        (tmp_path / "mask.exe").write_bytes(b"x")
        assert client.put("/datastore/label?image=im1", **upload(tmp_path / "mask.exe")).status_code == 400

    def test_unknown_image(self, client, tmp_path):
        assert client.put("/datastore/label?image=nope", **upload(mask_file(tmp_path, 1))).status_code == 404

    def test_slicers_label_of_one_slice(self, client, tmp_path):
        import SimpleITK

        mask = np.zeros((1, 50, 70), np.uint8)
        mask[0, 5, 6] = 1
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(mask), str(tmp_path / "mask.nrrd"))
        response = client.put("/datastore/label?image=im1", **upload(tmp_path / "mask.nrrd"))
        assert response.status_code == 200, response.text
        shown = Image.open(io.BytesIO(client.get("/topolora/api/label?image=im1").content))
        np.testing.assert_array_equal(np.asarray(shown), mask[0])


class TestPlace:
    """Labels of volumes by where their headers say that they lie."""

    AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])
    TRUTH = (np.random.default_rng(0).random((4, 6, 7)) > 0.5).astype(np.uint8)

    @pytest.fixture
    def volume(self, studies):
        values = np.random.default_rng(1).integers(0, 999, (4, 6, 7)).astype(np.int16)
        nib.save(nib.Nifti1Image(values.T, self.AFFINE), studies / "scan.nii.gz")
        return studies / "scan.nii.gz"

    def shown(self, client):
        answers = [client.get(f"/topolora/api/label?image=scan&slice={index}").content for index in range(4)]
        return np.stack([np.asarray(Image.open(io.BytesIO(answer))) for answer in answers])

    @pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".seg.nrrd"])
    def test_turned_axes_are_brought_to_the_images(self, client, volume, tmp_path, suffix):
        import SimpleITK

        orientation = np.array([[1, -1], [0, 1], [2, -1]])
        stored = nib.orientations.apply_orientation(self.TRUTH.T, orientation)
        affine = self.AFFINE @ nib.orientations.inv_ornt_aff(orientation, self.TRUTH.T.shape)
        nib.save(nib.Nifti1Image(stored, affine), tmp_path / "mask.nii.gz")
        mask = tmp_path / f"mask{suffix}"
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(tmp_path / "mask.nii.gz")), str(mask))
        response = client.put("/datastore/label?image=scan", **upload(mask))
        assert response.status_code == 200, response.text
        np.testing.assert_array_equal(self.shown(client), self.TRUTH)
        kept = volume.parent / f"labels/final/scan{suffix}"
        found, wanted = SimpleITK.ReadImage(str(kept)), SimpleITK.ReadImage(str(volume))
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(found), self.TRUTH)
        np.testing.assert_allclose(found.GetDirection(), wanted.GetDirection())
        np.testing.assert_allclose(found.GetOrigin(), wanted.GetOrigin())

    @pytest.mark.parametrize("moved", [3.0, 0.1])
    def test_another_place(self, client, volume, tmp_path, moved):
        affine = self.AFFINE + np.outer([moved, 0, 0, 0], [0, 0, 0, 1])
        nib.save(nib.Nifti1Image(self.TRUTH.T, affine), tmp_path / "mask.nii.gz")
        response = client.put("/datastore/label?image=scan", **upload(tmp_path / "mask.nii.gz"))
        assert response.status_code == (422 if moved > 1 else 200)
        if moved > 1:
            assert "lies elsewhere" in response.text
            assert "origin (0, 0, 0) mm" in response.text
            assert "origin (3, 0, 0) mm" in response.text
            assert not (volume.parent / "labels").exists()
        else:
            np.testing.assert_array_equal(self.shown(client), self.TRUTH)

    def test_label_that_another_tool_left_in_the_folder(self, client, volume):
        affine = self.AFFINE @ nib.affines.from_matvec(np.diag([1, -1, 1]), [0, 5, 0])
        folder = volume.parent / "labels/final"
        folder.mkdir(parents=True)
        nib.save(nib.Nifti1Image(self.TRUTH.T[:, ::-1], affine), folder / "scan.nii.gz")
        np.testing.assert_array_equal(self.shown(client), self.TRUTH)


class PowerCut(BaseException):
    """Ends what is under way, wherever it is."""


@pytest.mark.parametrize("call", range(1, 5))
@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_cut_at_every_step_leaves_whole_labels(studies, tmp_path, monkeypatch, call, function):
    store = StudyFolder(studies)
    contents = [mask_file(tmp_path, value, f"{value}.png").read_bytes() for value in range(2)]
    store.submit("im1", tmp_path / "0.png", "final", {})
    original, calls = getattr(os, function), []

    def cut(*arguments, **options):
        calls.append(arguments)
        if len(calls) == call:
            raise PowerCut
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, function, cut)
        with contextlib.suppress(PowerCut):
            store.submit("im1", tmp_path / "1.png", "final", {})
    reopened = StudyFolder(studies)
    versions = reopened.history.versions("im1", "final")
    found = [reopened.history.path(version).read_bytes() for version in versions]
    assert found in (contents[:1], contents)
    assert (studies / "labels/final/im1.png").read_bytes() == found[-1]
    assert reopened.submit("im1", tmp_path / "0.png", "final", {}).version > len(found)


SUBMITTER = """
import sys
from pathlib import Path
from topolora_monai.label_app.datastore import StudyFolder
store = StudyFolder(sys.argv[1])
masks = sorted(Path(sys.argv[2]).glob("*.png"))
for number in range(100000):
    path = masks[number % len(masks)]
    version = store.submit(f"im{number % 4}", path, "final", {"mask": path.name})
    print(version.image, version.version, path.name, flush=True)
"""


@pytest.mark.parametrize("seconds", [0.05, 0.3, 0.7])
def test_killed_while_submitting(studies, tmp_path, seconds):
    """SIGKILL: what was acknowledged is there, as it was sent."""
    (tmp_path / "masks").mkdir()
    for value in range(7):
        mask_file(tmp_path / "masks", value, f"{value}.png")
    process = subprocess.Popen(
        [sys.executable, "-c", SUBMITTER, str(studies), str(tmp_path / "masks")], stdout=subprocess.PIPE, text=True
    )
    first = process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    lines = [first, *process.stdout.read().splitlines()]
    process.wait()
    acknowledged = [line.split() for line in lines if len(line.split()) == 3]
    assert acknowledged
    store = StudyFolder(studies)
    for image, number, mask in acknowledged:
        version = next(kept for kept in store.history.versions(image, "final") if kept.version == int(number))
        assert store.history.path(version).read_bytes() == (tmp_path / "masks" / mask).read_bytes()
    for image in {line[0] for line in acknowledged}:
        latest = store.history.latest(image, "final")
        assert (studies / f"labels/final/{image}.png").read_bytes() == store.history.path(latest).read_bytes()
    assert store.submit("im0", tmp_path / "masks/0.png", "final", {}).version > 1


def test_upstream_overwrites(studies, tmp_path):
    """What MONAI Label's own datastore does, which the app's is for."""
    from monailabel.datastore.local import LocalDatastore

    store = LocalDatastore(str(studies), extensions=("*.png",))
    for value in range(2):
        store.save_label("im1", str(mask_file(tmp_path, value)), "final", {})
    kept = [path for path in studies.rglob("*.png") if path.name == "im1.png" and "labels" in str(path)]
    assert len(kept) == 1


def test_two_images_of_one_name(studies):
    Image.new("RGB", (70, 50)).save(studies / "im1.jpg")
    with pytest.raises(DataError, match="same name"):
        StudyFolder(studies)


def test_folders_are_looked_into_and_what_is_left_out_has_a_reason(studies, tmp_path):
    store = StudyFolder(studies)
    for place in ("left/deep/im9.png", "left/a%2fb.png", ".hidden/im8.png", "left/im8.txt"):
        (studies / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (70, 50)).save(studies / place, "PNG")
    (tmp_path / "outside.png").write_bytes((studies / "im0.png").read_bytes())
    (studies / "out.png").symlink_to(tmp_path / "outside.png")
    (studies / "round").symlink_to(studies)
    Image.new("RGB", (70, 50)).save(studies / "left--deep--im9.tif")
    reasons = {entry["file"]: entry["reason"] for entry in store.left_out()}
    assert set(reasons) == {
        "left/a%2fb.png", "left/im8.txt", "out.png", "round", "left/deep/im9.png", "left--deep--im9.tif",
    }  # fmt: skip
    assert len(set(reasons.values())) == 5
    assert store.list_images() == ["im0", "im1", "im2", "im3"]
    (studies / "left--deep--im9.tif").unlink()
    assert store.image_path("left--deep--im9") == studies.resolve() / "left/deep/im9.png"
    store.submit("left--deep--im9", mask_file(tmp_path, 1), "final", {})
    assert (studies / "labels/final/left--deep--im9.png").is_file()
    with zipfile.ZipFile(store.get_dataset_archive(None)) as archive:
        assert archive.namelist() == ["image/left--deep--im9.png", "label/left--deep--im9.png"]


def test_damaged_record_is_named(tmp_path):
    history = LabelHistory(tmp_path / "history")
    history.add("im1", "final", mask_file(tmp_path, 1), ".png")
    (tmp_path / "history/final/im1/000001.json").write_text(json.dumps({"image": "im1"}))
    with pytest.raises(DataError, match=r"000001\.json"):
        history.versions("im1", "final")


def test_layout_is_that_of_monai_labels_datastore(client, studies, tmp_path):
    """Its own datastore finds images and labels where the app puts them."""
    from monailabel.datastore.local import LocalDatastore

    client.put("/datastore/label?image=im1", **upload(mask_file(tmp_path, 1)))
    ours = client.get("/datastore/?output=train").json()
    theirs = LocalDatastore(str(studies), extensions=("*.png",)).datalist()
    assert ours == theirs
    assert client.get("/datastore/?output=all").json()["objects"]["im1"]["labels"]["final"]["ext"] == ".png"
