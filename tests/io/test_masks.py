"""Masks of every encoding."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from topolora_monai.errors import ConfigError, DataError
from topolora_monai.io import UNLABELLED, numbered, read_labels, read_mask

CROSS = np.eye(6, dtype=np.uint8) | np.eye(6, dtype=np.uint8)[::-1]


def geotiff(path, array, **profile):
    rasterio = pytest.importorskip("rasterio")
    grid = rasterio.Affine(1, 0, 0, 0, -1, 0)
    settings = {"driver": "GTiff", "count": 1, "dtype": array.dtype, "crs": "EPSG:32633", "transform": grid} | profile
    with rasterio.open(path, "w", height=array.shape[0], width=array.shape[1], **settings) as file:
        file.write(array, 1)
    return path


def test_signed_raster_knows_what_is_unlabelled(tmp_path):
    stored = CROSS.astype(np.int16)
    stored[0] = -1
    classes, valid = read_labels(geotiff(tmp_path / "a.tif", stored), {-1: UNLABELLED, 0: 0, 1: 1})
    assert np.array_equal(classes[1:], CROSS[1:])
    assert not valid[0].any()
    assert valid[1:].all()


def test_nodata_is_not_valid_either(tmp_path):
    stored = CROSS.copy()
    stored[2, 3] = 9
    _, valid = read_labels(geotiff(tmp_path / "a.tif", stored, nodata=9), {0: 0, 1: 1})
    assert valid.sum() == 35
    assert not valid[2, 3]
    with pytest.raises(DataError, match="nodata"):
        read_mask(geotiff(tmp_path / "b.tif", stored, nodata=9))


def test_nan_is_background(tmp_path):
    stored = CROSS.astype(np.float32)
    stored[2, 3] = stored[0, 0] = np.nan
    expected = CROSS.copy()
    expected[2, 3] = expected[0, 0] = 0
    nib.save(nib.Nifti1Image(stored.T[..., None], np.eye(4)), tmp_path / "a.nii")
    for path, place in ((tmp_path / "a.nii", (0, 0)), (geotiff(tmp_path / "b.tif", stored), (None, None))):
        np.testing.assert_array_equal(read_mask(path, *place), expected)
        classes, valid = read_labels(path, {0: 0, 1: 1}, *place)
        np.testing.assert_array_equal(classes, expected)
        np.testing.assert_array_equal(valid, np.isfinite(stored))


def test_values_beyond_the_encoding_are_listed(tmp_path):
    stored = CROSS.astype(np.int16) * 7
    with pytest.raises(DataError, match=r"expected: -1, 0, 1\n  found:    0, 7"):
        read_labels(geotiff(tmp_path / "a.tif", stored), {-1: UNLABELLED, 0: 0, 1: 1})


def test_classes_are_renumbered(tmp_path):
    Image.fromarray(CROSS * 200).save(tmp_path / "a.png")
    classes, valid = read_labels(tmp_path / "a.png", {0: 2, 200: 0})
    assert np.array_equal(classes, 2 * (1 - CROSS))
    assert valid is None


def test_colours(tmp_path):
    colours = np.array([[0, 0, 0], [255, 0, 0], [255, 255, 255]], np.uint8)
    numbers = np.arange(36).reshape(6, 6) % 3
    Image.fromarray(colours[numbers]).save(tmp_path / "a.png")
    encoding = {0x000000: 0, 0xFF0000: 1, 0xFFFFFF: 2}
    assert np.array_equal(read_labels(tmp_path / "a.png", encoding).classes, numbers)
    Image.fromarray(np.full((6, 6, 3), (0, 255, 0), np.uint8)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"expected: 0x000000, 0xFF0000, 0xFFFFFF\n  found:    0x00FF00"):
        read_labels(tmp_path / "b.png", encoding)


@pytest.mark.parametrize(("level", "value"), [(0, 0), (255, 1), (3, 0), (253, 1)])
def test_palette_of_one_colour_counts_by_its_brightness(tmp_path, level, value):
    Image.fromarray(np.full((4, 4), level, np.uint8)).save(tmp_path / "a.gif")
    assert (read_mask(tmp_path / "a.gif") == value).all()


def test_slices_of_a_volume(tmp_path):
    values = np.stack([CROSS * index for index in range(3)])
    nib.save(nib.Nifti1Image(values.T, np.eye(4)), tmp_path / "a.nii.gz")
    assert np.array_equal(read_mask(tmp_path / "a.nii.gz", axis=0, index=2), CROSS)
    assert read_mask(tmp_path / "a.nii.gz", axis=0, index=0).sum() == 0
    with pytest.raises(DataError, match="mask is a volume"):
        read_mask(tmp_path / "a.nii.gz")


def test_several_bands_are_refused(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    profile = {"driver": "GTiff", "count": 2, "dtype": "uint8", "height": 4, "width": 4}
    with rasterio.open(tmp_path / "a.tif", "w", **profile) as file:
        file.write(np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(DataError, match="several bands"):
        read_mask(tmp_path / "a.tif")


def palette(path, indices, *colours):
    image = Image.fromarray(np.uint8(indices), mode="P")
    image.putpalette([level for colour in colours for level in colour])
    image.save(path)
    return path


@pytest.mark.parametrize(
    ("indices", "colours"),
    [
        ([[0, 1]], [(19, 0, 48), (0, 19, 0)]),  # two colours of one brightness
        ([[0, 1]], [(0, 128, 0), (128, 0, 0)]),  # the index says one thing, the brightness another
        ([[1, 2]], [(0, 0, 0), (128, 0, 0), (0, 128, 0)]),  # two classes without background
        ([[2, 2]], [(0, 0, 0), (128, 0, 0), (0, 128, 0)]),  # one class, which may be any
    ],
)
def test_palettes_that_do_not_say_what_is_foreground_are_refused(tmp_path, indices, colours):
    with pytest.raises(DataError, match=r"not clear.*a\.png") as error:
        read_mask(palette(tmp_path / "a.png", indices, *colours))
    assert "shown as (" in str(error.value)


def test_colour_picture_of_one_brightness_is_refused(tmp_path):
    Image.fromarray(np.uint8([[(19, 0, 48), (0, 19, 0)]])).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="2 colours of equal brightness"):
        read_mask(tmp_path / "a.png")


def test_numbers_that_can_be_meant_in_two_ways_are_refused(tmp_path):
    grey = [(0, 0, 0), (1, 1, 1), (3, 3, 3)]
    encoding = numbered(["background", "cup", "window", "door"])
    with pytest.raises(DataError, match=r"two ways.*a\.png") as error:
        read_labels(palette(tmp_path / "a.png", [[0, 1, 2]], *grey), encoding)
    assert "0, 1, 2, shown as 0, 1, 3" in str(error.value)
    assert read_labels(palette(tmp_path / "b.png", [[0, 1, 1]], *grey), encoding).classes.tolist() == [[0, 1, 1]]
    with pytest.raises(DataError, match="two ways"):
        read_labels(
            palette(tmp_path / "c.png", [[0, 1, 2]], (0, 0, 0), (2, 2, 2), (9, 9, 9)),
            numbered(["background", "road"], 2),
        )


@pytest.mark.parametrize("encoding", [numbered(["background", "cup", "window"]), numbered(["background", "cup"], 128)])
def test_jpeg_keeps_no_numbers(tmp_path, encoding):
    Image.fromarray(CROSS).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"JPEG does not keep.*a\.jpg"):
        read_labels(tmp_path / "a.jpg", encoding)


@pytest.mark.parametrize(("low", "high"), [(0, 100), (160, 250)])
def test_jpeg_on_one_side_of_the_cut_is_refused(tmp_path, low, high):
    Image.fromarray(np.kron(CROSS, np.ones((16, 16), np.uint8)) * np.uint8(high - low) + np.uint8(low)).save(
        tmp_path / "a.jpg"
    )
    with pytest.raises(DataError, match=r"not clear.*a\.jpg"):
        read_mask(tmp_path / "a.jpg")


def test_ignore_is_a_value_of_no_class():
    with pytest.raises(ConfigError, match=r"number of a class[\s\S]*2, which is window"):
        numbered(["background", "cup", "window"], 2)
    with pytest.raises(ConfigError, match="whole number"):
        numbered(["background", "cup"], 1.5)
    with pytest.raises(ConfigError, match="says itself"):
        numbered(["background", "ship"], 255, {0: 0, 255: 1})
    assert numbered(["background", "ship"], None, {0: 0, 255: 1}) == {0: 0, 255: 1}


def test_nan_voxels_are_neither_foreground_nor_known(tmp_path):
    values = np.stack([CROSS, CROSS]).astype(np.float32)
    values[0, :2] = np.nan
    nib.save(nib.Nifti1Image(values.T, np.eye(4)), tmp_path / "a.nii.gz")
    classes, valid = read_labels(tmp_path / "a.nii.gz", axis=0, index=0)
    assert np.array_equal(classes[2:], CROSS[2:])
    assert not classes[:2].any()
    assert not valid[:2].any()
    assert valid[2:].all()
    assert np.array_equal(read_mask(tmp_path / "a.nii.gz", axis=0, index=0), classes)
