"""Adapters on the server: automatic, by clicks, scored, retrained, in versions."""

import io
import json
import time

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("monailabel", reason="needs MONAI Label: run `make label-test`")

from tests.label_app.conftest import upload


def mask_of(response):
    assert response.status_code == 200, response.text
    return np.asarray(Image.open(io.BytesIO(response.content)))


def ask(client, model, image="im1", files=None, **params):
    form = {"data": {"params": json.dumps(params)}, "files": files or {}}
    return client.post(f"/infer/{model}?image={image}&output=image", **form)


@pytest.fixture
def automatic(client):
    return mask_of(ask(client, "tuned"))


class TestClicks:
    def test_automatic_as_the_released_bundle(self, make_client):
        client = make_client(overlap=0.5)  # which released bundles have
        automatic, released = mask_of(ask(client, "tuned")), mask_of(ask(client, "vessels"))
        assert (automatic != released).mean() < 0.002  # where it computes in another precision
        assert 0 < automatic.mean() < 1

    def test_listed_as_a_click_tool(self, client):
        models = client.get("/info/").json()["models"]
        assert models["tuned"]["type"] == "segmentation"
        assert models["tuned_clicks"]["type"] == "deepgrow"
        assert models["tuned_clicks"]["labels"] == {"vessel": 1}

    def test_clicked_pixels_follow(self, client, automatic):
        row, column = np.argwhere(automatic == 0)[5]
        other_row, other_column = np.argwhere(automatic == 1)[-40]
        found = mask_of(
            ask(
                client,
                "tuned_clicks",
                foreground=[[int(column), int(row)]],
                background=[[int(other_column), int(other_row)]],
            )
        )
        assert found[row, column] == 1
        assert found[other_row, other_column] == 0

    def test_goes_on_from_a_previous_mask(self, client, tmp_path):
        previous = np.zeros((50, 70), np.uint8)
        previous[5:10, 5:10] = 255
        Image.fromarray(previous).save(tmp_path / "previous.png")
        files = {"label": ("previous.png", (tmp_path / "previous.png").read_bytes())}
        found = mask_of(ask(client, "tuned_clicks", files=files))
        np.testing.assert_array_equal(found, previous // 255)
        found = mask_of(ask(client, "tuned_clicks", files=files, foreground=[[60, 40]]))
        assert found[40, 60] == 1
        assert (found[5:10, 5:10] == 1).all()

    def test_only_the_box_changes(self, client, automatic):
        found = mask_of(ask(client, "tuned_clicks", roi=[20, 10, 39, 29]))
        outside = np.ones(found.shape, bool)
        outside[10:30, 20:40] = False
        np.testing.assert_array_equal(found[outside], automatic[outside])

    @pytest.mark.parametrize(
        "params",
        [
            {"foreground": [[1000, 2]]}, {"foreground": [1, 2]}, {"foreground": "x"}, {"foreground": [["a", "b"]]},
            {"roi": [1, 2]}, {"roi": [9, 9, 1, 1]}, {"foreground": [[1, 2]], "class": "bone"},
            {"foreground": [[1, 2]], "class": 7}, {"wires": [[[1, 2]]]}, {"wires": [1]}, {"strokes": [{}]},
            {"bridges": [["a", 1]]}, {"strokes": [{"points": [[1, 2]], "width": "x"}]},
        ],
        ids=str,
    )  # fmt: skip
    def test_prompts_that_cannot_be(self, client, params):
        assert ask(client, "tuned_clicks", **params).status_code == 400

    def test_previous_mask_of_another_size(self, client, tmp_path):
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "small.png")
        files = {"label": ("small.png", (tmp_path / "small.png").read_bytes())}
        assert ask(client, "tuned_clicks", files=files, foreground=[[1, 2]]).status_code == 422

    def test_slicers_name_of_a_class_is_no_file(self, client, automatic):
        found = mask_of(ask(client, "tuned_clicks", label="vessel"))
        np.testing.assert_array_equal(found, automatic)

    def test_lines_are_drawn(self, client, tmp_path):
        previous = np.zeros((50, 70), np.uint8)
        previous[20:23, 5:30] = previous[20:23, 40:65] = 255
        Image.fromarray(previous).save(tmp_path / "previous.png")
        files = {"label": ("previous.png", (tmp_path / "previous.png").read_bytes())}
        joined = mask_of(ask(client, "tuned_clicks", files=files, bridges=[[35, 21]]))
        assert (joined[21, 29:41] == 1).any()
        assert (joined[previous > 0] == 1).all()
        assert joined.sum() > (previous > 0).sum()
        stroke = {"points": [[5, 40], [60, 40]], "positive": True, "width": 2}
        drawn = mask_of(ask(client, "tuned_clicks", files=files, strokes=[stroke], wires=[[[5, 5], [20, 5]]]))
        assert (drawn[40, 5:61] == 1).all()
        assert drawn[5, 5] == 1
        assert drawn[5, 20] == 1

    def test_live_wire_for_a_look(self, client):
        place = {"adapter": "tuned", "image": "im1", "x0": 5, "y0": 6, "x1": 60, "y1": 40}
        found = client.get("/topolora/api/trace", params=place).json()
        assert (found["path"][0], found["path"][-1]) == ([5, 6], [60, 40])
        assert found["half_width"] >= 1
        for wrong, status in (
            ({"adapter": "x"}, 404),
            ({"image": "none"}, 404),
            ({"slice": 3}, 400),
            ({"x1": 700}, 400),
        ):
            assert client.get("/topolora/api/trace", params=place | wrong).status_code == status

    def test_clicks_on_one_slice_of_a_volume(self, client, studies, tmp_path):
        import nibabel

        values = np.random.default_rng(0).random((40, 36, 3), dtype=np.float32)
        nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 4, 1])), studies / "volume.nii.gz")

        def answer(**params):
            response = ask(client, "tuned_clicks", "volume", **params)
            assert response.status_code == 200, response.text
            (tmp_path / "found.nii.gz").write_bytes(response.content)
            return np.asarray(nibabel.load(tmp_path / "found.nii.gz").dataobj)

        before = answer()
        x, y = np.argwhere(before[..., 1] == 0)[3]
        after = answer(foreground=[[int(x), int(y), 1]])
        assert after[x, y, 1] == 1
        np.testing.assert_array_equal(after[..., [0, 2]], before[..., [0, 2]])

    def test_breaks_on_request(self, client):
        response = client.post("/infer/tuned?image=im1&output=json", data={"params": '{"hints": true}'})
        assert isinstance(response.json()["breaks"], list)
        assert response.json()["adapter"] == "tuned"
        assert response.json()["version"] == 1


def test_parallel_requests_get_their_own_answers(client):
    import threading

    expected = {f"im{number}": ask(client, "tuned", f"im{number}").content for number in range(4)}
    found = {}

    def run(image):
        found[image] = ask(client, "tuned", image).content

    from monailabel.interfaces.utils.app import app_instance

    app_instance().adapters.segmenter("tuned").cache.capacity = 0
    calls = [threading.Thread(target=run, args=(image,)) for image in expected]
    for call in calls:
        call.start()
    for call in calls:
        call.join(60)
    assert found == expected


class TestActiveLearning:
    def test_most_uncertain_first(self, client):
        done = client.post("/scoring/topology?run_sync=true", json={})
        assert done.status_code == 200, done.text
        scores = done.json()["scores"]
        assert set(scores) == {"im0", "im1", "im2", "im3"}
        found = client.post("/activelearning/topology", json={"client_id": "a"}).json()
        best = max(sorted(scores), key=scores.get)
        assert (found["id"], found["score"]) == (best, scores[best])
        info = client.get("/datastore/image/info", params={"image": best}).json()
        assert info["scores"]["topology"]["score"] == scores[best]
        again = client.post("/activelearning/topology", json={"client_id": "a"}).json()
        assert again["id"] == best
        other = client.post("/activelearning/topology", json={"client_id": "b"}).json()
        assert other["id"] != best

    def test_annotated_images_are_not_asked_for(self, client, mask_file):
        for number in range(4):
            assert client.put(f"/datastore/label?image=im{number}", **upload(mask_file)).status_code == 200
            if number < 3:
                found = client.post("/activelearning/random", json={"client_id": "a"}).json()
                assert found["id"] not in [f"im{done}" for done in range(number + 1)]
        assert client.post("/activelearning/random", json={}).json() == {}


class TestTraining:
    def label_all(self, client, studies):
        for number in range(4):
            mask = np.zeros((50, 70), np.uint8)
            mask[20 + number : 24 + number, 10:60] = 255
            stream = io.BytesIO()
            Image.fromarray(mask).save(stream, "PNG")
            files = {"label": ("mask.png", stream.getvalue())}
            assert client.put(f"/datastore/label?image=im{number}", files=files).status_code == 200

    def test_better_version_is_used_at_once_and_can_be_taken_back(self, client, studies, automatic):
        self.label_all(client, studies)
        request = {"max_epochs": 3, "learning_rate": 2e-3, "elastic_magnitude": 2.0, "client_id": "x", "user": "Ann"}
        request |= {"least_images": 1, "significance": 1.0}
        done = client.post("/train/tuned?run_sync=true", json=request)
        assert done.status_code == 200, done.text
        status = client.get("/topolora/api/training").json()[0]
        assert status["state"] == "finished"
        assert (status["result"]["version"], status["result"]["in_use"]) == (2, True)
        assert status["result"]["after"] > status["result"]["before"]
        assert client.get("/info/").json()["train_stats"]["tuned"]["state"] == "finished"
        trained = mask_of(ask(client, "tuned"))
        assert (trained != automatic).mean() > 0.01
        told = client.get("/topolora/api/adapters").json()[0]
        assert (told["adapter"], told["current"]) == ("tuned", 2)
        assert (told["versions"][1]["parent"], told["versions"][1]["author"]) == (1, "Ann")
        assert told["versions"][1]["scores"]["validation_dice"] == status["result"]["after"]
        chosen = {"adapter": "tuned", "version": 1, "user": "Ben"}
        back = client.post("/topolora/api/adapters/restore", json=chosen)
        assert (back.json()["current"], back.json()["log"][-1]["author"]) == (1, "Ben")
        np.testing.assert_array_equal(mask_of(ask(client, "tuned")), automatic)
        missing = client.post("/topolora/api/adapters/restore", json={"adapter": "tuned", "version": 9})
        assert missing.status_code == 404

    def test_too_few_labels(self, client):
        done = client.post("/train/tuned?run_sync=true", json={"max_epochs": 1})
        assert done.status_code == 422
        status = client.get("/topolora/api/training").json()[0]
        assert status["state"] == "failed"
        assert "too few annotated images" in status["error"]

    @pytest.mark.parametrize("wrong", [{"max_epochs": "x"}, {"max_epochs": 0}, {"learning_rate": [1]}])
    def test_wrong_settings(self, client, studies, wrong):
        self.label_all(client, studies)
        assert client.post("/train/tuned?run_sync=true", json=wrong).status_code == 400

    def test_status_of_one_that_died(self, client, tmp_path):
        folder = tmp_path / "work/training"
        folder.mkdir(parents=True)
        note = {"adapter": "tuned", "state": "running", "fraction": 0.5, "process": [2**22, 0.0]}
        (folder / "tuned.json").write_text(json.dumps(note))
        assert client.get("/topolora/api/training").json()[0]["state"] == "stopped"


class TestPreAnnotation:
    def run(self, client):
        kept = {"save_label": True, "label_tag": "original", "multi_gpu": False}
        done = client.post("/batch/infer/tuned?images=unlabeled&run_sync=true", json=kept)
        assert done.status_code == 200, done.text
        return sorted(done.json())

    def test_masks_of_another_version_are_made_again(self, client, studies, mask_file, adapter):
        """But for images with a final label, and masks that a person sent."""
        from monailabel.interfaces.utils.app import app_instance

        assert client.put("/datastore/label?image=im2&tag=original", **upload(mask_file)).status_code == 200
        assert self.run(client) == ["im0", "im1", "im3"]
        assert self.run(client) == []
        assert client.put("/datastore/label?image=im3", **upload(mask_file)).status_code == 200
        app_instance().adapters.versions("tuned").add(adapter, "somebody")
        assert self.run(client) == ["im0", "im1"]
        assert self.run(client) == []
        told = {entry["image"]: entry["labels"]["original"] for entry in client.get("/topolora/api/images").json()}
        made = {name: (label["model"], label["model_version"]) for name, label in told.items()}
        assert made == {"im0": ("tuned", 2), "im1": ("tuned", 2), "im2": (None, None), "im3": ("tuned", 1)}


class TestInItsOwnProcess:
    @pytest.fixture
    def server(self, start_server, studies, adapter):
        return start_server("--studies", studies, "--adapter", f"tuned={adapter}")

    def wait_for(self, path, holds, server):
        import requests

        for _ in range(900):
            status = requests.get(server.url + path, timeout=30).json()
            if holds(status):
                return status
            time.sleep(0.2)
        raise AssertionError(f"{status}\n{server.log.read_text()[-3000:]}")

    def test_train_and_batch(self, server, studies):
        """Training killed with the server keeps the adapter; training to its end replaces it."""
        import requests

        class Client:
            put = staticmethod(lambda path, **form: requests.put(server.url + path, timeout=60, **form))

        TestTraining().label_all(Client, studies)
        started = requests.post(f"{server.url}/train/tuned", json={"max_epochs": 2}, timeout=60)
        assert started.status_code == 200, started.text
        again = requests.post(f"{server.url}/train/tuned", json={}, timeout=60)
        assert again.status_code in (200, 429)
        done = self.wait_for("/topolora/api/training", lambda told: told[0]["state"] in ("finished", "failed"), server)
        assert done[0]["state"] == "finished", done
        assert requests.get(f"{server.url}/train/", timeout=60).status_code == 200
        batch = requests.post(f"{server.url}/batch/infer/tuned?images=all", json={"label_tag": "first"}, timeout=60)
        assert batch.status_code == 200, batch.text
        self.wait_for("/datastore/", lambda told: told["label_tags"].get("first") == 4, server)

    @pytest.mark.parametrize("with_what_it_started", [True, False])
    def test_killed_while_training(self, with_what_it_started, server, start_server, studies, adapter):
        import requests

        class Client:
            put = staticmethod(lambda path, **form: requests.put(server.url + path, timeout=60, **form))

        TestTraining().label_all(Client, studies)
        requests.post(f"{server.url}/train/tuned", json={"max_epochs": 500}, timeout=60)
        self.wait_for("/topolora/api/training", lambda told: told[0].get("fraction", 0) > 0, server)
        if with_what_it_started:
            server.kill()
        else:  # the process that trains is left, and has to end by itself
            server.process.kill()
        second = start_server("--studies", studies, "--adapter", f"tuned={adapter}")
        self.wait_for("/topolora/api/training", lambda told: told[0]["state"] == "stopped", second)
        assert requests.get(f"{second.url}/topolora/api/adapters", timeout=60).json()[0]["current"] == 1
        assert requests.get(f"{second.url}/datastore/", timeout=60).json()["completed"] == 4
        assert requests.post(f"{second.url}/infer/tuned?image=im0", timeout=60).status_code == 200
