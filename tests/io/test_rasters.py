"""Rasters: which files are ones, their bands, and what is valid."""

import sys

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from topolora_monai.errors import ConfigError, DataError
from topolora_monai.io import image_kind, image_size, is_raster, open_raster, read_bands, read_image
from topolora_monai.io.rasters import raster_orientation

rasterio = pytest.importorskip("rasterio")
GRID = rasterio.Affine(10, 0, 500000, 0, -10, 4649000)


def write(path, array, georeferenced=True, **profile):
    settings = {"driver": "GTiff", "count": len(array), "dtype": array.dtype} | profile
    settings |= {"crs": "EPSG:32633", "transform": GRID} if georeferenced else {}
    with rasterio.open(path, "w", height=array.shape[1], width=array.shape[2], **settings) as file:
        file.write(array)
    return path


def ramp(bands, dtype):
    return np.arange(bands * 12).reshape(bands, 3, 4).astype(dtype)


@pytest.mark.parametrize(
    ("bands", "dtype", "georeferenced", "expected"),
    [(1, "uint8", True, True), (3, "uint8", False, False), (1, "uint16", False, False), (1, "uint16", True, True),
     (2, "uint8", False, True), (1, "float32", False, True), (1, "int16", False, True), (5, "uint16", False, True)],
)  # fmt: skip
def test_what_is_a_raster(tmp_path, bands, dtype, georeferenced, expected):
    path = write(tmp_path / "a.tif", ramp(bands, dtype), georeferenced)
    assert is_raster(path) is expected
    assert image_kind(path) == ("raster" if expected else "picture")
    assert image_size(path) == (3, 4)


def test_other_files_are_none(tmp_path):
    Image.new("L", (3, 3)).save(tmp_path / "a.png")
    (tmp_path / "b.tif").write_bytes(b"nothing of the kind")
    assert not is_raster(tmp_path / "a.png")
    assert not is_raster(tmp_path / "b.tif")
    assert not is_raster(tmp_path / "absent.tif")


def test_bands_for_channels(tmp_path):
    one, three, five = (write(tmp_path / f"{n}.tif", ramp(n, "float32")) for n in (1, 3, 5))
    assert np.array_equal(read_image(one, 1).values, ramp(1, "float32"))
    assert np.array_equal(read_image(one, 3).values, np.repeat(ramp(1, "float32"), 3, axis=0))
    assert np.array_equal(read_image(three, 3).values, ramp(3, "float32"))
    assert np.array_equal(read_image(five, 5).values, ramp(5, "float32"))


@pytest.mark.parametrize(("bands", "dtype", "channels"), [
    (13, "uint16", 3), (13, "uint8", 1), (5, "float32", 2), (4, "uint8", 3), (4, "uint16", 1), (2, "float32", 1),
    (2, "float32", 3), (3, "float32", 1),
])  # fmt: skip
def test_bands_that_nobody_named_are_refused(tmp_path, bands, dtype, channels):
    path = write(tmp_path / "a.tif", ramp(bands, dtype), photometric="minisblack")
    with pytest.raises(DataError, match=rf"expected: {channels}\n  found:    {bands}\n.*gdal_translate -b {channels} "):
        read_image(path, channels)
    with pytest.raises(DataError, match=f"train with --model#in_channels {bands}$"):
        read_image(path, channels)


@pytest.mark.parametrize("meanings", ["red green blue alpha", "red green blue undefined", "undefined blue green red"])
def test_bands_by_their_names(tmp_path, meanings):
    interpretation = [rasterio.enums.ColorInterp[name] for name in meanings.split()]
    stored = ramp(4, "uint8") + 1
    path = write(tmp_path / "a.tif", stored, photometric="minisblack")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = interpretation
    order = [meanings.split().index(name) for name in ("red", "green", "blue")]
    np.testing.assert_allclose(read_image(path, 3).values * 255, stored[order], rtol=1e-6)
    luminance = np.tensordot([0.299, 0.587, 0.114], stored[order].astype(float), axes=1)
    np.testing.assert_allclose(read_image(path, 1).values[0] * 255, luminance, rtol=1e-6)
    np.testing.assert_allclose(read_image(path, 4).values * 255, stored, rtol=1e-6)


def test_what_alpha_hides_is_not_valid(tmp_path):
    stored = np.concatenate([ramp(3, "uint8"), np.full((1, 3, 4), 255, np.uint8)])
    stored[3, 1, 2] = 0
    path = write(tmp_path / "a.tif", stored, photometric="rgb", alpha="yes")
    assert np.array_equal(read_image(path, 3).valid, stored[3] > 0)


def test_eight_bit_is_scaled_and_colour_reduced_to_luminance(tmp_path):
    colour = np.stack([np.full((2, 2), value, np.uint8) for value in (255, 0, 51)])
    path = write(tmp_path / "a.tif", colour)
    image = read_image(path, 3)
    assert image.scaled
    np.testing.assert_allclose(image.values[:, 0, 0], [1, 0, 0.2])
    np.testing.assert_allclose(read_image(path, 1).values, 0.299 + 0.114 * 0.2, rtol=1e-6)


def test_nodata_nan_and_internal_masks_are_not_valid(tmp_path):
    values = ramp(2, "float32")
    values[0, 0, 0], values[1, 1, 1] = -99, np.nan
    image = read_image(write(tmp_path / "a.tif", values, nodata=-99), 2)
    assert not image.scaled
    expected = np.ones((3, 4), bool)
    expected[0, 0] = expected[1, 1] = False
    assert np.array_equal(image.valid, expected)
    assert (image.values[:, ~expected] == 0).all()
    assert np.array_equal(image.values[:, expected], values[:, expected])
    path = write(tmp_path / "b.tif", ramp(1, "float32"))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(expected)
    assert np.array_equal(read_image(path, 1).valid, expected)


def test_windows(tmp_path):
    path = write(tmp_path / "a.tif", ramp(1, "float32"))
    with open_raster(path) as dataset:
        values, valid = read_bands(dataset, 1, window=rasterio.windows.Window(1, 0, 2, 3))
    assert np.array_equal(values, ramp(1, "float32")[:, :, 1:3])
    assert valid.shape == (3, 2)


def test_what_float32_cannot_hold_is_refused(tmp_path):
    with pytest.raises(DataError, match="complex numbers"):
        read_image(write(tmp_path / "a.tif", ramp(1, "complex64")), 1)
    path = write(tmp_path / "b.tif", ramp(1, "uint8"), photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (0, 0, 0), 1: (255, 0, 0)})
    with pytest.raises(DataError, match="indices of a palette"):
        read_image(path, 1)


def test_damaged_raster_is_named(tmp_path):
    path = write(tmp_path / "a.tif", np.random.default_rng(0).random((1, 200, 200)).astype(np.float32))
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(DataError, match=r"damaged or incomplete.*a\.tif"):
        read_image(path, 1)


def test_without_rasterio_the_extra_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif", ramp(1, "float32"))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(ConfigError, match=r"topolora_monai\[sar\]"):
        read_image(path, 1)


def test_orientation_tag_is_refused_without_georeference_and_passed_over_with_one(tmp_path):
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    georeference = {33550: (1.0, 1.0, 0.0), 33922: (0.0, 0.0, 0.0, 5.0, 9.0, 0.0)}
    for name, tags in (("plain.tif", {}), ("placed.tif", georeference)):
        info = TiffImagePlugin.ImageFileDirectory_v2()
        for tag, value in {274: 3, **tags}.items():
            info.tagtype[tag] = 12 if tag != 274 else 3
            info[tag] = value
        Image.fromarray(rows).save(tmp_path / name, tiffinfo=info)
        assert raster_orientation(tmp_path / name) == 3
    with pytest.raises(DataError, match=r"orientation tag and no georeference.*plain\.tif"):
        read_image(tmp_path / "plain.tif", 1)
    assert np.array_equal(read_image(tmp_path / "placed.tif", 1).values[0], rows)
