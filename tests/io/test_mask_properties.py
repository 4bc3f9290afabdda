"""Whatever container an image or mask is written to, the array read is the array meant."""

import gzip
import warnings

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, TiffImagePlugin, TiffTags

from topolora_monai.errors import DataError
from topolora_monai.io import image_orientation, image_size, numbered, picture_size, read_image, read_labels

KEPT = settings(
    max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))
TWO_VALUED = arrays(np.bool_, SHAPES)
CLASS_NUMBERS = arrays(np.uint8, SHAPES, elements=st.integers(0, 3))
WHITE_IS_ZERO = {262: 0}
TURNED = {  # how an upright array is stored under each orientation tag, by the words of EXIF alone
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: a.T[::-1],
    7: lambda a: a.T[::-1, ::-1],
    8: lambda a: a.T[:, ::-1],
}


def white(mask):
    return Image.fromarray(mask.astype(np.uint8) * 255)


def palette(indices, *colours):
    picture = Image.fromarray(indices.astype(np.uint8), mode="P")
    picture.putpalette([level for colour in colours for level in colour])
    return picture


def geotiff(path, array, **profile):
    rasterio = pytest.importorskip("rasterio")
    grid = rasterio.Affine(2, 0, 5, 0, -2, 9)
    settings = {"driver": "GTiff", "count": 1, "dtype": array.dtype, "crs": "EPSG:32633", "transform": grid} | profile
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", height=array.shape[0], width=array.shape[1], **settings) as file:
            file.write(array, 1)


def palette_geotiff(path, indices, colours):
    rasterio = pytest.importorskip("rasterio")
    geotiff(path, indices)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, dict(enumerate(colours)))


def placed_bits(path, mask, tags=None):
    """By Pillow, since GDAL loses lone bits of small masks when it writes them."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in {33550: (2.0, 2.0, 0.0), 33922: (0.0, 0.0, 0.0, 5.0, 9.0, 0.0)}.items():
        info.tagtype[tag] = TiffTags.DOUBLE
        info[tag] = value
    for tag, value in (tags or {}).items():
        info[tag] = value
    white(mask).convert("1").save(path, tiffinfo=info)


def with_tag(path, array, tag, **options):
    exif = Image.Exif()
    exif[274] = tag
    picture = Image.fromarray(np.ascontiguousarray(TURNED[tag](array)))
    picture.save(path, **({"tiffinfo": {274: tag}} if path.suffix == ".tif" else {"exif": exif}), **options)


def gzipped(path, picture):
    plain = path.with_suffix("")
    picture.save(plain)
    path.write_bytes(gzip.compress(plain.read_bytes()))


BLACK, WHITE = (0, 0, 0), (255, 255, 255)
CONTAINERS = {
    "grey.png": lambda p, m: white(m).save(p),
    "ones.png": lambda p, m: Image.fromarray(m.astype(np.uint8)).save(p),
    "bit.png": lambda p, m: white(m).convert("1").save(p),
    "rgb.png": lambda p, m: white(m).convert("RGB").save(p),
    "red_on_black.png": lambda p, m: Image.fromarray(m[..., None] * np.uint8([180, 0, 0])).save(p),
    "la.png": lambda p, m: white(m).convert("LA").save(p),
    "rgba.png": lambda p, m: white(m).convert("RGBA").save(p),
    "deep.png": lambda p, m: Image.fromarray(m * np.uint16(65535)).save(p),
    "drive.png": lambda p, m: Image.fromarray(np.where(m, np.uint8(253), np.uint8(3))).save(p),
    "one_and_white.png": lambda p, m: Image.fromarray(np.where(m, np.uint8(255), np.uint8(1))).save(p),
    "white_first.png": lambda p, m: palette(~m, WHITE, BLACK).save(p),
    "black_first.png": lambda p, m: palette(m, BLACK, WHITE).save(p),
    "voc.png": lambda p, m: palette(m, BLACK, (128, 0, 0), (0, 128, 0)).save(p),
    "many_entries.png": lambda p, m: palette(np.where(m, 7, 90), *[WHITE] * 50, *[BLACK] * 50).save(p),
    "transparent.png": lambda p, m: palette(~m, WHITE, BLACK).save(p, transparency=0),
    "adaptive.png": lambda p, m: white(m).convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=2).save(p),
    "grey.gif": lambda p, m: white(m).save(p),
    "rgb.gif": lambda p, m: white(m).convert("RGB").save(p),
    "quantized.gif": lambda p, m: white(m).convert("RGB").quantize(2).save(p),
    "grey.bmp": lambda p, m: white(m).save(p),
    "bit.bmp": lambda p, m: white(m).convert("1").save(p),
    "white_first.bmp": lambda p, m: palette(~m, WHITE, BLACK).save(p),
    "grey.pgm": lambda p, m: white(m).save(p),
    "rgb.ppm": lambda p, m: white(m).convert("RGB").save(p),
    "packed.png.gz": lambda p, m: gzipped(p, white(m)),
    "bit.tif": lambda p, m: white(m).convert("1").save(p),
    "bit_white_is_zero.tif": lambda p, m: white(m).convert("1").save(p, tiffinfo=WHITE_IS_ZERO),
    "grey.tif": lambda p, m: white(m).save(p),
    "white_is_zero.tif": lambda p, m: white(m).save(p, tiffinfo=WHITE_IS_ZERO),
    "deep.tif": lambda p, m: Image.fromarray(m * np.uint16(65535)).save(p),
    # Pillow writes samples of 16 bits as they are, whatever it says they show.
    "deep_white_is_zero.tif": lambda p, m: Image.fromarray(~m * np.uint16(65535)).save(p, tiffinfo=WHITE_IS_ZERO),
    "white_first.tif": lambda p, m: palette(~m, WHITE, BLACK).save(p),
    "packed.tif.gz": lambda p, m: gzipped(p, palette(~m, WHITE, BLACK)),
    "geo.tif": lambda p, m: geotiff(p, m.astype(np.uint8)),
    "geo_zero_is_nodata.tif": lambda p, m: geotiff(p, m.astype(np.uint8), nodata=0),
    "geo_255.tif": lambda p, m: geotiff(p, m.astype(np.uint8) * np.uint8(255), nodata=0),
    "geo_signed.tif": lambda p, m: geotiff(p, m.astype(np.int16), nodata=-9999),
    "geo_float.tif": lambda p, m: geotiff(p, m.astype(np.float32), nodata=float("nan")),
    "geo_bit.tif": placed_bits,
    "geo_bit_white_is_zero.tif": lambda p, m: placed_bits(p, m, WHITE_IS_ZERO),
    "geo_white_is_zero.tif": lambda p, m: geotiff(p, ~m * np.uint8(255), photometric="MINISWHITE"),
    "geo_deep_white_is_zero.tif": lambda p, m: geotiff(p, ~m * np.uint16(65535), photometric="MINISWHITE"),
    "geo_palette.tif": lambda p, m: palette_geotiff(p, (~m).astype(np.uint8), [(*WHITE, 255), (*BLACK, 255)]),
}
OPTIONS = {
    "lzw.tif": {"compression": "tiff_lzw"},
    "a.jpg": {"quality": 90},
    "a.mpo": {"format": "MPO", "quality": 90},
}
NO_ZERO = ("drive.png", "one_and_white.png")
"""Whose background alone is not one."""
VOLUMES = {
    "volume.nii.gz": lambda p, m: nib.save(nib.Nifti1Image(np.stack([m, ~m]).astype(np.uint8).T, np.eye(4)), p),
    "pages.tif": lambda p, m: white(m).save(p, save_all=True, append_images=[white(~m)]),
    "bit_pages.tif": lambda p, m: (
        white(m).convert("1").save(p, save_all=True, append_images=[white(~m)], tiffinfo=WHITE_IS_ZERO)
    ),
    "palette_pages.tif": lambda p, m: palette(~m, WHITE, BLACK).save(
        p, save_all=True, append_images=[palette(m, WHITE, BLACK)]
    ),
}


FULL_IS_UNCLEAR = ("red_on_black.png",)
ENCODING = numbered(["background", "cup", "window", "door"], ignore=200)
VOC = (BLACK, (128, 0, 0), (0, 128, 0), (128, 128, 0))
CLASS_CONTAINERS = {
    "grey.png": lambda p, n: Image.fromarray(n).save(p),
    "rgb.png": lambda p, n: Image.fromarray(n).convert("RGB").save(p),
    "la.png": lambda p, n: Image.fromarray(n).convert("LA").save(p),
    "deep.png": lambda p, n: Image.fromarray(n.astype(np.uint16)).save(p),
    "voc.png": lambda p, n: palette(n, *VOC).save(p),
    "ramp.png": lambda p, n: palette(n, *[(80 * k,) * 3 for k in range(4)]).save(p),
    "voc.bmp": lambda p, n: palette(n, *VOC).save(p),
    "grey.bmp": lambda p, n: Image.fromarray(n).save(p),
    "grey.pgm": lambda p, n: Image.fromarray(n).save(p),
    "grey.tif": lambda p, n: Image.fromarray(n).save(p),
    "voc.tif": lambda p, n: palette(n, *VOC).save(p),
    "white_is_zero.tif": lambda p, n: Image.fromarray(255 - n).save(p, tiffinfo=WHITE_IS_ZERO),
    "shown_white_is_zero.tif": lambda p, n: Image.fromarray(n).save(p, tiffinfo=WHITE_IS_ZERO),
    "packed.png.gz": lambda p, n: gzipped(p, Image.fromarray(n)),
    "geo.tif": geotiff,
    "geo_zero_is_nodata.tif": lambda p, n: geotiff(p, n, nodata=0),
    "geo_float.tif": lambda p, n: geotiff(p, n.astype(np.float32), nodata=-9999),
    "geo_white_is_zero.tif": lambda p, n: geotiff(p, n, photometric="MINISWHITE"),
    "geo_voc.tif": lambda p, n: palette_geotiff(p, n, [(*colour, 255) for colour in VOC]),
}


@pytest.mark.parametrize("name", CONTAINERS)
@KEPT
@given(mask=TWO_VALUED)
def test_two_valued_mask(tmp_path, name, mask):
    assume(mask.any() or name not in NO_ZERO)
    assume(not mask.all() or name not in FULL_IS_UNCLEAR)
    CONTAINERS[name](tmp_path / name, mask)
    classes, valid = read_labels(tmp_path / name)
    assert np.array_equal(classes, mask)
    assert valid is None


@pytest.mark.parametrize("name", VOLUMES)
@KEPT
@given(mask=TWO_VALUED)
def test_two_valued_slices(tmp_path, name, mask):
    VOLUMES[name](tmp_path / name, mask)
    for index, meant in enumerate((mask, ~mask)):
        assert np.array_equal(read_labels(tmp_path / name, axis=0, index=index).classes, meant)


@KEPT
@given(mask=TWO_VALUED)
def test_jpeg_mask_of_blocks(tmp_path, mask):
    blocks = np.kron(mask, np.ones((16, 16), bool))
    for options in ({"quality": 90}, {"quality": 60, "exif": b"damaged"}):
        white(blocks).save(tmp_path / "a.jpg", **options)
        assert np.array_equal(read_labels(tmp_path / "a.jpg").classes, blocks)


@pytest.mark.parametrize("name", CLASS_CONTAINERS)
@KEPT
@given(numbers=CLASS_NUMBERS)
def test_class_numbers(tmp_path, name, numbers):
    CLASS_CONTAINERS[name](tmp_path / name, numbers)
    classes, valid = read_labels(tmp_path / name, ENCODING)
    assert np.array_equal(classes, numbers)
    assert valid is None


@KEPT
@given(numbers=CLASS_NUMBERS)
def test_gif_of_class_numbers_is_right_or_refused(tmp_path, numbers):
    """Its writers keep the grey levels and renumber the palette."""
    Image.fromarray(numbers).save(tmp_path / "a.gif")
    try:
        classes = read_labels(tmp_path / "a.gif", ENCODING).classes
    except DataError as error:
        assert "two ways" in str(error)
        assert np.unique(numbers).tolist() != list(range(len(np.unique(numbers))))
    else:
        assert np.array_equal(classes, numbers)


@pytest.mark.parametrize(("high", "ignore"), [(1, 2), (1, 255), (255, 128), (255, 2), (7, 255)])
@KEPT
@given(numbers=arrays(np.uint8, SHAPES, elements=st.integers(0, 2)))
def test_two_classes_and_what_nobody_annotated(tmp_path, ignore, high, numbers):
    stored = np.array([0, high, ignore], np.uint8)[numbers]
    encoding = numbered(["background", "road"], ignore)
    Image.fromarray(stored).save(tmp_path / "a.png")
    Image.fromarray(stored).save(tmp_path / "a.tif")
    geotiff(tmp_path / "geo.tif", stored)
    geotiff(tmp_path / "nodata.tif", stored, nodata=ignore)
    read = [read_labels(tmp_path / name, encoding) for name in ("a.png", "a.tif", "geo.tif", "nodata.tif")]
    read += [read_labels(tmp_path / "nodata.tif")]
    for classes, valid in read:
        known = np.ones(numbers.shape, bool) if valid is None else valid
        assert np.array_equal(known, numbers != 2)
        assert np.array_equal(classes, numbers == 1)


@KEPT
@given(numbers=arrays(np.uint8, SHAPES, elements=st.integers(0, 3)))
def test_classes_and_what_nobody_annotated(tmp_path, numbers):
    stored = np.array([0, 1, 2, 255], np.uint8)[numbers]
    Image.fromarray(stored).save(tmp_path / "a.png")
    palette(stored, *VOC, *[BLACK] * 251, (224, 224, 192)).save(tmp_path / "voc.png")
    for name in ("a.png", "voc.png"):
        classes, valid = read_labels(tmp_path / name, numbered(["background", "cup", "window"], 255))
        known = np.ones(numbers.shape, bool) if valid is None else valid
        assert np.array_equal(known, numbers != 3)
        assert np.array_equal(classes[known], numbers[known])


@pytest.mark.parametrize("tag", TURNED)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "lzw.tif", "a.jpg", "a.mpo"])
@KEPT
@given(mask=TWO_VALUED)
def test_every_file_is_read_upright(tmp_path, name, tag, mask):
    upright = np.kron(mask, np.ones((16, 16), bool)).astype(np.uint8) * 255
    path = tmp_path / name.replace(".mpo", ".jpg")
    with_tag(path, upright, tag, **OPTIONS.get(name, {}))
    assert image_size(path) == picture_size(path) == upright.shape
    assert image_orientation(path) == tag
    assert np.array_equal(read_labels(path).classes, upright > 0)
    assert np.abs(read_image(path, 1).values[0] * 255 - upright).max() < (20 if path.suffix == ".jpg" else 1e-4)


@KEPT
@given(tag=st.sampled_from(sorted(TURNED)), pixels=arrays(np.uint8, SHAPES))
def test_pages_are_read_upright(tmp_path, tag, pixels):
    pages = [Image.fromarray(np.ascontiguousarray(TURNED[tag](page))) for page in (pixels, 255 - pixels)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], tiffinfo={274: tag})
    assert image_size(tmp_path / "a.tif", axis=0) == pixels.shape
    assert image_orientation(tmp_path / "a.tif") == tag
    for index, page in enumerate((pixels, 255 - pixels)):
        assert np.array_equal(read_image(tmp_path / "a.tif", 1, 0, index).values[0], page)


@KEPT
@given(pixels=arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_picture_in_colour(tmp_path, pixels):
    picture, meant = Image.fromarray(pixels), pixels.transpose(2, 0, 1) / np.float32(255)
    for name in ("a.png", "a.tif", "a.bmp", "a.ppm"):
        picture.save(tmp_path / name)
        assert np.array_equal(read_image(tmp_path / name).values, meant)
    opaque = picture.convert("RGBA")
    opaque.putalpha(7)
    opaque.save(tmp_path / "transparent.png")
    assert np.array_equal(read_image(tmp_path / "transparent.png").values, meant)


@KEPT
@given(pixels=arrays(np.uint8, SHAPES))
def test_picture_in_grey(tmp_path, pixels):
    written = {
        "grey.png": Image.fromarray(pixels),
        "grey.gif": Image.fromarray(pixels),
        "palette.png": palette(255 - pixels, *[(255 - k,) * 3 for k in range(256)]),
        "palette.tif": palette(255 - pixels, *[(255 - k,) * 3 for k in range(256)]),
        "deep.png": Image.fromarray(pixels.astype(np.uint16) * np.uint16(257)),
    }
    for name, picture in written.items():
        picture.save(tmp_path / name)
    Image.fromarray(pixels).save(tmp_path / "white_is_zero.tif", tiffinfo=WHITE_IS_ZERO)
    deep = 65535 - pixels.astype(np.uint16) * np.uint16(257)
    Image.fromarray(deep).save(tmp_path / "deep_white_is_zero.tif", tiffinfo=WHITE_IS_ZERO)
    for name in (*written, "white_is_zero.tif", "deep_white_is_zero.tif"):
        np.testing.assert_allclose(read_image(tmp_path / name, 1).values[0], pixels / 255, atol=1e-6)
