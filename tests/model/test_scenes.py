"""Scenes in bands: the same result as on the whole image, in the same place, also after a kill."""

import contextlib
import json
import logging
import sys
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.inferers import SimpleInferer, SlidingWindowInferer
from monai.transforms import Compose, Lambdad, Resized, ScaleIntensityRanged

from tests.processes import start
from topolora_monai.errors import ConfigError, DataError, OutputError
from topolora_monai.metrics import to_16_bit
from topolora_monai.model.scenes import SceneSegmenter
from topolora_monai.model.tiling import TileInferer
from topolora_monai.transforms import LoadItem
from topolora_monai.transforms.intensity import IntensityScaling
from topolora_monai.transforms.speckle import RefinedLeed

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

NORTH_UP = rasterio.Affine(10, 0, 500_000, 0, -10, 4_649_000)
UNIT = IntensityScaling(value_range=(0, 1))  # leaves values in [0, 1] as they are


def write_scene(path, bands, **profile) -> Path:
    bands = bands if bands.ndim == 3 else bands[None]
    shape = dict(zip(("count", "height", "width"), bands.shape, strict=True))
    profile = {"crs": "EPSG:32633", "transform": NORTH_UP, **profile}
    with rasterio.open(path, "w", driver="GTiff", dtype=bands.dtype, **shape, **profile) as file:
        file.write(bands)
    return path


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)


def speckle(*shape):
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def rational_polynomials():
    axes = ("lat", "long", "line", "samp", "height")
    numbers = {f"{axis}_{kind}": 10.0 for axis in axes for kind in ("off", "scale")}
    names = [f"{axis}_{kind}_coeff" for axis in ("line", "samp") for kind in ("num", "den")]
    return rasterio.rpc.RPC(**numbers, **dict.fromkeys(names, np.arange(20.0).tolist()), err_bias=1.0, err_rand=1.0)


def scored_in_context(tile):
    """Logits that depend on all of the tile, on its borders and on the place in it."""
    smooth = torch.nn.functional.avg_pool2d(tile.mean(1, keepdim=True), 5, stride=1, padding=2)
    column = torch.linspace(-1, 1, tile.shape[-1])
    return 8 * (smooth - tile.mean((1, 2, 3), keepdim=True)) + column


class Counted:
    """A network that counts the tiles it is given, not the probe of zeros."""

    def __init__(self, network):
        self.network, self.tiles = network, 0

    def __call__(self, tile):
        self.tiles += int((tile.flatten(1) != 0).any(1).sum())
        return self.network(tile)


def tiles(inferer=None, crop_size=32, overlap=0.5, batch_size=4):
    return TileInferer(inferer or SimpleInferer(), crop_size, overlap, batch_size)


def segment(path, output, network=scored_in_context, channels=1, scaling=UNIT, fingerprint="test", **settings):
    lie = {name: settings.pop(name) for name in ("crop_size", "overlap", "batch_size") if name in settings}
    segmenter = SceneSegmenter(network, tiles(**lie), channels, scaling, output, fingerprint, **settings)
    return segmenter.run([{"name": "scene", "image": str(path)}])[0]


class TestSameAsTheWholeImage:
    @pytest.mark.parametrize(
        ("shape", "overlap"),
        [
            ((100, 77), 0.5),
            ((64, 96), 0.25),  # the last tiles end with the image
            ((70, 65), 0.7),  # more than two tiles over each pixel; the last starts one pixel on
            ((65, 50), 0.0),
            ((32, 32), 0.5),
            ((21, 90), 0.5),  # lower than a tile
            ((90, 15), 0.5),  # narrower
            ((11, 18), 0.5),
        ],
    )
    def test_logits_are_those_of_monais_sliding_window(self, tmp_path, shape, overlap):
        image = speckle(*shape)
        segment(write_scene(tmp_path / "a.tif", image), tmp_path, overlap=overlap, batch_size=3)
        whole = SlidingWindowInferer((32, 32), 4, overlap, mode="gaussian")
        logits = whole(torch.from_numpy(image)[None, None], scored_in_context)
        expected = to_16_bit(logits.sigmoid())[0, 0].numpy()
        stored = read(tmp_path / "scene_probability.tif").astype(int)
        assert np.abs(stored - expected).max() <= 1  # of 65536
        assert np.ptp(expected) > 10_000
        mask = read(tmp_path / "scene_mask.tif")
        np.testing.assert_array_equal(mask, stored >= 32768)

    def test_rows_beyond_one_strip_of_the_output(self, tmp_path):
        image = np.indices((1100, 40)).sum(0).astype(np.float32) / 1200
        segment(write_scene(tmp_path / "a.tif", image), tmp_path, network=lambda tile: torch.logit(tile, 1e-6))
        stored = read(tmp_path / "scene_probability.tif") / 65536
        np.testing.assert_allclose(stored, image, atol=1e-4)

    def test_several_classes(self, tmp_path):
        path = write_scene(tmp_path / "a.tif", speckle(40, 50))
        mask = segment(path, tmp_path, network=lambda tile: torch.cat([tile - 0.3, tile - 0.8], 1))
        assert mask.name == "scene_mask_1.tif"
        assert [(read(tmp_path / f"scene_mask_{k}.tif") == 1).mean().round(1) for k in (1, 2)] == [0.7, 0.2]
        assert (tmp_path / "scene_probability_2.tif").is_file()
        assert not (tmp_path / "scene_mask.tif").exists()

    def test_threshold_and_no_probabilities(self, tmp_path):
        image = speckle(40, 50)
        path = write_scene(tmp_path / "a.tif", image)
        mask = segment(path, tmp_path, network=torch.logit, threshold=0.75, probabilities=False)
        np.testing.assert_array_equal(read(mask), image >= 0.75)
        assert not list(tmp_path.glob("*probability*"))

    def test_blending_hides_tile_borders(self, tmp_path):
        def darker_towards_borders(tile):
            ramp = 1 - torch.linspace(-1, 1, tile.shape[-1]).abs()
            return 4 * torch.minimum(ramp[:, None], ramp[None]) + 0 * tile

        path = write_scene(tmp_path / "a.tif", speckle(200, 200))
        jumps = {}
        for overlap in (0, 0.5):
            segment(path, tmp_path, network=darker_towards_borders, overlap=overlap)
            inside = read(tmp_path / "scene_probability.tif")[32:-32, 32:-32] / 65536
            jumps[overlap] = np.ptp(inside)
        assert jumps[0] > 0.4
        assert jumps[0.5] < jumps[0] / 2


class TestValidity:
    @pytest.mark.parametrize("nodata", [-9999.0, np.nan, None])
    def test_holes_enter_as_zero_and_leave_as_nodata(self, tmp_path, nodata):
        image = 0.5 + speckle(100, 100) / 2
        holes = np.zeros(image.shape, bool)
        holes[:40, :60] = holes[70, 80] = True
        filled = np.where(holes, np.nan if nodata is None else nodata, image).astype(np.float32)
        seen = []

        def network(tile):
            seen.append(tile[tile != 0])
            return tile - 0.1

        mask = segment(write_scene(tmp_path / "a.tif", filled, nodata=nodata), tmp_path, network)
        np.testing.assert_array_equal(read(mask), np.where(holes, 255, 1))
        with rasterio.open(tmp_path / "scene_probability.tif") as file:
            np.testing.assert_array_equal(file.read_masks(1) == 0, holes)
        assert float(torch.cat(seen).min()) >= 0.5

    def test_internal_mask_and_full_probability(self, tmp_path):
        path = write_scene(tmp_path / "a.tif", np.ones((40, 40), np.float32))
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
            file.write_mask(np.arange(1600).reshape(40, 40) >= 800)
        mask = segment(path, tmp_path, network=lambda tile: 100 * tile)
        assert (read(mask)[:20] == 255).all()
        assert (read(mask)[20:] == 1).all()
        assert (read(tmp_path / "scene_probability.tif")[20:] == 65534).all()  # not mistaken for nodata

    def test_tiles_without_data_are_not_run(self, tmp_path):
        image = np.full((160, 160), -1, np.float32)
        image[100, 100] = 0.9
        network = Counted(lambda tile: tile)
        calls = []
        inferer = SimpleInferer()

        class Spy(SimpleInferer):
            def __call__(self, batch, network):
                calls.append(len(batch))
                return inferer(batch, network)

        path = write_scene(tmp_path / "a.tif", image, nodata=-1)
        segmenter = SceneSegmenter(network, tiles(Spy(), batch_size=1), 1, UNIT, tmp_path, "a")
        segmenter.run([{"name": "scene", "image": str(path)}])
        assert sum(calls) == 1 + 4  # the probe, and the tiles over the pixel

    def test_scene_without_data(self, tmp_path):
        mask = segment(write_scene(tmp_path / "a.tif", np.zeros((50, 50), np.float32), nodata=0), tmp_path)
        assert (read(mask) == 255).all()


class TestChannelsAndScaling:
    def run_and_see(self, tmp_path, bands, channels, scaling=UNIT, **profile):
        seen = []

        def network(tile):
            seen.append(tile[0])
            return tile[:, :1]

        segment(write_scene(tmp_path / "a.tif", bands, **profile), tmp_path, network, channels, scaling)
        return seen[-1].numpy()  # scenes of one tile

    def test_grey_bytes_are_repeated(self, tmp_path):
        image = np.arange(1024).reshape(32, 32).astype(np.uint8)
        seen = self.run_and_see(tmp_path, image, 3)
        np.testing.assert_array_equal(seen, np.repeat(image[None] / np.float32(255), 3, axis=0))

    def test_colour_bytes_become_luminance(self, tmp_path):
        image = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
        expected = np.tensordot([0.299, 0.587, 0.114], image / 255, 1)
        np.testing.assert_allclose(self.run_and_see(tmp_path, image, 1)[0], expected, atol=1e-6)

    def test_two_bands(self, tmp_path):
        image = speckle(2, 32, 32)
        np.testing.assert_array_equal(self.run_and_see(tmp_path, image, 2), image)

    def test_other_number_of_bands_is_refused_before_anything_is_run(self, tmp_path):
        for bands, channels in ((3, 2), (2, 1), (13, 3)):
            path = write_scene(tmp_path / "a.tif", speckle(bands, 32, 32))
            with pytest.raises(DataError, match=rf"expected: {channels}\n  found:    {bands}"):
                segment(path, tmp_path, network=None, channels=channels)

    def test_sixteen_bit_picture_by_its_depth(self, tmp_path):
        image = np.arange(1024).reshape(32, 32).astype(np.uint16) * 64
        seen = self.run_and_see(tmp_path, image, 1, IntensityScaling(), crs=None, transform=None)
        np.testing.assert_allclose(seen[0], image / 65535, atol=1e-6)
        seen = self.run_and_see(tmp_path, image // 16, 1, IntensityScaling(bits=12), crs=None, transform=None)
        np.testing.assert_allclose(seen[0], image // 16 / 4095, atol=1e-6)

    def test_sixteen_bit_measurement_by_its_limits(self, tmp_path):
        image = 100 + np.arange(1024).reshape(32, 32).astype(np.uint16)
        seen = self.run_and_see(tmp_path, image, 1, IntensityScaling(percentiles=(0, 100)))
        np.testing.assert_allclose(seen[0], (image - 100.0) / 1023, atol=1e-6)

    def test_same_values_as_read_whole(self, tmp_path):
        """A network trained on whole rasters meets the same numbers here."""
        image = -20 + 5 * speckle(2, 32, 32)
        image[0, 3, 4] = -9999
        scaling = IntensityScaling("db")
        seen = self.run_and_see(tmp_path, image, 2, scaling, nodata=-9999)
        whole = LoadItem(2, scaling)({"name": "a", "image": str(tmp_path / "a.tif")})["image"].numpy()
        np.testing.assert_array_equal(seen, whole)

    def test_limits_are_the_scenes_not_the_tiles_nor_the_overviews(self, tmp_path):
        image = speckle(3000, 2100)
        image[1500:] += 9  # tiles above never see these values
        path = write_scene(tmp_path / "a.tif", image, tiled=True)
        with rasterio.open(path, "r+") as file:
            file.build_overviews([2, 4], rasterio.enums.Resampling.average)
        settings = {"network": lambda tile: torch.logit(tile, 1e-6), "crop_size": 600, "overlap": 0}
        segment(path, tmp_path, scaling=IntensityScaling(percentiles=(0, 100)), **settings)
        stored = read(tmp_path / "scene_probability.tif") / 65536
        np.testing.assert_allclose(stored, image / 10, atol=1e-4)  # limits of averages are 2e-3 apart


def despeckled(item):
    return RefinedLeed("image", 4, pixel_values="db", db_range="limits", mask_key="fov")(item)


class TestPreparedTiles:
    def radar(self, *shape):
        """Two banks of different decibels under speckle of four looks, with holes."""
        rng = np.random.default_rng(1)
        intensity = np.where(np.arange(shape[-1]) > 0.6 * shape[-1], 0.02, 0.2) * rng.gamma(4, 1 / 4, shape)
        decibels = 10 * np.log10(intensity).astype(np.float32)
        decibels[..., 3:9, 4:11] = decibels[..., -1, -2] = -9999
        return decibels

    @pytest.mark.parametrize(
        ("shape", "channels", "margin"),
        [
            ((100, 77), 1, 14),
            ((100, 77), 1, 3),  # half the window, the filter's reach
            ((70, 65), 2, 14),  # each channel has limits of its own
            ((21, 90), 1, 14),  # lower than a tile
            ((90, 15), 1, 14),  # narrower
            ((11, 18), 1, 14),
            ((40, 50), 1, 200),  # the margin is larger than the scene
        ],
    )
    def test_same_as_filtering_the_whole_image_first(self, tmp_path, shape, channels, margin):
        path = write_scene(tmp_path / "a.tif", self.radar(channels, *shape), nodata=-9999)
        scaling = IntensityScaling("db")
        whole = despeckled(LoadItem(channels, scaling)({"name": "a", "image": str(path)}))
        logits = SlidingWindowInferer((32, 32), 4, 0.5, mode="gaussian")(whole["image"][None], scored_in_context)
        expected = np.where(whole["fov"][0] > 0, to_16_bit(logits.sigmoid())[0, 0], 65535)
        settings = {"channels": channels, "scaling": scaling, "prepare": despeckled}
        segment(path, tmp_path, margin=margin, **settings)
        stored = read(tmp_path / "scene_probability.tif").astype(int)
        assert np.abs(stored - expected).max() <= 1  # of 65536

    def test_without_a_margin_tile_borders_show(self, tmp_path):
        path = write_scene(tmp_path / "a.tif", self.radar(100, 77), nodata=-9999)
        stored = {}
        for margin in (0, 2, 14):
            settings = {"scaling": IntensityScaling("db"), "prepare": despeckled, "margin": margin}
            segment(path, tmp_path, network=lambda tile: torch.logit(tile, 1e-6), **settings)
            stored[margin] = read(tmp_path / "scene_probability.tif") / 65536
        assert np.abs(stored[0] - stored[14]).max() > 1e-2
        assert np.abs(stored[2] - stored[14]).max() > 1e-3

    def test_what_a_transform_is_given(self, tmp_path):
        image = -20 + 10 * speckle(2, 40, 70)
        image[:, 8:12, 50] = np.nan
        items = []

        def prepare(item):
            items.append(item)
            return item

        scaling = IntensityScaling("db")
        settings = {"channels": 2, "scaling": scaling, "prepare": prepare, "margin": 4, "overlap": 0}
        segment(write_scene(tmp_path / "a.tif", image), tmp_path, **settings)
        whole = LoadItem(2, scaling)({"name": "a", "image": str(tmp_path / "a.tif")})
        rows, columns = [(0, 36), (4, 40)], [(0, 36), (28, 68), (34, 70)]
        assert len(items) == 6
        for item, (top, bottom), (left, right) in zip(items, np.repeat(rows, 3, axis=0), columns * 2, strict=True):
            assert set(item) == {"image", "fov", "limits"}
            assert (item["image"].dtype, item["fov"].dtype) == (torch.float32, torch.float32)
            assert torch.equal(item["image"], whole["image"][:, top:bottom, left:right])
            assert torch.equal(item["fov"], whole["fov"][:, top:bottom, left:right])
            assert item["limits"].dtype == torch.float64
            assert torch.equal(item["limits"], whole["limits"])

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_limits_of_pictures_are_0_and_1(self, tmp_path, dtype):
        limits = []

        def prepare(item):
            limits.append(item["limits"].tolist())
            return item

        path = write_scene(tmp_path / "a.tif", np.full((32, 32), 200, dtype), crs=None, transform=None)
        segment(path, tmp_path, channels=3, prepare=prepare)
        assert limits == [[[0, 1]] * 3]

    def test_monai_transforms(self, tmp_path):
        prepare = Compose([Lambdad("image", lambda x: x * 2), ScaleIntensityRanged("image", 0, 2, 0.25, 0.75)])
        image = speckle(50, 60)
        path = write_scene(tmp_path / "a.tif", image)
        segment(path, tmp_path, network=torch.logit, prepare=prepare)
        stored = read(tmp_path / "scene_probability.tif") / 65536
        np.testing.assert_allclose(stored, 0.25 + image / 2, atol=1e-4)

    def test_work_in_place_leaves_the_neighbours_alone(self, tmp_path):
        image = speckle(50, 60)
        path = write_scene(tmp_path / "a.tif", image)
        prepare = Lambdad("image", lambda x: x.mul_(0.5))
        segment(path, tmp_path, network=lambda tile: torch.logit(tile, 1e-6), prepare=prepare, margin=2)
        np.testing.assert_allclose(read(tmp_path / "scene_probability.tif") / 65536, image / 2, atol=1e-4)

    def test_continues_to_the_same_files(self, tmp_path):
        path = write_scene(tmp_path / "a.tif", self.radar(107, 40), nodata=-9999)
        settings = {"scaling": IntensityScaling("db"), "prepare": despeckled, "margin": 14}
        with pytest.raises(StoppedError):
            segment(path, tmp_path / "b", stop_after(6), **settings)
        kept = json.loads((tmp_path / "b" / ".scene.parts" / "settings.json").read_text())
        assert (kept["prepared"], kept["margin"]) == (True, 14)
        network = Counted(scored_in_context)
        segment(path, tmp_path / "b", network, **settings)
        assert network.tiles == 6  # two in each of the three bands that were not finished
        segment(path, tmp_path / "c", **settings)
        names = ("scene_mask.tif", "scene_probability.tif")
        assert all((tmp_path / "b" / name).read_bytes() == (tmp_path / "c" / name).read_bytes() for name in names)

    def test_another_margin_starts_over(self, tmp_path, caplog):
        path = write_scene(tmp_path / "a.tif", speckle(330, 130))
        prepare = Lambdad("image", torch.sqrt)
        with pytest.raises(StoppedError):
            segment(path, tmp_path, stop_after(60), prepare=prepare, margin=3)
        segment(path, tmp_path, prepare=prepare, margin=4)
        assert "starting over" in caplog.text

    def test_another_shape_is_refused(self, tmp_path):
        path = write_scene(tmp_path / "a.tif", speckle(40, 40))
        with pytest.raises(ConfigError, match=r"prepare changes the shape(.|\n)*\(1, 32, 32\)(.|\n)*\(1, 16, 16\)"):
            segment(path, tmp_path, prepare=Resized("image", (16, 16)))


class TestGeoreference:
    def test_crs_transform_and_layout(self, tmp_path):
        grid = rasterio.Affine(10, 2, 3, 1, -8, 5)
        mask = segment(write_scene(tmp_path / "a.tif", speckle(600, 700), transform=grid), tmp_path, crop_size=300)
        for path in (mask, tmp_path / "scene_probability.tif"):
            with rasterio.open(path) as file:
                assert (file.crs.to_epsg(), file.transform, file.shape) == (32633, grid, (600, 700))
                assert file.block_shapes == [(512, 512)]
                assert file.compression.name == "deflate"
        with rasterio.open(mask) as file:
            assert (file.dtypes[0], file.nodata) == ("uint8", 255)
        with rasterio.open(tmp_path / "scene_probability.tif") as file:
            assert (file.dtypes[0], file.nodata, file.scales) == ("uint16", 65535, (1 / 65536,))

    def test_control_points(self, tmp_path, caplog):
        point = rasterio.control.GroundControlPoint
        points = [point(r, c, 10 + c / 10, 50 - r / 10, 0) for r, c in ((0, 0), (0, 40), (40, 0), (40, 41))]
        path = write_scene(tmp_path / "a.tif", speckle(40, 41), crs=None, transform=None)
        with rasterio.open(path, "r+") as file:
            file.gcps = points, rasterio.CRS.from_epsg(4326)
        with rasterio.open(segment(path, tmp_path)) as file:
            found, crs = file.gcps
            assert [(p.row, p.col, p.x, p.y) for p in found] == [(p.row, p.col, p.x, p.y) for p in points]
            assert crs.to_epsg() == 4326
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    def test_rational_polynomials(self, tmp_path):
        path = write_scene(tmp_path / "a.tif", speckle(40, 41), crs=None, transform=None)
        with rasterio.open(path, "r+") as file:
            file.rpcs = rational_polynomials()
        with rasterio.open(path) as source, rasterio.open(segment(path, tmp_path)) as file:
            assert file.rpcs is not None
            assert file.rpcs.to_dict() == source.rpcs.to_dict()

    def test_no_georeference(self, tmp_path):
        path = write_scene(tmp_path / "a.tif", speckle(40, 41), crs=None, transform=None)
        with rasterio.open(segment(path, tmp_path)) as file:
            assert file.crs is None
            assert file.transform.is_identity


class TestMemory:
    def test_only_a_band_is_held(self, tmp_path):
        shape = (12_000, 1000)
        path = write_scene(tmp_path / "a.tif", np.broadcast_to(np.float32(0.7), (1, *shape)), compress="deflate")
        segmenter = SceneSegmenter(lambda tile: tile, tiles(crop_size=200, overlap=0), 1, UNIT, tmp_path, "a")
        tracemalloc.start()
        segmenter.run([{"name": "scene", "image": str(path)}])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * np.prod(shape) / 2  # half of the scene itself; most is the sample for the limits


def segment_slowly(scene, folder):
    def slow(tile):
        time.sleep(0.02)
        return scored_in_context(tile)

    segment(scene, folder, slow)


class StoppedError(Exception):
    """What a test ends a run with."""


def stop_after(tiles):
    """A network that runs so many tiles, and the probe."""
    counted = Counted(scored_in_context)

    def network(tile):
        if counted.tiles >= tiles:
            raise StoppedError
        return counted(tile)

    return network


class TestContinuation:
    @pytest.fixture
    def scene(self, tmp_path):
        return write_scene(tmp_path / "a.tif", speckle(330, 130))  # 20 bands of 8 tiles

    def files(self, folder):
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    def test_after_sigkill(self, scene, tmp_path):
        killed, whole = tmp_path / "killed", tmp_path / "whole"
        process = start(segment_slowly, scene, killed)
        parts = killed / ".scene.parts"
        deadline = time.monotonic() + 60
        while len(list(parts.glob("rows-*.npy.gz"))) < 3:
            assert process.is_alive() and time.monotonic() < deadline, "not under way"
            time.sleep(0.005)
        process.kill()
        process.join()
        finished = len(list(parts.glob("rows-*.npy.gz")))
        assert not (killed / "scene_mask.tif").exists()
        network = Counted(scored_in_context)
        segment(scene, killed, network)
        assert network.tiles == (20 - finished) * 8
        segment(scene, whole)
        assert self.files(killed) == self.files(whole)  # and nothing is left over

    @pytest.mark.parametrize("overlap", [0, 0.5, 0.8])
    def test_after_an_error_in_every_other_band(self, tmp_path, overlap):
        scene = write_scene(tmp_path / "a.tif", speckle(107, 40))
        interrupted = 0
        while not (tmp_path / "b" / "scene_mask.tif").exists() and interrupted < 20:
            with contextlib.suppress(StoppedError):
                segment(scene, tmp_path / "b", stop_after(5), overlap=overlap)
                break
            interrupted += 1
        segment(scene, tmp_path / "c", overlap=overlap)
        assert interrupted > 0
        assert self.files(tmp_path / "b") == self.files(tmp_path / "c")

    @pytest.mark.parametrize(
        ("changed", "restarts"),
        [
            ({"fingerprint": "other"}, True),
            ({"overlap": 0.25}, True),
            ({"crop_size": 40}, True),
            ({"scaling": IntensityScaling(value_range=(0, 2))}, True),
            ({"scaling": IntensityScaling("amplitude", value_range=(0, 1))}, True),
            ({"prepare": lambda item: item}, True),
            ({"threshold": 0.4, "polygons": False, "batch_size": 2}, False),
            ({"margin": 5}, False),  # idle without anything to prepare
        ],
    )
    def test_other_settings_start_over(self, scene, tmp_path, changed, restarts, caplog):
        with pytest.raises(StoppedError):
            segment(scene, tmp_path / "b", stop_after(60))
        network = Counted(scored_in_context)
        segment(scene, tmp_path / "b", network, **changed)
        fresh = Counted(scored_in_context)
        segment(scene, tmp_path / "c", fresh, **changed)
        assert (network.tiles == fresh.tiles) == restarts
        assert ("starting over" in caplog.text) == restarts
        np.testing.assert_array_equal(read(tmp_path / "b/scene_mask.tif"), read(tmp_path / "c/scene_mask.tif"))

    def test_other_source_starts_over(self, scene, tmp_path, caplog):
        with pytest.raises(StoppedError):
            segment(scene, tmp_path / "b", stop_after(60))
        write_scene(scene, 1 - speckle(330, 130))
        segment(scene, tmp_path / "b")
        segment(scene, tmp_path / "c")
        assert "starting over" in caplog.text
        np.testing.assert_array_equal(read(tmp_path / "b/scene_mask.tif"), read(tmp_path / "c/scene_mask.tif"))

    def test_killed_while_starting_over(self, scene, tmp_path, monkeypatch):
        def killed(folder):
            (folder / "rows-000003.npy.gz").unlink()
            raise StoppedError

        with pytest.raises(StoppedError):
            segment(scene, tmp_path / "b", stop_after(60))
        with monkeypatch.context() as patched, pytest.raises(StoppedError):
            patched.setattr("shutil.rmtree", killed)
            segment(scene, tmp_path / "b", fingerprint="other")
        segment(scene, tmp_path / "b")
        segment(scene, tmp_path / "c")
        assert self.files(tmp_path / "b") == self.files(tmp_path / "c")

    def test_finished_scene_is_passed_over(self, scene, tmp_path):
        output = tmp_path / "b"
        segment(scene, output)
        network = Counted(scored_in_context)
        segment(scene, output, network)
        assert network.tiles == 0
        segment(scene, output, network, threshold=0.9)
        assert network.tiles == 160
        (output / "scene_probability.tif").unlink()
        segment(scene, output, network, threshold=0.9)
        assert network.tiles == 320

    def test_outputs_that_do_not_exist_yet_are_not_complained_about(self, scene, tmp_path, caplog, capfd):
        with caplog.at_level(logging.DEBUG):
            segment(scene, tmp_path / "b", polygons=True)
        told = caplog.text + "".join(capfd.readouterr())
        assert "tiles: 100%" in told
        assert "scene_mask.tif" in told  # of what is written, GDAL does speak
        assert "No such file" not in told
        assert "signalled an error" not in told

    def test_polygons_asked_for_later_need_no_network(self, scene, tmp_path):
        segment(scene, tmp_path / "b")
        network = Counted(scored_in_context)
        segment(scene, tmp_path / "b", network, polygons=True)
        assert network.tiles == 0
        assert (tmp_path / "b" / "scene.gpkg").is_file()

    @pytest.mark.parametrize("damage", ["cut short", "another checksum"])
    def test_damaged_rows_are_named(self, scene, tmp_path, damage):
        with pytest.raises(StoppedError):
            segment(scene, tmp_path, stop_after(60))
        rows = tmp_path / ".scene.parts" / "rows-000002.npy.gz"
        sound = rows.read_bytes()
        rows.write_bytes(sound[:-100] if damage == "cut short" else sound[:-8] + bytes(4) + sound[-4:])
        with pytest.raises(OutputError, match=r"damaged: .*\.scene\.parts"):
            segment(scene, tmp_path)


class TestPolygons:
    """Against rasterio's vectorisation of the whole mask at once."""

    def regions(self, mask, path, layer="mask"):
        shapely, pyogrio = pytest.importorskip("shapely"), pytest.importorskip("pyogrio")
        meta, _, geometry, (ids, areas) = pyogrio.raw.read(path, layer=layer)
        with rasterio.open(mask) as file:
            plane = file.read(1)
            whole = [
                shapely.geometry.shape(found)
                for found, _ in rasterio.features.shapes(plane, plane == 1, transform=file.transform)
            ]
        return meta, shapely.from_wkb(geometry), ids, areas, whole

    @pytest.mark.parametrize("rows", [7, 64, 1024])
    def test_strips_give_the_regions_of_the_whole_mask(self, tmp_path, monkeypatch, rows):
        import shapely
        from scipy.ndimage import gaussian_filter

        monkeypatch.setattr("topolora_monai.model.scenes.polygons._ROWS", rows)
        monkeypatch.setattr("topolora_monai.model.scenes.polygons._POLYGONS_PER_WRITE", 50)
        image = gaussian_filter(speckle(150, 120), 1.2)
        image[:, ::3] = speckle(150, 40)  # diagonal contacts, long combs, holes
        image = np.where(image > 0.5, 0.9, 0.1).astype(np.float32)
        mask = segment(write_scene(tmp_path / "a.tif", image), tmp_path, lambda tile: tile - 0.5, polygons=True)
        meta, polygons, ids, areas, whole = self.regions(mask, tmp_path / "scene.gpkg")
        assert len(whole) > 300
        assert meta["crs"] == "EPSG:32633"
        assert sorted(ids) == list(range(1, len(whole) + 1))
        np.testing.assert_allclose(sorted(areas), sorted(shapely.area(whole)))
        np.testing.assert_allclose(areas, shapely.area(polygons))
        assert areas.sum() == pytest.approx(100 * (read(mask) == 1).sum())
        key = lambda polygon: polygon.normalize().wkt  # noqa: E731
        assert sorted(map(key, polygons)) == sorted(map(key, whole))

    def test_no_region_gives_an_empty_layer(self, tmp_path):
        mask = segment(write_scene(tmp_path / "a.tif", speckle(40, 40)), tmp_path, lambda t: t - 9, polygons=True)
        _, polygons, *_ = self.regions(mask, tmp_path / "scene.gpkg")
        assert len(polygons) == 0

    def test_one_layer_a_class_and_pixels_without_georeference(self, tmp_path):
        path = write_scene(tmp_path / "a.tif", np.full((40, 50), 0.5, np.float32), crs=None, transform=None)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            segment(path, tmp_path, lambda t: torch.cat([t, -t], 1), polygons=True)
        pyogrio = pytest.importorskip("pyogrio")
        assert [layer for layer, _ in pyogrio.list_layers(tmp_path / "scene.gpkg")] == ["mask_1", "mask_2"]
        _, _, _, areas, _ = self.regions(tmp_path / "scene_mask_1.tif", tmp_path / "scene.gpkg", "mask_1")
        assert areas.tolist() == [2000]

    @staticmethod
    def swath(rows, columns):
        """Longitude and latitude of a scene whose rows are bent, as those of a satellite's are."""
        return 179.99 + 1e-3 * columns + 2e-7 * rows * columns, 60 - 1e-3 * rows + 4e-7 * columns**2

    def write_swath(self, path, values, points):
        point = rasterio.control.GroundControlPoint
        write_scene(path, values, crs=None, transform=None)
        with rasterio.open(path, "r+") as file:
            file.gcps = [point(*p, *self.swath(*p), 7.0) for p in points], rasterio.CRS.from_epsg(4326)
        return path

    def test_control_points_place_them(self, tmp_path):
        import shapely

        values = np.full((60, 90), 0.1, np.float32)
        values[20:30, 40:70] = values[50:, :5] = 0.9
        points = [(row, column) for row in np.linspace(0, 60, 7) for column in np.linspace(0, 90, 10)]
        mask = segment(self.write_swath(tmp_path / "a.tif", values, points), tmp_path, lambda t: t - 0.5, polygons=True)
        meta, polygons, _, areas, pixels = self.regions(mask, tmp_path / "scene.gpkg")
        assert meta["crs"] == "EPSG:4326"
        for found, wanted in zip(polygons, pixels, strict=True):
            corners = shapely.get_coordinates(wanted)
            there = np.column_stack(self.swath(corners[:, 1], corners[:, 0]))
            assert np.abs(shapely.get_coordinates(found) - there).max() < 1e-5  # a hundredth of a pixel
        np.testing.assert_allclose(areas, 1e-6 * shapely.area(pixels), rtol=0.1)

    def test_control_points_across_the_180th_meridian(self, tmp_path):
        points = [(0, 0), (0, 90), (60, 0), (60, 90), (30, 45)]
        path = self.write_swath(tmp_path / "a.tif", np.full((60, 90), 0.9, np.float32), points)
        with rasterio.open(path, "r+") as file:
            stored, crs = file.gcps
            for point in stored:
                point.x = (point.x + 180) % 360 - 180
            file.gcps = stored, crs
        mask = segment(path, tmp_path, lambda t: t - 0.5, polygons=True)
        _, (polygon,), *_ = self.regions(mask, tmp_path / "scene.gpkg")
        assert polygon.bounds[0] == pytest.approx(179.99, abs=1e-4)
        assert polygon.bounds[2] == pytest.approx(180.08, abs=2e-3)

    def test_scenes_without_a_place_are_refused_before_they_are_run(self, tmp_path):
        network = Counted(scored_in_context)
        in_a_line = self.write_swath(tmp_path / "line.tif", speckle(60, 90), [(0, 0), (10, 10), (20, 20)])
        with pytest.raises(DataError, match="in a line"):
            segment(in_a_line, tmp_path, network, polygons=True)
        path = write_scene(tmp_path / "rpc.tif", speckle(40, 41), crs=None, transform=None)
        with rasterio.open(path, "r+") as file:
            file.rpcs = rational_polynomials()
        with pytest.raises(DataError, match="polygons have no place") as error:
            segment(path, tmp_path, network, polygons=True)
        assert "gdalwarp -rpc -t_srs EPSG:4326 rpc.tif rpc_placed.tif" in str(error.value)
        assert network.tiles == 0

    def test_missing_package_names_the_extra(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyogrio", None)
        with pytest.raises(ConfigError, match=r"topolora_monai\[sar\]"):
            SceneSegmenter(None, tiles(), 1, UNIT, tmp_path, "a", polygons=True)


class TestRefusals:
    def test_file_cut_short(self, tmp_path):
        path = write_scene(tmp_path / "a.tif", speckle(200, 200), compress="deflate")
        path.write_bytes(path.read_bytes()[:-60_000])
        with pytest.raises(DataError, match="damaged"):
            segment(path, tmp_path)

    def test_missing_file_is_found_before_the_first_scene_is_run(self, tmp_path):
        items = [
            {"name": "a", "image": str(write_scene(tmp_path / "a.tif", speckle(40, 40)))},
            {"name": "b", "image": str(tmp_path / "b.tif")},
        ]
        with pytest.raises(DataError, match=r"b\.tif"):
            SceneSegmenter(None, tiles(), 1, UNIT, tmp_path / "out", "a").run(items)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(("setting", "value"), [("overlap", 1), ("crop_size", 0), ("batch_size", 0)])
    def test_impossible_tiles(self, setting, value):
        with pytest.raises(ConfigError):
            tiles(**{setting: value})

    def test_impossible_margin(self, tmp_path):
        with pytest.raises(ConfigError):
            SceneSegmenter(None, tiles(), 1, UNIT, tmp_path, "a", margin=-1)

    def test_network_of_another_size(self, tmp_path):
        path = write_scene(tmp_path / "a.tif", speckle(40, 40))
        with pytest.raises(ConfigError, match="size of a tile"):
            segment(path, tmp_path, lambda tile: tile[..., ::2])

    @pytest.mark.parametrize("failing", ["save", "geotiff"])
    def test_full_disk_keeps_what_is_finished(self, tmp_path, failing):
        import resource

        path, output = write_scene(tmp_path / "a.tif", speckle(128, 500)), tmp_path / "b"
        limit = 60_000 if failing == "save" else 100_000  # sums of a band have 64 kB, the output has 128
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(OutputError, match="cannot write"):
                segment(path, output, lambda tile: torch.logit(tile, 1e-6))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert {file.name for file in output.iterdir()} == {".scene.parts"}
        kept = len(list((output / ".scene.parts").glob("rows-*")))
        assert kept == (0 if failing == "save" else 7)
        segment(path, output, lambda tile: torch.logit(tile, 1e-6))
        np.testing.assert_allclose(read(output / "scene_probability.tif") / 65536, speckle(128, 500), atol=1e-4)


def test_settings_file_describes_the_run(tmp_path):
    path = write_scene(tmp_path / "a.tif", speckle(330, 130))
    with pytest.raises(StoppedError):
        segment(path, tmp_path, stop_after(60))
    settings = json.loads((tmp_path / ".scene.parts" / "settings.json").read_text())
    assert settings["source"] == str(path)
    assert settings["limits"] == [[0, 1]]
