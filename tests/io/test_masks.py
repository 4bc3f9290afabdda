"""Masks of every encoding."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from topolora_monai.errors import DataError
from topolora_monai.io import UNLABELLED, read_labels, read_mask

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
    with pytest.raises(DataError, match="other values"):
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
