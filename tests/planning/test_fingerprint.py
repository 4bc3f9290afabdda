"""What is measured: widths of known lines, shares of known areas, and of the training split alone."""

from pathlib import Path

import numpy as np
import pytest

from tests.planning.helpers import lines, write_folder
from topolora_monai.data import open_dataset
from topolora_monai.errors import DataError
from topolora_monai.planning import fingerprint
from topolora_monai.planning.fingerprint import skeleton_widths


@pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 20])
@pytest.mark.parametrize("transposed", [False, True])
def test_lines_are_as_wide_as_they_were_drawn(width, transposed):
    mask = np.zeros((60, 200), bool)
    mask[20 : 20 + width, 5:195] = True
    widths = skeleton_widths(mask.T if transposed else mask)
    assert np.median(widths) == width


def test_a_ragged_edge_does_not_make_a_thick_line_thin():
    mask = np.zeros((80, 400), bool)
    mask[30:50] = True
    mask[50:53, ::12] = True  # hairs, of which the skeleton makes spurs
    assert np.quantile(skeleton_widths(mask), 0.1) > 15


def test_masks_without_a_background_or_foreground():
    assert len(skeleton_widths(np.zeros((5, 5), bool))) == 0
    assert set(skeleton_widths(np.ones((5, 9), bool))) == {5.0}


def test_figures_of_lines(tmp_path):
    data = write_folder(tmp_path, [lines((96, 128), 3, count=2) for _ in range(6)])
    found = fingerprint(data)
    vessel = found.classes[0]
    assert (found.images, found.opened, set(found.sizes)) == (len(data.items("training")), found.images, {(96, 128)})
    assert vessel.widths[1] == 3
    assert (vessel.components, vessel.share) == (2, pytest.approx(2 * 3 * 108 / (96 * 128)))
    assert vessel.extent == pytest.approx(108 / 128)
    assert (found.bits, found.channels, found.empty) == (8, 3, 0)
    assert 0 < found.value_range[0] < found.value_range[1] <= 1


def test_other_splits_are_not_read(tmp_path):
    data = write_folder(tmp_path, [lines((64, 64), 2) for _ in range(10)])
    for split in ("validation", "test"):
        for item in data.items(split):
            for key in ("image", "label"):
                Path(item[key]).write_bytes(b"")
    assert fingerprint(data).images == len(data.items("training")) < 10


def test_many_images_are_sampled_the_same_way_each_time(tmp_path):
    masks = [lines((48, 48), 1 + number % 5) for number in range(30)]
    data = write_folder(tmp_path, masks)
    first, again, other = (fingerprint(data, most=5, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert first.opened == 5 < first.images


def test_how_often_crops_hold_something(tmp_path):
    mask = np.zeros((512, 512), np.uint8)
    mask[254:258, 254:258] = 255
    rare = fingerprint(write_folder(tmp_path / "a", [mask] * 4)).occupied
    assert rare[64] == pytest.approx((67 / 449) ** 2)
    assert rare[64] < rare[128] < rare[384] == rare[1024] == 1
    assert fingerprint(write_folder(tmp_path / "b", [np.zeros_like(mask)] * 4)).occupied == {}


def test_large_masks_are_measured_in_a_part(tmp_path):
    mask = np.zeros((2600, 2600), np.uint8)
    mask[10, :] = 255
    found = fingerprint(write_folder(tmp_path, [mask] * 3, validation_fraction=0.34, test_fraction=0.33))
    assert found.classes[0].widths == (1, 1, 1)
    assert found.classes[0].extent == 1


def test_classes_are_measured_apart(tmp_path):
    mask = np.zeros((128, 128), np.uint8)
    mask[10, 5:120] = 1
    mask[40:100, 20:110] = 2
    found = fingerprint(write_folder(tmp_path, [mask] * 5, classes=["none", "crack", "stone"]))
    assert [each.name for each in found.classes] == ["crack", "stone"]
    assert found.classes[0].widths[2] == 1
    assert found.classes[1].widths[2] > 40


def test_a_broken_mask_is_named(tmp_path):
    data = write_folder(tmp_path, [lines((64, 64), 2) for _ in range(5)])
    item = data.items("training")[0]
    Path(item["label"]).write_bytes(Path(item["label"]).read_bytes()[:50])
    with pytest.raises(DataError, match=item["name"]):
        fingerprint(data)


def test_synthetic_vessels():
    found = fingerprint(open_dataset("synthetic_vessels"), most=2)
    assert 2 <= found.classes[0].widths[0] < 3
