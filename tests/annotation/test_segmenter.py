"""Clicks are obeyed, local, limited by boxes, and cost no second encoding."""

import json
import threading

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.annotation.conftest import PROPERTIES
from topolora_monai.adapters import adapt, preset_config, save_adapter
from topolora_monai.annotation import AnnotationSegmenter, Prompts, Stroke, annotate, mean_course, next_click
from topolora_monai.errors import ConfigError, DataError
from topolora_monai.networks import SamSegmenter, build_network


@pytest.fixture(scope="module")
def segmenter(adapter):
    return AnnotationSegmenter({"vessels": adapter}, precision="fp32")


@pytest.fixture
def encodings(monkeypatch):
    """Counts runs of the image encoder."""
    runs, original = [], SamSegmenter.features
    monkeypatch.setattr(
        SamSegmenter, "features", lambda self, image: (runs.append(len(image)), original(self, image))[1]
    )
    return runs


def truth_of(pair):
    return np.array(Image.open(pair[1])) > 0


def test_nan_voxels_are_background(segmenter, tmp_path, monkeypatch):
    values = np.random.default_rng(0).normal(size=(40, 30, 2)).astype(np.float32)
    values[10:30, 5:25, 1] = np.nan
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
    item = {"image": str(tmp_path / "a.nii"), "axis": 0, "slice": 1}
    missing = np.isnan(values[..., 1].T)
    automatic = segmenter.automatic(item)
    assert not automatic[0][torch.from_numpy(missing)].any()
    assert automatic[0][torch.from_numpy(~missing)].all()
    monkeypatch.setattr(segmenter, "_answer", lambda *_: np.ones((1, *missing.shape), bool))
    sure = segmenter.interactive(item, Prompts.from_lists([], [], box=[8, 3, 33, 27]))
    expected = np.zeros(missing.shape, bool)
    expected[3:28, 8:34] = True
    np.testing.assert_array_equal(segmenter.masks(sure)[0][3:28, 8:34], (expected & ~missing)[3:28, 8:34])


def test_twelve_bits_in_a_file_of_sixteen_are_told(segmenter, tmp_path, caplog):
    values = np.random.default_rng(0).integers(0, 4096, (40, 50)).astype(np.uint16)
    values[0, 0] = 4095
    for name, stored in (("dark", values), ("bright", values * 16)):
        Image.fromarray(stored).save(tmp_path / f"{name}.png")
        segmenter.automatic(tmp_path / f"{name}.png")
    (told,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert "dark.png is dark: largest value 4,095 of 65,535" in told


def with_header(adapter, path, **changes):
    with safe_open(adapter, framework="pt") as file:
        header = json.loads(file.metadata()["topolora_monai"])
    save_file(load_file(adapter), path, metadata={"topolora_monai": json.dumps(header | changes)})
    return path


def test_temperature_and_threshold_of_the_header(segmenter, adapter, samples, tmp_path):
    path = with_header(adapter, tmp_path / "warm.safetensors", temperature=2.0, threshold=0.3)
    warm = AnnotationSegmenter({"warm": path}, precision="fp32")
    plain, warmed = segmenter.automatic(samples[0][0]), warm.automatic(samples[0][0])
    torch.testing.assert_close(warmed, (plain.logit() / 2).sigmoid(), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(warm.masks(warmed)[0], (warmed[0] >= 0.3).numpy())


@pytest.fixture
def photograph(tmp_path):
    """A lit disc on black, its path and where it is."""
    rows, columns = np.mgrid[:120, :128]
    disc = np.hypot(rows - 60, columns - 64) < 50
    noise = np.random.default_rng(0).integers(90, 160, (120, 128, 3))
    path = tmp_path / "photograph.png"
    Image.fromarray(np.where(disc[..., None], noise, 2).astype(np.uint8)).save(path)
    return path, disc


def test_nothing_outside_the_field_of_view(segmenter, adapter, photograph):
    path, disc = photograph
    limited = AnnotationSegmenter({"vessels": adapter}, precision="fp32", field_of_view=True)
    free, answer, valid = segmenter.automatic(path)[0], limited.automatic(path)[0], limited.valid(path)
    assert np.mean(valid == disc) > 0.99
    assert (free[~valid] > 0).all()
    assert (answer[~valid] == 0).all()
    assert torch.equal(answer[valid], free[valid])
    assert all((mirrored[0][~valid] == 0).all() for mirrored in limited.mirrored(path))
    clicked = limited.interactive(path, Prompts.from_lists([[2, 2]], []))
    assert clicked[0, 2, 2] > 0.5  # who annotates has the last word


class TestClicks:
    def test_are_obeyed_and_local(self, segmenter, samples):
        image = samples[5][0]
        before = segmenter.automatic(image)
        mask = segmenter.masks(before)[0]
        missed, spurious = np.argwhere(~mask)[40], np.argwhere(mask)[200]
        prompts = Prompts.from_lists([missed[::-1]], [spurious[::-1]])
        after = segmenter.interactive(image, prompts)
        assert segmenter.masks(after)[0][tuple(missed)]
        assert not segmenter.masks(after)[0][tuple(spurious)]
        rows, columns = np.mgrid[:128, :128]
        far = np.ones((128, 128), bool)
        for click in (missed, spurious):
            far &= np.maximum(abs(rows - click[0]), abs(columns - click[1])) > 60
        changed = (after != before)[0].numpy()
        assert 2 <= changed.sum() < 2500
        assert far.any()
        assert not changed[far].any()

    def test_that_say_what_is_there_change_nothing(self, segmenter, samples):
        image = samples[0][0]
        before = segmenter.automatic(image)
        mask = segmenter.masks(before)[0]
        prompts = Prompts.from_lists([np.argwhere(mask)[10][::-1]], [np.argwhere(~mask)[10][::-1]])
        assert torch.equal(segmenter.interactive(image, prompts), before)

    def test_one_by_one_is_as_all_at_once_when_far_apart(self, segmenter, samples):
        image = samples[0][0]
        mask = segmenter.masks(segmenter.automatic(image))[0]
        left, right = np.argwhere(~mask[:, :3])[30], np.argwhere(~mask[:, 124:])[30] + (0, 124)
        points = [left[::-1], right[::-1]]
        first = segmenter.masks(segmenter.interactive(image, Prompts.from_lists(points[:1])))
        both = segmenter.masks(segmenter.interactive(image, Prompts.from_lists(points)))
        np.testing.assert_array_equal(
            segmenter.masks(segmenter.interactive(image, Prompts.from_lists(points), first)), both
        )

    def test_previous_mask_is_respected(self, segmenter, samples):
        previous = np.zeros((128, 128), np.uint8)
        previous[100:110, 100:120] = 1
        after = segmenter.masks(segmenter.interactive(samples[0][0], Prompts(), previous))[0]
        np.testing.assert_array_equal(after, previous > 0)

    def test_box_limits_the_change(self, segmenter, samples):
        image = samples[0][0]
        before = segmenter.automatic(image)
        mask = segmenter.masks(before)[0]
        row, column = np.argwhere(mask)[300]
        box = (column - 1, row - 1, column + 1, row + 1)
        changed = (segmenter.interactive(image, Prompts.from_lists([], [(column, row)], box)) != before)[0].numpy()
        assert changed[row, column]
        changed[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = False
        assert not changed.any()

    def test_box_alone_changes_only_inside(self, segmenter, samples):
        image = samples[0][0]
        nothing = np.zeros((128, 128), np.uint8)
        after = segmenter.masks(segmenter.interactive(image, Prompts(box=(30, 30, 100, 90)), nothing))[0]
        assert after[30:91, 30:101].any()
        after[30:91, 30:101] = False
        assert not after.any()

    def test_simulated_annotator_improves_the_masks(self, segmenter, samples):
        courses = []
        for image, _ in samples[2:]:

            def answer(prompts, previous, image=image):
                return segmenter.masks(segmenter.interactive(image, prompts, previous))[0]

            courses.append(annotate(answer, truth_of((image, image.with_name(f"{image.stem}_label.png"))), 10))
        mean = mean_course(courses, (0, 1, 3, 5, 10))
        assert mean[0] > 0.5
        assert list(mean.values()) == sorted(mean.values())
        assert mean[10] > mean[0] + 0.005
        assert all(course.dice[10] > course.dice[0] for course in courses)

    @pytest.mark.parametrize(
        ("prompts", "previous", "error", "message"),
        [
            (Prompts.from_lists([(128, 5)]), None, ConfigError, "outside of the image"),
            (Prompts.from_lists([(3, 5)], label=2), None, ConfigError, "no such class"),
            (Prompts(box=(200, 200, 210, 210)), None, ConfigError, "box outside"),
            (Prompts(), np.zeros((5, 5)), DataError, "differ in size"),
        ],
    )
    def test_impossible_ones_are_refused(self, segmenter, samples, prompts, previous, error, message):
        with pytest.raises(error, match=message):
            segmenter.interactive(samples[0][0], prompts, previous)


def inner_pixel(mask):
    """One of a mask that is 8 pixels or more from the edge."""
    found = np.argwhere(mask[8:-8, 8:-8]) + 8
    return found[len(found) // 2]


class TestPrompted:
    """Of a model that was trained with prompts, the network is asked."""

    @pytest.fixture
    def prompted(self, adapter, tmp_path):
        path = with_header(adapter, tmp_path / "prompted.safetensors", prompts=True)
        return AnnotationSegmenter({"vessels": path}, precision="fp32")

    @pytest.fixture
    def bumps(self, monkeypatch):
        """A network that answers what it is told so far, and a bump of 9 pixels at each click; gives its calls."""
        calls = []

        def decode(self, features, size, *, points, point_labels, mask_prompt):
            calls.append(points[0].tolist())
            answer = mask_prompt.clone()
            for (x, y), told in zip(points[0].int().tolist(), point_labels[0].tolist(), strict=True):
                answer[..., max(0, y - 4) : y + 5, max(0, x - 4) : x + 5] = 50.0 * (2 * told - 1)
            return answer

        def asked():
            monkeypatch.setattr(SamSegmenter, "decode", decode)
            return calls

        return asked

    def test_click_reaches_the_network_where_it_was_made(self, prompted, samples, bumps):
        image = samples[5][0]
        before = prompted.masks(prompted.automatic(image))[0]
        calls = bumps()
        outside = np.argwhere(~before)
        for row, column in outside[:: max(1, len(outside) // 9)]:
            after = prompted.masks(prompted.interactive(image, Prompts.from_lists([(column, row)])))[0]
            rows, columns = np.nonzero(after != before)
            assert max(abs(rows - row).max(), abs(columns - column).max()) <= 4
            assert after[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].all()
        assert len(calls) >= 8

    def test_tile_hears_all_its_clicks_and_only_those(self, prompted, samples, bumps):
        image = samples[5][0]
        before = prompted.masks(prompted.automatic(image))[0]
        (row, column), agreed = np.argwhere(~before[:30, :30])[20], np.argwhere(before)
        near = agreed[np.abs(agreed - (row, column)).max(axis=1).argmin()]
        calls = bumps()
        far = agreed[np.abs(agreed - (row, column)).max(axis=1).argmax()]
        clicks = Prompts.from_lists([(column, row), near[::-1], far[::-1]])
        prompted.interactive(image, clicks)
        assert calls == [[[float(column), float(row)], [float(near[1]), float(near[0])]]]
        prompted.interactive(image, Prompts.from_lists([near[::-1], far[::-1]]))
        assert len(calls) == 1  # nothing new in what the mask has already

    def test_what_was_drawn_stays(self, prompted, samples, bumps):
        image = samples[5][0]
        mask = prompted.masks(prompted.automatic(image))[0]
        bumps()
        row, column = inner_pixel(~mask)
        drawn = mask.copy()
        drawn[row - 4 : row + 5, column + 2 : column + 5] = ~drawn[row - 4 : row + 5, column + 2 : column + 5]
        after = prompted.masks(prompted.interactive(image, Prompts.from_lists([], [(column, row)]), drawn))[0]
        np.testing.assert_array_equal(after, drawn)  # the click agrees
        after = prompted.masks(prompted.interactive(image, Prompts.from_lists([(column, row)]), drawn))[0]
        taken = np.zeros_like(mask)
        taken[row - 4 : row + 5, column - 4 : column + 5] = True
        np.testing.assert_array_equal(after[~taken], drawn[~taken])
        assert after[row, column]

    def test_box_limits_the_answer(self, prompted, samples, bumps):
        image = samples[5][0]
        before = prompted.masks(prompted.automatic(image))[0]
        bumps()
        row, column = inner_pixel(~before)
        box = (column - 1, row - 2, column + 1, row + 2)
        after = prompted.masks(prompted.interactive(image, Prompts.from_lists([(column, row)], box=box)))[0]
        assert after[row - 2 : row + 3, column - 1 : column + 2].all()
        after[row - 2 : row + 3, column - 1 : column + 2] = before[row - 2 : row + 3, column - 1 : column + 2]
        np.testing.assert_array_equal(after, before)

    def test_costs_no_second_encoding(self, prompted, samples, encodings):
        before = prompted.masks(prompted.automatic(samples[0][0]))[0]
        row, column = np.argwhere(~before)[40]
        after = prompted.interactive(samples[0][0], Prompts.from_lists([(column, row)]))
        assert prompted.masks(after)[0][row, column]
        assert sum(encodings) == 9


class TestLines:
    def test_are_drawn_into_the_previous_mask(self, segmenter, samples):
        image, nothing = samples[0][0], np.zeros((128, 128), np.uint8)
        stroke = Stroke(((20.0, 30.0), (40.0, 30.0)), positive=True, width=4.0)
        mask = segmenter.masks(segmenter.interactive(image, Prompts(strokes=(stroke,)), nothing))[0]
        assert mask[29:32, 20:41].all()
        assert not mask[:28].any()
        away = Stroke(((30.0, 30.0),), positive=False, width=1.0)
        cut = segmenter.masks(segmenter.interactive(image, Prompts(strokes=(stroke, away)), nothing))[0]
        assert (cut != mask).sum() == 1

    def test_wire_follows_the_structure(self, segmenter, samples):
        image = samples[0][0]
        likely = segmenter.automatic(image)[0].numpy()
        (top, left), (bottom, right) = np.argwhere(likely > likely.max() / 2)[[0, -1]]
        wire = ((left, top), (right, bottom))
        path, half_width = segmenter.trace(image, wire)
        nothing = np.zeros((128, 128), np.uint8)
        mask = segmenter.masks(segmenter.interactive(image, Prompts(wires=(wire,)), nothing))[0]
        assert half_width >= 1
        assert path[0].tolist() == [top, left]
        assert path[-1].tolist() == [bottom, right]
        assert mask[tuple(path.T)].all()

    def test_bridge_without_a_break_is_refused(self, segmenter, samples):
        nothing = np.zeros((128, 128), np.uint8)
        with pytest.raises(ConfigError, match="no break to bridge here"):
            segmenter.interactive(samples[0][0], Prompts(bridges=((60.0, 60.0),)), nothing)


class TestEmbeddings:
    def test_of_an_image_are_made_once(self, adapter, samples, encodings):
        segmenter = AnnotationSegmenter({"vessels": adapter}, precision="fp32")
        image = samples[0][0]
        segmenter.automatic(image)
        assert sum(encodings) == 9  # 3 x 3 tiles that overlap by half
        segmenter.interactive(image, Prompts.from_lists([(5, 5)], [(60, 60)]))
        segmenter.interactive(image, Prompts(box=(5, 5, 60, 60)))
        assert sum(encodings) == 9

    def test_follow_content_and_adapter(self, adapter, samples, tmp_path, encodings):
        segmenter = AnnotationSegmenter({"vessels": adapter}, precision="fp32")
        path = tmp_path / "image.png"
        path.write_bytes(samples[0][0].read_bytes())
        first = segmenter.automatic(path)
        segmenter.automatic(samples[0][0])  # the same content elsewhere
        assert sum(encodings) == 9
        path.write_bytes(samples[1][0].read_bytes())
        assert not torch.equal(segmenter.automatic(path), first)
        assert sum(encodings) == 18
        segmenter.load("vessels", with_header(adapter, tmp_path / "other.safetensors", temperature=3.0))
        assert not torch.equal(segmenter.automatic(samples[0][0]), first)

    def test_stay_within_their_memory(self, adapter, samples, encodings):
        segmenter = AnnotationSegmenter({"vessels": adapter}, precision="fp32")
        segmenter.automatic(samples[0][0])
        segmenter.cache.capacity = int(2.5 * segmenter.cache.nbytes)
        for image, _ in samples[1:4]:
            segmenter.automatic(image)
        assert len(segmenter.cache) == 2
        assert segmenter.cache.nbytes <= segmenter.cache.capacity
        segmenter.automatic(samples[3][0])
        assert sum(encodings) == 36
        segmenter.automatic(samples[0][0])  # forgotten
        assert sum(encodings) == 45


def test_clients_meet_in_the_network(adapter, samples, monkeypatch):
    """Two requests to one adapter are inside the encoder at the same moment."""
    segmenter = AnnotationSegmenter({"vessels": adapter}, precision="fp32")
    alone = [segmenter.automatic(image) for image, _ in samples[:2]]
    segmenter.cache.clear()
    meeting, original = threading.Barrier(2, timeout=20), SamSegmenter.features
    seen = threading.local()

    def features(self, image):
        if not getattr(seen, "met", False):
            seen.met = True
            meeting.wait()  # breaks if one has to wait for the other to finish
        return original(self, image)

    monkeypatch.setattr(SamSegmenter, "features", features)
    answers = [None, None]

    def ask(index):
        answers[index] = segmenter.automatic(samples[index][0])

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer, expected in zip(answers, alone, strict=True):
        torch.testing.assert_close(answer, expected, rtol=0, atol=1e-5)


def test_threads_share_the_weights(segmenter):
    model = segmenter._named("vessels")
    with model.borrow() as one, model.borrow() as other:
        assert one is not other
        assert {p.data_ptr() for p in one.parameters()} == {p.data_ptr() for p in other.parameters()}


def test_an_image_asked_for_by_many_is_encoded_once(adapter, samples, encodings):
    segmenter = AnnotationSegmenter({"vessels": adapter}, precision="fp32")
    threads = [threading.Thread(target=segmenter.automatic, args=(samples[0][0],)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(encodings) == 9


def test_base_can_be_asked_and_unknown_ones_not(segmenter, samples):
    assert segmenter.names == ("base", "vessels")
    assert not torch.equal(segmenter.automatic(samples[0][0], "base"), segmenter.automatic(samples[0][0]))
    with pytest.raises(ConfigError, match="vessels"):
        segmenter.automatic(samples[0][0], "vesels")
    with pytest.raises(DataError):
        segmenter.automatic("nowhere.png")


def test_of_exclusive_classes_a_click_takes_the_pixel_from_the_others(tmp_path, samples):
    adaptation = adapt(build_network("vit_tiny_test", image_size=128, out_channels=2), preset_config("lora"))
    path = tmp_path / "classes.safetensors"
    save_adapter(
        adaptation,
        path,
        **PROPERTIES | {"out_channels": 2, "activation": "softmax", "labels": ["background", "a", "b"]},
    )
    segmenter = AnnotationSegmenter({"classes": path}, precision="fp32")
    previous = np.full((128, 128), 1, np.uint8)
    answer = segmenter.interactive(samples[0][0], Prompts.from_lists([(20, 30)], label=2), previous)
    masks = segmenter.masks(answer)
    assert masks[:, 30, 20].tolist() == [False, True]
    assert masks[:, 100, 100].tolist() == [True, False]
    assert float(answer.sum(dim=0).max()) <= 1 + 1e-6


def test_next_click_is_in_the_largest_error():
    truth = np.zeros((40, 60), bool)
    truth[5:8, 5:40] = True
    prediction = np.zeros_like(truth)
    prediction[20:30, 50:58] = True
    assert next_click(prediction, truth)[:] == (22.0, 6.0, True)  # 105 pixels missed, 80 spurious
    prediction[5:8, 5:40] = True
    assert not next_click(prediction, truth).positive
    assert next_click(truth, truth) is None
    assert next_click(prediction, truth, valid=truth) is None
