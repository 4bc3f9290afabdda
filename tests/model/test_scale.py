"""Tiles at the pixel scale of training: how it is found, given, refused and recorded."""

import json
import logging

import numpy as np
import pytest
import torch
from monai.bundle import create_workflow
from PIL import Image

from tests.bundles.helpers import CONFIGS
from tests.planning.helpers import lines, write_folder
from tests.release.test_release import write_run
from topolora_monai.data import open_dataset
from topolora_monai.data.fields_of_view import view_diameter
from topolora_monai.errors import ConfigError, DataError
from topolora_monai.model.predictor import Predictor
from topolora_monai.model.scale import PixelScale, ScaleMatch
from topolora_monai.planning import fingerprint, fit_plan, given_scale, write_plan
from topolora_monai.spec import ModelSpec
from topolora_monai.transforms import LoadItem

SPEC = ModelSpec(
    network_name="vit_t", base_sha256=64 * "0", adaptation={}, package_version="1.0", crop_size=192,
    view_diameter=540.0, thickness=3.0,
)  # fmt: skip
BLIND = SPEC.replace(view_diameter=None)


def disc(diameter, size=(96, 128), centre=None, cut=0):
    """A lit disc in a dark surround, (3, H, W) in [0, 1]; ``cut`` rows of it are dark above and below."""
    row, column = centre or (size[0] / 2, size[1] / 2)
    rows, columns = np.ogrid[: size[0], : size[1]]
    lit = np.hypot(rows - row, columns - column) < diameter / 2
    lit[:cut] = lit[size[0] - cut :] = False
    noise = np.random.default_rng(0).normal(0, 0.01, (3, *size))
    return np.clip(0.03 + 0.5 * lit + noise, 0, 1).astype(np.float32)


@pytest.mark.parametrize(
    ("image", "diameter"),
    [
        (disc(80), 80),
        (disc(120), 120),  # the image cuts it off
        (disc(120, cut=8), 120),  # a film does, inside the image
        (disc(80, centre=(40, 45)), 80),
        (disc(900, (960, 999)), 900),  # measured in a smaller copy
    ],
)
def test_the_disc_is_measured_whole(image, diameter):
    assert view_diameter(image) == pytest.approx(diameter, rel=0.02)


def test_other_pictures_have_none():
    rows, columns = np.ogrid[:96, :128]
    shapes = {
        "all lit": np.ones((96, 128)),
        "a rectangle": (abs(rows - 48) < 30) & (abs(columns - 64) < 40),
        "half of the image": np.broadcast_to(columns < 64, (96, 128)),
        "a dark corner": np.hypot(rows - 96, columns - 128) > 40,
    }
    assert {
        name: view_diameter(np.float32(0.6 * np.asarray(lit)[None])) for name, lit in shapes.items()
    } == dict.fromkeys(shapes)


def test_tiles_by_each_way_of_saying_the_scale():
    image = torch.from_numpy(disc(81))
    small = SPEC.replace(view_diameter=54.0)
    assert ScaleMatch(small, True).crop_of(image) == pytest.approx(288, abs=4)
    for match, crop in (
        (False, 192),
        (None, 192),
        ("false", 192),
        (1.5, 288),
        (2, 384),
        ("4.5px", 288),
        ("4.5 px", 288),
    ):
        assert ScaleMatch(SPEC, match).crop_of(image) == crop, match
    assert ScaleMatch(SPEC, PixelScale(1080.0, 3.0)).crop_size == 384  # fields of view are surer than drawn masks
    assert ScaleMatch(BLIND, PixelScale(1080.0, 6.0)).crop_size == 384


@pytest.mark.parametrize(
    ("spec", "match", "said"),
    [
        (BLIND, True, "view_diameter in the adapter file"),
        (BLIND, "true", "give --view_diameter of its training images"),
        (SPEC.replace(thickness=None), "5px", "thickness in the adapter file"),
        (SPEC, PixelScale(), "nothing is known"),
        (SPEC, "wide", "wrong match_scale"),
        (SPEC, -2, "wrong match_scale"),
        (SPEC, float("inf"), "too far"),
        (SPEC, 0.01, "too far"),
        (SPEC.replace(crop_size=16), 0.5, "too far"),
        (SPEC.replace(protocol="published"), 1.5, "protocol native"),
    ],
)
def test_what_cannot_be_matched_is_said(spec, match, said):
    with pytest.raises(ConfigError, match=said):
        ScaleMatch(spec, match)


def written(folder, **images):
    folder.mkdir(exist_ok=True)
    for name, image in images.items():
        Image.fromarray(np.uint8(255 * image.transpose(1, 2, 0))).save(folder / f"{name}.png")
    return [{"name": name, "image": str(folder / f"{name}.png"), "label": "unread"} for name in images]


def test_an_image_without_a_disc_gets_the_others_median_and_alone_is_refused(tmp_path, caplog):
    dark = np.full((3, 96, 128), 0.4, np.float32)
    items = written(tmp_path, a=disc(80), b=dark, c=disc(84))
    match = ScaleMatch(SPEC.replace(view_diameter=41.0), True)
    with caplog.at_level(logging.INFO):
        match.survey(items, LoadItem(3))
    assert "no field of view in b" in caplog.text
    assert "scale matched by field of view, ratio 2.00: tiles of 375 to 393 px" in caplog.text
    record = match.record()
    assert (record["by"], record["without_field_of_view"]) == ("field of view", ["b"])
    assert record["least"] < record["ratio"] < record["most"]
    assert match.crop_of(torch.from_numpy(dark)) == round(192 * record["ratio"])
    with pytest.raises(DataError, match="no field of view was found in any of 2 images"):
        match.survey([items[1]] * 2, LoadItem(3))
    with pytest.raises(DataError, match="lit disc in a dark surround"):
        ScaleMatch(SPEC, True).crop_of(torch.from_numpy(dark))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run at crops of 32 px, whose images' fields of view were 40 px wide."""
    return write_run(tmp_path_factory.mktemp("scale") / "run", view_diameter=40.0, thickness=2.0)


def test_a_predictor_answers_as_with_the_crop_by_hand(trained, tmp_path):
    items = written(tmp_path / "in", a=disc(80))
    options = {"precision": "fp32", "device": "cpu"}
    matched = Predictor.from_run(trained, match_scale=True, **options)
    crop = matched.scale.crop_of(torch.from_numpy(disc(80)))
    assert crop == pytest.approx(64, abs=2)
    by_hand = Predictor(matched.spec.replace(crop_size=crop), matched.network, **options)
    plain = Predictor(matched.spec, matched.network, **options)
    found, expected, other = (one(items[0]["image"]).probabilities for one in (matched, by_hand, plain))
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, other)
    ratio = Predictor(matched.spec, matched.network, match_scale=crop / 32, **options)
    assert np.array_equal(ratio(items[0]["image"]).probabilities, expected)
    unsure = Predictor(matched.spec, matched.network, match_scale=True, flip_axes=1, uncertainty=True, **options)
    assert unsure(items[0]["image"]).uncertainty.shape == (1, 96, 128)


def test_scenes_are_given_theirs(trained, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500000, 0, -10, 4649000)}
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": 40, "width": 50}
    with rasterio.open(tmp_path / "s.tif", "w", **profile, **place) as file:
        file.write(np.zeros((3, 40, 50), np.uint8))
    with pytest.raises(ConfigError, match="no field of view is looked for in scenes"):
        Predictor.from_run(trained, match_scale=True, device="cpu").write(tmp_path / "s.tif", tmp_path / "out")
    assert Predictor.from_run(trained, match_scale=2, device="cpu").scene_segmenter(tmp_path).tiles.crop_size == 64


def test_a_plan_of_the_new_images_says_their_scale(tmp_path):
    data = write_folder(tmp_path / "data", [lines((64, 64), 4, 2) for _ in range(5)])
    found = fingerprint(data)
    assert (found.view_diameter, found.thickness) == (None, 4.0)
    write_plan(fit_plan(found, "vit_t"), tmp_path / "plan.yaml")
    scale = given_scale(str(tmp_path / "plan.yaml"))
    assert scale == PixelScale(None, 4.0)
    assert ScaleMatch(SPEC, scale).crop_size == 256
    with pytest.raises(DataError, match="plan not found"):
        given_scale(tmp_path / "none.yaml")


def test_the_fingerprint_measures_discs(tmp_path):
    data = write_folder(tmp_path / "data", [lines((96, 128), 2)] * 4)
    written(tmp_path / "data/images", **{f"{number:03d}": disc(80) for number in range(4)})
    assert fingerprint(data).view_diameter == pytest.approx(80, rel=0.02)


def run(name, run_id, **options):
    create_workflow(
        config_file=str(CONFIGS / name), workflow_type="infer", run_id=run_id, logging_file=False, **options
    ).run()


def test_bundles_match_and_record(trained, tmp_path):
    """Evaluation and inference by their own configurations, at another scale than that of training."""
    data = tmp_path / "data"
    write_folder(data, [lines((96, 128), 2)] * 6)
    written(data / "images", **{f"{number:03d}": disc(80) for number in range(6)})
    options = {"adapter": str(trained / "adapter.safetensors"), "precision": "fp32", "device": "cpu"}
    scored = {"dataset_name": "folder", "dataset_dir": str(data), "pictures": False, "scores": ["cldice"]}
    run(
        "evaluate.yaml",
        "evaluating",
        output_dir=str(tmp_path / "e"),
        match_scale=True,
        trackers=[],
        **scored,
        **options,
    )
    record = json.loads((tmp_path / "e/evaluation/summary.json").read_text())["scale"]
    assert record == {"by": "field of view", "without_field_of_view": []} | {
        name: pytest.approx(2.0, rel=0.03) for name in ("ratio", "least", "most")
    }
    run(
        "inference.yaml",
        "inferring",
        input=str(data / "images"),
        output_dir=str(tmp_path / "p"),
        match_scale="4px",
        **options,
    )
    run("inference.yaml", "inferring", input=str(data / "images"), output_dir=str(tmp_path / "q"), match_scale=True,
        view_diameter=20.0, **options)  # fmt: skip
    by_hand = Predictor.from_run(trained, match_scale=2.0, precision="fp32", device="cpu")(data / "images/000.png")
    mask = np.asarray(Image.open(tmp_path / "p/000_mask.png"))
    assert np.array_equal(mask > 0, by_hand.mask > 0)
    assert not np.array_equal(mask, np.asarray(Image.open(tmp_path / "q/000_mask.png")))


def test_real_cameras(real_data):
    """From DRIVE's 192 px by hand: 231 px for STARE, 327 px for CHASE_DB1."""
    found = {}
    for name, folder in (("drive", "DRIVE"), ("stare", "STARE"), ("chase_db1", "CHASE_DB1")):
        items = open_dataset(name, real_data(folder), allow_partial=True).items("test")[:4]
        views = [view_diameter(LoadItem(3)({"image": item["image"]})["image"].numpy()) for item in items]
        found[name] = float(np.median([view for view in views if view]))
    crops = {name: ScaleMatch(SPEC.replace(view_diameter=found["drive"]), PixelScale(of)).crop_size
             for name, of in found.items()}  # fmt: skip
    assert crops["stare"] == pytest.approx(231, abs=3)
    assert crops["chase_db1"] == pytest.approx(327, abs=3)
