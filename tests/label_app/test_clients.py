"""MONAI Label's own client against the real server, and its stock app with a released bundle."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("monailabel", reason="needs MONAI Label: run `make label-test`")


def test_client_from_first_image_to_submitted_label(start_server, studies, adapter, tmp_path):
    from monailabel.client import MONAILabelClient

    server = start_server("--studies", studies, "--adapter", f"tuned={adapter}")
    client = MONAILabelClient(server.url, tmpdir=str(tmp_path), client_id="reader")
    assert set(client.info()["models"]) == {"tuned", "tuned_clicks"}
    assert client.auth_enabled() is False
    image = client.next_sample("random", {})["id"]
    mask, params = client.infer("tuned", image, {})
    assert params["label_names"] == {"vessel": 1}
    found = np.asarray(Image.open(mask))
    row, column = (int(place) for place in np.argwhere(found == 0)[3])
    corrected, _ = client.infer("tuned_clicks", image, {"foreground": [[column, row]], "background": []}, label_in=mask)
    assert np.asarray(Image.open(corrected))[row, column] == 1
    saved = client.save_label(image, corrected, "final", {"user": "ann"})
    assert (saved["version"], saved["user"]) == (1, "ann")
    assert client.datastore()["objects"][image]["labels"]["final"]["info"]["client_id"] == "reader"
    copy = client.download_label(image, "final")
    np.testing.assert_array_equal(np.asarray(Image.open(copy)), np.asarray(Image.open(corrected)))
    session = client.create_session(str(studies / "im1.png"))["session_id"]
    by_session, _ = client.infer("tuned", "", {}, session_id=session)
    by_name, _ = client.infer("tuned", "im1", {})
    np.testing.assert_array_equal(np.asarray(Image.open(by_session)), np.asarray(Image.open(by_name)))


def test_stock_app_serves_a_released_bundle(start_server, studies, bundle, tmp_path):
    """MONAI Label's own ``monaibundle``, nothing of ours but the bundle and the package it names."""
    from monailabel.client import MONAILabelClient

    from topolora_monai.label_app.models import BundleModel
    from topolora_monai.label_app.tasks.masks import class_numbers

    app = tmp_path / "monaibundle"
    stock = Path(sys.prefix) / "monailabel/sample-apps/monaibundle"
    shutil.copytree(stock, app)
    shutil.copytree(bundle, app / "model" / bundle.name)
    # Stock MONAI Label imports this, for DICOM SEG alone, and it does not go with pydicom 3.
    (tmp_path / "stands_in").mkdir()
    (tmp_path / "stands_in/pydicom_seg.py").touch()
    places = [str(tmp_path / "stands_in"), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", app, "--host", "127.0.0.1"]
    server = start_server(
        "--studies", studies, "--conf", "models", bundle.name, "--conf", "sam2", "false",
        command=[str(part) for part in command], health="/info/",
        environment={
            "MONAI_ZOO_SOURCE": "local", "MONAI_LABEL_TRACKING_ENABLED": "false", "PYTHONPATH": os.pathsep.join(places),
        },
    )  # fmt: skip
    client = MONAILabelClient(server.url, tmpdir=str(tmp_path))
    assert client.info()["models"][bundle.name]["labels"] == {"vessel": 1}
    path, _ = client.infer(bundle.name, "im1", {"device": "cpu"})
    mask = np.asarray(Image.open(path))
    model = BundleModel(bundle.name, bundle)
    probability = model.automatic({"name": "im1", "image": str(studies / "im1.png")})
    expected = class_numbers(probability, model.spec.threshold, model.spec.exclusive)
    assert 0 < expected.mean() < 1
    assert mask.shape == expected.shape
    assert (mask != expected).sum() <= 1
