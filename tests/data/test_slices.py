"""Volumes as items of one slice each."""

import nibabel as nib
import numpy as np
import pytest

from topolora_monai.data import check_items
from topolora_monai.data.items import expand_slices
from topolora_monai.errors import DataError
from topolora_monai.transforms import LoadItem


@pytest.fixture
def write_volume(tmp_path):
    """Write zeros of (slices, rows, columns), which NIfTI stores the other way round."""

    def write(name: str, shape, spacing=(1, 1, 1)) -> str:
        image = nib.Nifti1Image(np.zeros(shape[::-1], np.uint8), np.diag([*spacing[::-1], 1]))
        nib.save(image, tmp_path / name)
        return str(tmp_path / name)

    return write


def test_one_item_a_slice(write_volume):
    image, label = write_volume("a.nii.gz", (4, 6, 5)), write_volume("b.nii", (4, 6, 5))
    items = expand_slices({"name": "a", "image": image, "label": label, "second_label": label})
    assert [item["name"] for item in items] == ["a_s000", "a_s001", "a_s002", "a_s003"]
    shared = {"image": image, "label": label, "second_label": label, "axis": 0, "group": "a"}
    assert [{**shared, "name": item["name"], "slice": n} for n, item in enumerate(items)] == items


def test_axis(write_volume):
    thick = write_volume("a.nii.gz", (4, 6, 5), spacing=(1, 3, 1))
    assert [(item["axis"], item["slice"]) for item in expand_slices({"name": "a", "image": thick})] == [
        (1, n) for n in range(6)
    ]
    assert [item["slice"] for item in expand_slices({"name": "a", "image": thick}, axis=2)] == list(range(5))


def test_names_sort_as_slices_do(write_volume):
    names = [
        item["name"] for item in expand_slices({"name": "a", "image": write_volume("a.nii", (1001, 1, 2))}, axis=0)
    ]
    assert names == sorted(names)
    assert names[-1] == "a_s1000"


def test_given_group_is_kept(write_volume):
    items = expand_slices({"name": "a", "image": write_volume("a.nii", (3, 4, 5)), "group": "patient"})
    assert {item["group"] for item in items} == {"patient"}


def test_pictures_stay_as_they_are(write_image):
    path = str(write_image("a.png", np.zeros((4, 4), np.uint8)))
    item = {"name": "a", "image": path, "label": path}
    assert expand_slices(item, axis=1) == [item]


def test_one_field_of_view_for_all_slices(write_volume, write_image):
    fov = str(write_image("fov.png", np.ones((6, 5), np.uint8)))
    items = expand_slices({"name": "a", "image": write_volume("a.nii", (4, 6, 5)), "fov": fov})
    assert {item["fov"] for item in items} == {fov}


@pytest.mark.parametrize("key", ["label", "second_label", "fov"])
def test_other_depth_is_refused(write_volume, key):
    item = {"name": "a", "image": write_volume("a.nii", (4, 6, 5)), key: write_volume("b.nii", (3, 6, 5))}
    with pytest.raises(DataError, match="do not belong together") as error:
        expand_slices(item)
    assert "b.nii" in str(error.value)
    assert "4 slices along axis 0" in str(error.value)
    assert "3 slices" in str(error.value)


def test_picture_and_volume_do_not_mix(write_volume, write_image):
    volume, picture = write_volume("a.nii", (4, 6, 5)), str(write_image("a.png", np.zeros((6, 5), np.uint8)))
    with pytest.raises(DataError, match="do not belong together") as error:
        expand_slices({"name": "a", "image": volume, "label": picture})
    assert "expected: a volume" in str(error.value)
    with pytest.raises(DataError, match="do not belong together") as error:
        expand_slices({"name": "a", "image": picture, "label": volume})
    assert "expected: a picture" in str(error.value)


class TestMasksWithOtherAxes:
    """A mask in another order of axes, of the same place."""

    AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])

    @pytest.fixture
    def turned(self, tmp_path):
        values = (np.random.default_rng(0).random((5, 6, 4)) > 0.5).astype(np.uint8)  # columns, rows, slices
        orientation = np.array([[2, -1], [0, 1], [1, 1]])
        nib.save(nib.Nifti1Image(values.astype(np.int16) * 9, self.AFFINE), tmp_path / "a.nii.gz")
        stored = nib.orientations.apply_orientation(values, orientation)
        affine = self.AFFINE @ nib.orientations.inv_ornt_aff(orientation, values.shape)
        nib.save(nib.Nifti1Image(stored, affine), tmp_path / "b.nii.gz")
        item = {"name": "a", "image": str(tmp_path / "a.nii.gz")}
        return item | dict.fromkeys(("label", "second_label", "fov"), str(tmp_path / "b.nii.gz")), values.T

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_slices_are_counted_and_read_along_the_images_axes(self, turned, axis):
        item, values = turned
        items = expand_slices(item, axis)
        assert len(items) == values.shape[axis]
        check_items(items)
        for each in items:
            loaded = LoadItem(channels=1)(each)
            expected = values.take(each["slice"], axis)
            np.testing.assert_array_equal(loaded["label"][0], expected)
            np.testing.assert_array_equal(loaded["fov"][0], expected)
            np.testing.assert_array_equal(loaded["image"][0] > 0.5, expected == 1)

    @pytest.mark.parametrize("key", ["label", "second_label", "fov"])
    def test_another_place_is_refused_before_training(self, turned, tmp_path, key):
        item, values = turned
        nib.save(nib.Nifti1Image(values.T, self.AFFINE * [[1], [1], [2], [1]]), tmp_path / "c.nii.gz")
        items = expand_slices({**item, key: str(tmp_path / "c.nii.gz")})
        with pytest.raises(DataError, match="lies elsewhere") as error:
            check_items(items)
        assert "spacing 1 x 2 x 3 mm" in str(error.value)
        assert "spacing 1 x 2 x 6 mm" in str(error.value)
