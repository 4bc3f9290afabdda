"""Verdicts, agreement of annotators, consensus, and labels in other programs' forms."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("monailabel", reason="needs MONAI Label: run `make label-test`")

from topolora_monai.label_app.archive import FORMS


def bar(top, value=1):
    mask = np.zeros((50, 70), np.uint8)
    mask[top : top + 4, 10:60] = value
    return mask


@pytest.fixture
def labelled(client):
    """Labels of im1 by three people, two of whom agree."""
    for user, top in (("Ann", 10), ("Ben", 12), ("Cleo", 40), ("Cleo", 12)):
        stream = io.BytesIO()
        Image.fromarray(bar(top)).save(stream, "PNG")
        files, data = {"label": ("mask.png", stream.getvalue())}, {"params": json.dumps({"user": user})}
        assert client.put("/datastore/label?image=im1", files=files, data=data).status_code == 200
    return client


def test_agreement_of_the_newest_labels(labelled):
    pairs = labelled.get("/topolora/api/agreement?image=im1").json()
    assert [(pair["one"], pair["other"]) for pair in pairs] == [(1, 2), (1, 4), (2, 4)]
    assert [pair["dice"] for pair in pairs] == [0.5, 0.5, 1.0]
    assert pairs[2]["kappa"] == pairs[2]["cldice"] == 1.0
    assert 0 < pairs[0]["kappa"] < 0.5
    assert labelled.get("/topolora/api/agreement?image=no").status_code == 404


def test_consensus(labelled):
    told = labelled.post("/topolora/api/consensus", json={"image": "im1"}).json()
    assert told == {"version": 1, "of": [1, 2, 4]}
    kept = labelled.get("/topolora/api/label?image=im1&tag=consensus")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(kept.content))), bar(12))
    assert labelled.post("/topolora/api/consensus", json={"image": "im2"}).status_code == 409


def test_verdict_and_assignment(labelled):
    verdict = {"image": "im1", "version": 4, "verdict": "rejected", "comment": "too low", "user": "Dora"}
    assert labelled.post("/topolora/api/review", json=verdict).json()["user"] == "Dora"
    assert labelled.post("/topolora/api/review", json=verdict | {"version": 9}).status_code == 404
    assert labelled.post("/topolora/api/review", json=verdict | {"verdict": "maybe"}).status_code == 422
    assert labelled.post("/topolora/api/assign", json={"image": "im2", "to": "Ben"}).status_code == 200
    told = {entry["image"]: entry for entry in labelled.get("/topolora/api/images").json()}
    assert told["im1"]["review"]["comment"] == "too low" and told["im1"]["review"]["version"] == 4
    assert (told["im2"]["assigned"], told["im2"]["review"], told["im1"]["assigned"]) == ("Ben", None, None)


def packed(client, form):
    response = client.get(f"/topolora/api/archive?form={form}")
    assert response.status_code == 200, response.text
    return zipfile.ZipFile(io.BytesIO(response.content))


def test_archive(labelled, tmp_path):
    with packed(labelled, "png") as archive:
        assert archive.namelist() == ["im1.png"]
        mask = np.asarray(Image.open(io.BytesIO(archive.read("im1.png"))))
    np.testing.assert_array_equal(mask, bar(12, 255))
    with packed(labelled, "coco") as archive:
        content = json.loads(archive.read("annotations.json"))
    assert content["images"] == [{"id": 1, "file_name": "im1.png", "height": 50, "width": 70}]
    (found,) = content["annotations"]
    assert (found["bbox"], found["area"], found["category_id"]) == ([10, 12, 50, 4], 200.0, 1)
    with packed(labelled, "nifti") as archive:
        assert archive.namelist() == ["im1.nii.gz"]
    assert labelled.get("/topolora/api/archive?form=dicom").status_code == 400
    refused = labelled.get("/topolora/api/archive?form=svg")
    assert refused.status_code == 400 and all(form in refused.json()["detail"] for form in FORMS)


def test_archive_without_labels(client):
    assert client.get("/topolora/api/archive").status_code == 400
