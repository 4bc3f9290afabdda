"""Images beyond Pillow's limit: scenes of any size, pictures as far as memory goes, and bombs."""

import gzip
import struct
import time
import tracemalloc
import zlib

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from topolora_monai.data import SPLITS, check_items, find_images, open_dataset, verify
from topolora_monai.errors import DataError
from topolora_monai.io import (
    image_kind,
    image_size,
    memory,
    open_picture,
    open_raster,
    read_blocks,
    read_image,
    read_picture,
    read_volume,
)
from topolora_monai.model.scenes.reading import TileReader, open_scene
from topolora_monai.transforms import IntensityScaling

HUGE = (17_000, 25_000)
"""Rows and columns of a Sentinel-1 scene."""


@pytest.fixture
def small_machine(monkeypatch):
    monkeypatch.setattr(memory, "memory_bytes", lambda: 8 * 10**9)


def sparse_scene(path, dtype="float32", size=HUGE, **profile):
    """A tiled GeoTIFF of which no tile but one is stored."""
    rasterio = pytest.importorskip("rasterio")
    grid = rasterio.Affine(10, 0, 500_000, 0, -10, 4_649_000)
    profile = {"count": 1, "crs": "EPSG:32633", "transform": grid, "tiled": True, **profile}
    profile |= {"SPARSE_OK": True, "compress": "deflate"}
    with rasterio.open(path, "w", driver="GTiff", height=size[0], width=size[1], dtype=dtype, **profile) as file:
        file.write(np.ones((1, 64, 64), dtype), window=((512, 576), (512, 576)))
    assert path.stat().st_size < 10**6
    return path


def png(width, height, rows=b"", depth=8, colour=0):
    """A PNG that declares a size, whatever it holds; by default a grey one."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("dtype", "size"), [("float32", HUGE), ("uint8", (13_400, 13_400)), ("uint16", HUGE)])
def test_huge_scenes_are_found_and_told_apart_by_their_headers(tmp_path, dtype, size):
    path = sparse_scene(tmp_path / "scene.tif", dtype, size)
    tracemalloc.start()
    (item,) = find_images(tmp_path)
    assert image_kind(item["image"]) == "raster"
    assert image_size(path) == size
    check_items([item])  # as inference does
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


@pytest.mark.usefixtures("small_machine")
def test_scene_too_large_to_train_on_is_named_before_it_is_read(tmp_path):
    for folder, dtype in (("images", "float32"), ("masks", "uint8")):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for name in "abc":
            sparse_scene(tmp_path / "data" / folder / f"{name}.tif", dtype)
    data = open_dataset("folder", tmp_path / "data")
    started = time.monotonic()
    with pytest.raises(DataError, match=r"too large.*a\.tif[^$]*25,000 x 17,000[^$]*15\.3 GB[^$]*gdal_retile"):
        check_items(sorted((item for split in SPLITS for item in data.items(split)), key=lambda item: item["name"]))
    with pytest.raises(DataError, match="too large"):
        read_image(tmp_path / "data/images/a.tif", 1)
    found = verify(data).findings
    assert [finding.kind for finding in found] == ["defect"] * 3
    assert all("image is too large" in finding.message for finding in found)
    assert time.monotonic() - started < 10


def test_first_window_of_a_huge_scene(tmp_path):
    scene = open_scene("scene", sparse_scene(tmp_path / "scene.tif", nodata=0), 1, crop_size=1024, overlap=0)
    scaling = IntensityScaling(value_range=(0, 2))
    with open_raster(scene.path) as source:
        reader = TileReader(scene, source, scaling, scene.limits(scaling))
        band = reader.read(0)
        assert [start for start in scene.grid.columns if reader.has_data(band, start)] == [0]
        tile = reader.tile(band, 0)
    expected = np.zeros((1, 1024, 1024), np.float32)
    expected[:, 512:576, 512:576] = 0.5
    np.testing.assert_array_equal(tile, expected)
    assert scene.grid.tiles == 17 * 25


def test_verification_reads_a_huge_scene_some_rows_at_a_time(tmp_path):
    path = sparse_scene(tmp_path / "scene.tif", "uint8", (9000, 8000))
    tracemalloc.start()
    sums = [(len(block.values[0]), int((block.values > 0).sum())) for block in read_blocks(path, 1)]
    assert tracemalloc.get_traced_memory()[1] < 9000 * 8000 * 4
    tracemalloc.stop()
    assert [rows for rows, _ in sums] == [1536] * 5 + [1320]
    assert [ones for _, ones in sums] == [64 * 64, 0, 0, 0, 0, 0]


def test_blocks_are_what_is_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("topolora_monai.io.images._BLOCK_PIXELS", 1)
    path = sparse_scene(tmp_path / "scene.tif", size=(1100, 700), nodata=0)
    blocks, whole = list(read_blocks(path, 3)), read_image(path, 3)
    assert [len(block.valid) for block in blocks] == [512, 512, 76]
    np.testing.assert_array_equal(np.concatenate([block.values for block in blocks], axis=1), whole.values)
    np.testing.assert_array_equal(np.concatenate([block.valid for block in blocks]), whole.valid)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_pictures_beyond_pillows_limit_are_read(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a{suffix}"
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    picture.save(path)
    expected = read_picture(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    np.testing.assert_array_equal(read_picture(path), expected)
    assert image_size(path) == (40, 50)


def test_pages_beyond_pillows_limit_are_a_volume(tmp_path, monkeypatch):
    pages = [Image.fromarray(np.full((40, 50), value, np.uint8)) for value in (3, 7)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    assert image_kind(tmp_path / "a.tif") == "volume"
    assert read_image(tmp_path / "a.tif", 1, axis=0, index=1).values.mean() == 7


@pytest.mark.usefixtures("small_machine")
def test_picture_that_memory_does_not_hold_names_the_scene_path(tmp_path):
    (tmp_path / "a.png").write_bytes(png(20_000, 15_000))
    with pytest.raises(DataError, match=r"too large[^$]*250 megapixels[^$]*20,000 x 15,000[^$]*9\.6 GB[^$]*gdal_trans"):
        read_picture(tmp_path / "a.png")
    assert open_picture(tmp_path / "a.png", decode=False).size == (20_000, 15_000)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_bombs_are_refused_without_taking_the_memory(tmp_path, monkeypatch, name):
    monkeypatch.setattr(memory, "memory_bytes", lambda: 10**15)
    path = tmp_path / name
    if name == "a.png":
        path.write_bytes(png(100_000, 100_000, bytes(10**8)))
        assert path.stat().st_size < 110_000
    else:
        sparse_scene(path, "uint8", (100_000, 100_000), crs=None, transform=None, blockxsize=1024, blockysize=1024)
    assert image_kind(path) == "picture"
    tracemalloc.start()
    started = time.monotonic()
    with pytest.raises(DataError, match=r"too large[^$]*100,000 x 100,000"):
        image_size(path)
    assert time.monotonic() - started < 5
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["a.nii.gz", "a.ppm.gz"])
def test_streams_that_inflate_without_end_are_refused(tmp_path, monkeypatch, name):
    start = b"P5 30 20 255\n" if name == "a.ppm.gz" else nib.Nifti1Image(np.zeros((4, 3, 2), np.int16), None).to_bytes()
    (tmp_path / name).write_bytes(gzip.compress(start + bytes(10**8)))
    monkeypatch.setattr(memory, "memory_bytes", lambda: 10**7)
    tracemalloc.start()
    with pytest.raises(DataError, match="holds more than fits in memory"):
        read_volume(tmp_path / name) if name == "a.nii.gz" else read_picture(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 3 * 10**7
    tracemalloc.stop()


def test_volume_that_memory_does_not_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "memory_bytes", lambda: 10**9)
    header = nib.Nifti1Header()
    header.set_data_shape((512, 512, 900))
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(4)))
    with pytest.raises(DataError, match=r"too large[^$]*512 x 512 x 900 pixels"):
        read_volume(tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match="too large"):
        find_images(tmp_path)  # before there is an item for each slice


@pytest.mark.filterwarnings("ignore:The given matrix")
def test_the_hint_for_pictures_makes_a_scene(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    placed = rasterio.transform.from_bounds(0, -30, 40, 0, 40, 30)  # what -a_ullr 0 0 40 -30 says
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", width=40, height=30, count=3, dtype="uint8", transform=placed
    ) as file:
        file.write(np.ones((3, 30, 40), np.uint8))
    assert image_kind(tmp_path / "a.tif") == "raster"
