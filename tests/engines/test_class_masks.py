"""Masks of classes that exclude one another, from scenes: one file of class numbers."""

import numpy as np
import pytest
import torch
from monai.inferers import SimpleInferer

from topolora_monai.engines import SceneSegmenter
from topolora_monai.metrics import class_indices
from topolora_monai.model.tiling import TileInferer
from topolora_monai.transforms import IntensityScaling

rasterio = pytest.importorskip("rasterio")


def test_scene(tmp_path):
    values = np.random.default_rng(0).random((1, 40, 50), np.float32)
    values[0, :5, :5] = np.nan
    profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "height": 40, "width": 50, "nodata": np.nan}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500000, 0, -10, 4649000)}
    with rasterio.open(tmp_path / "scene.tif", "w", **profile, **place) as file:
        file.write(values)
    pyogrio = pytest.importorskip("pyogrio")
    segmenter = SceneSegmenter(
        lambda tile: torch.cat([9 * tile - 4, 3 - 9 * tile], 1), TileInferer(SimpleInferer(), 32), 1,
        IntensityScaling(value_range=(0, 1)), tmp_path / "out", "a", polygons=True, activation="softmax",
    )  # fmt: skip
    (mask,) = segmenter.run([{"name": "scene", "image": str(tmp_path / "scene.tif")}])
    assert mask.name == "scene_mask.tif"
    planes = [rasterio.open(tmp_path / f"out/scene_probability_{number}.tif").read(1) for number in (1, 2)]
    plane = rasterio.open(mask).read(1)
    assert (plane[:5, :5] == 255).all()
    valid = np.isfinite(values[0])
    np.testing.assert_array_equal(plane[valid], class_indices(np.stack(planes))[valid])
    expected = np.select([values[0] > 7 / 18, values[0] <= 3 / 9], [np.where(values[0] > 4 / 9, 1, 0), 2], 0)
    assert (plane[valid] == expected[valid]).mean() > 0.999
    for number in (1, 2):
        _, _, _, (_, areas) = pyogrio.raw.read(tmp_path / "out/scene.gpkg", layer=f"mask_{number}")
        assert areas.sum() == pytest.approx(100 * (plane == number).sum())
