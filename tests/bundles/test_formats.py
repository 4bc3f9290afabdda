"""Volumes and scenes through the bundle: what comes back lies where the image lies."""

import gzip
import shutil

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser
from PIL import Image, ImageSequence

from tests.bundles.helpers import CONFIGS, run
from tests.io.test_memory import sparse_scene
from tests.io.volume_files import marked, nifti_affine, read_itk, write_nifti, write_series
from topolora_monai.adapters import adapt, preset_config, save_adapter
from topolora_monai.data import check_items
from topolora_monai.networks import build_network

rasterio = pytest.importorskip("rasterio")
POINTS = [
    rasterio.control.GroundControlPoint(row, column, 10 + column / 1000, 50 - row / 1000 + column**2 / 1e6)
    for row, column in ((0.0, 0.0), (0.0, 45.0), (0.0, 90.0), (70.0, 0.0), (70.0, 90.0))
]
GRID = rasterio.Affine(10.0, 0, 500000, 0, -10.0, 4649000)


def adapter(path, channels=3, pixel_values="linear", clahe=False, despeckle_looks=None, threshold=0.5):
    """An adapter of random weights, with all that inference wants to know."""
    network = build_network("vit_tiny_test", image_size=64, in_channels=channels, seed=0)
    adaptation = adapt(network, preset_config("topolora"), seed=0)
    save_adapter(
        adaptation, path, dataset="folder", labels=["background", "vessel"], image_size=64, crop_size=32,
        in_channels=channels, out_channels=1, fit="pad", protocol="native", pixel_values=pixel_values,
        percentiles=[1.0, 99.0], value_range=None, clahe=clahe, despeckle_looks=despeckle_looks, threshold=threshold,
    )  # fmt: skip
    return path


def infer(tmp_path, cwd, **options):
    done = run("inferring", CONFIGS / "inference.yaml", cwd, precision="fp32", overlap=0.25, **options)
    assert done.returncode == 0, done.stderr
    assert "CPLE_" not in done.stderr  # GDAL's own words
    assert "records" not in done.stderr
    return tmp_path


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    """A folder with one of each, segmented in one run."""
    root = tmp_path_factory.mktemp("formats")
    source = root / "in"
    source.mkdir()
    write_nifti(source / "scan.nii.gz", marked(), nifti_affine())
    write_series(source / "series", marked(1))
    pages = [Image.fromarray(plane.astype(np.uint16)) for plane in marked(2)]
    pages[0].save(source / "pages.tif", save_all=True, append_images=pages[1:])
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(source / "photo.jpg")
    profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "height": 70, "width": 90, "nodata": -99}
    values = np.random.default_rng(1).gamma(4, size=(1, 70, 90)).astype(np.float32)
    values[:, :, :5] = -99
    with rasterio.open(source / "scene.tif", "w", **profile, crs="EPSG:32633", transform=GRID) as file:
        file.write(values)
    with rasterio.open(source / "swath.tif", "w", **profile, gcps=POINTS, crs="EPSG:4326") as file:
        file.write(values)
    (root / "elsewhere").mkdir()
    infer(root, root / "elsewhere", adapter=adapter(root / "a.safetensors"), input=source, output_dir=root / "out",
          polygons=True)  # fmt: skip
    return root


def test_each_input_has_its_results(segmented):
    assert sorted(path.name for path in (segmented / "out").iterdir()) == sorted(
        [f"{name}_{kind}.nii.gz" for name in ("scan", "series") for kind in ("mask", "probability")]
        + [f"pages_{kind}.tif" for kind in ("mask", "probability")]
        + [f"photo_{kind}.png" for kind in ("mask", "probability")]
        + [f"scene_{kind}.tif" for kind in ("mask", "probability")]
        + [f"swath_{kind}.tif" for kind in ("mask", "probability")]
        + ["scene.gpkg", "swath.gpkg"]
    )
    assert list((segmented / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("kind", ["mask", "probability"])
def test_nifti_keeps_affine_spacing_and_shape(segmented, kind):
    source = nib.load(segmented / "in/scan.nii.gz")
    result = nib.load(segmented / f"out/scan_{kind}.nii.gz")
    assert result.shape == source.shape
    np.testing.assert_allclose(result.affine, source.affine, atol=1e-6)
    np.testing.assert_allclose(result.header.get_zooms(), source.header.get_zooms())
    assert nib.aff2axcodes(result.affine) == nib.aff2axcodes(source.affine)
    values = np.unique(np.asarray(result.dataobj))
    assert set(values) <= {0, 1} if kind == "mask" else len(values) > 10


@pytest.mark.parametrize("kind", ["mask", "probability"])
def test_dicom_series_keeps_spacing_origin_and_direction(segmented, kind):
    values, source = read_itk(segmented / "in/series")
    result_values, result = read_itk(segmented / f"out/series_{kind}.nii.gz")
    assert result_values.shape == values.shape
    np.testing.assert_allclose(list(result.GetSpacing()), list(source.GetSpacing()), rtol=1e-5)
    np.testing.assert_allclose(list(result.GetOrigin()), list(source.GetOrigin()), atol=1e-4)
    found, expected = (
        np.array([[image.GetDirection()(i, j) for j in range(3)] for i in range(3)]) for image in (result, source)
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_pages_of_a_tiff(segmented):
    with Image.open(segmented / "out/pages_probability.tif") as result:
        pages = [np.asarray(page) for page in ImageSequence.Iterator(result)]
    assert [page.shape for page in pages] == [(6, 8)] * 5


def test_slices_are_segmented_as_pictures_of_them_would_be(segmented, tmp_path):
    """Each slice by itself, scaled by limits of the whole volume and written as an 8-bit picture."""
    values = np.asarray(nib.load(segmented / "in/scan.nii.gz").dataobj).T
    low, high = np.percentile(values, [1, 99])
    pictures = (np.clip((values - low) / (high - low), 0, 1) * 255).round().astype(np.uint8)
    (tmp_path / "in").mkdir()
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"in/{index}.png")
    infer(tmp_path, tmp_path, adapter=segmented / "a.safetensors", input=tmp_path / "in", output_dir=tmp_path / "out")
    expected = np.asarray(nib.load(segmented / "out/scan_probability.nii.gz").dataobj).T
    for index in range(len(pictures)):
        found = np.asarray(Image.open(tmp_path / f"out/{index}_probability.png")).astype(int)
        assert np.abs(found - expected[index]).max() < 600  # of 65535: eight bits against the volume's own


def test_scene_keeps_georeference_and_nodata(segmented):
    for kind, nodata in (("mask", 255), ("probability", 65535)):
        with rasterio.open(segmented / f"out/scene_{kind}.tif") as result:
            assert result.crs.to_epsg() == 32633
            assert result.transform == GRID
            assert result.shape == (70, 90)
            assert result.nodata == nodata
            band = result.read(1)
        assert (band[:, :5] == nodata).all()
        assert (band[:, 5:] != nodata).all()


def test_scene_of_control_points_keeps_them_and_its_polygons_lie_there(segmented):
    pyogrio = pytest.importorskip("pyogrio")
    with rasterio.open(segmented / "out/swath_mask.tif") as result:
        points, crs = result.gcps
        assert crs.to_epsg() == 4326
        assert [(p.row, p.col, p.x, p.y) for p in points] == [(p.row, p.col, p.x, p.y) for p in POINTS]
        foreground = np.argwhere(result.read(1) == 1)
    found = pyogrio.read_info(segmented / "out/swath.gpkg", force_total_bounds=True)
    assert found["crs"] == "EPSG:4326"
    (top, left), (bottom, right) = foreground.min(axis=0), foreground.max(axis=0) + 1
    west, south, east, north = found["total_bounds"]
    assert (west, east) == pytest.approx((10 + left / 1000, 10 + right / 1000), abs=2e-3)
    assert (south, north) == pytest.approx((50 - bottom / 1000, 50 - top / 1000), abs=1e-2)


def test_scene_beyond_pillows_limit_is_taken_for_a_scene(tmp_path):
    sparse_scene(tmp_path / "in.tif")
    config = ConfigParser(ConfigParser.load_config_file(CONFIGS / "inference.yaml"))
    config.config.update(input=str(tmp_path / "in.tif"), output_dir=str(tmp_path / "out"))
    (item,) = config.get_parsed_content("scenes")
    assert item["name"] == "in"
    assert config.get_parsed_content("images") == []
    check_items([item])


def test_axis_can_be_chosen(segmented, tmp_path):
    infer(tmp_path, tmp_path, adapter=segmented / "a.safetensors", input=segmented / "in/scan.nii.gz",
          output_dir=tmp_path / "out", slice_axis=2)  # fmt: skip
    other = np.asarray(nib.load(tmp_path / "out/scan_probability.nii.gz").dataobj)
    first = np.asarray(nib.load(segmented / "out/scan_probability.nii.gz").dataobj)
    assert other.shape == first.shape
    assert (other != first).any()


def test_two_bands_in_decibels(tmp_path):
    profile = {"driver": "GTiff", "count": 2, "dtype": "float32", "height": 40, "width": 40}
    values = (10 * np.log10(np.random.default_rng(1).gamma(4, size=(2, 40, 40)))).astype(np.float32)
    (tmp_path / "in").mkdir()
    with rasterio.open(tmp_path / "in/s1.tif", "w", **profile, crs="EPSG:4326", transform=GRID) as file:
        file.write(values)
    results = []
    for looks in (None, 4):
        path = adapter(tmp_path / f"{looks}.safetensors", 2, "db", despeckle_looks=looks)
        infer(tmp_path, tmp_path, adapter=path, input=tmp_path / "in", output_dir=tmp_path / f"out{looks}")
        with rasterio.open(tmp_path / f"out{looks}/s1_probability.tif") as result:
            results.append(result.read(1).astype(int))
    assert np.abs(results[0] - results[1]).max() > 20  # the filter is applied as it was in training


def test_clahe_of_the_adapter_is_applied(tmp_path):
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(90, 120, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "in/a.png")
    results = []
    for clahe in (False, True):
        path = adapter(tmp_path / f"{clahe}.safetensors", clahe=clahe)
        infer(tmp_path, tmp_path, adapter=path, input=tmp_path / "in", output_dir=tmp_path / f"out{clahe}")
        results.append(np.asarray(Image.open(tmp_path / f"out{clahe}/a_probability.png")).astype(int))
    assert np.abs(results[0] - results[1]).max() > 20


def test_damaged_volume_is_named(tmp_path):
    (tmp_path / "in").mkdir()
    path = write_nifti(tmp_path / "in/scan.nii.gz", marked(), nifti_affine())
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole[: len(whole) // 2]))
    done = run("inferring", CONFIGS / "inference.yaml", tmp_path, input=tmp_path / "in", output_dir=tmp_path / "out",
               adapter=adapter(tmp_path / "a.safetensors"))  # fmt: skip
    assert done.returncode != 0
    assert "scan.nii.gz" in done.stderr.splitlines()[-4] + done.stderr.splitlines()[-3] + done.stderr[-600:]
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
