"""What the page shows of images that no browser does."""

import io

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("monailabel", reason="needs MONAI Label: run `make label-test`")

from topolora_monai.label_app.rendering import picture_as_png

rasterio = pytest.importorskip("rasterio")


@pytest.mark.parametrize(("bands", "shown"), [(13, [0, 1, 2]), (2, [0, 0, 0]), (1, [0, 0, 0])])
def test_first_bands_of_a_raster(tmp_path, bands, shown):
    stored = np.random.default_rng(0).integers(0, 10_000, (bands, 30, 40)).astype(np.uint16)
    profile = {"driver": "GTiff", "count": bands, "dtype": "uint16", "height": 30, "width": 40, "crs": "EPSG:32633"}
    with rasterio.open(tmp_path / "a.tif", "w", transform=rasterio.Affine(10, 0, 5, 0, -10, 9), **profile) as file:
        file.write(stored)
    content, size = picture_as_png(str(tmp_path / "a.tif"))
    low, high = np.percentile(stored[sorted(set(shown))], (1, 99))
    expected = np.clip((stored[shown] - low) / (high - low), 0, 1) * 255
    assert size == (30, 40)
    np.testing.assert_allclose(np.asarray(Image.open(io.BytesIO(content))), expected.transpose(1, 2, 0), atol=1)
