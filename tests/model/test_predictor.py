"""One model, one mask: by whatever way an image is segmented, every bit of the answer is the same."""

import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser, create_workflow
from PIL import Image

import topolora_monai.io
from tests.bundles.helpers import CONFIGS
from tests.release.test_release import write_run
from topolora_monai.adapters import adapt, preset_config, save_adapter
from topolora_monai.annotation import AnnotationSegmenter
from topolora_monai.errors import DataError
from topolora_monai.io import image_kind
from topolora_monai.metrics import to_16_bit
from topolora_monai.model.predictor import Predictor
from topolora_monai.networks import build_network
from topolora_monai.release import release

OPTIONS = {"precision": "fp32", "device": "cpu"}
KINDS = ("probability", "mask")
SIZES = {"several tiles": (75, 107), "smaller than a tile": (20, 45)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run, its released bundle, and an image of each size in several kinds of files."""
    folder = tmp_path_factory.mktemp("predictor")
    for name, size in SIZES.items():
        values = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        (folder / name).mkdir()
        Image.fromarray(values).save(folder / name / "a.png")
        scene = pytest.importorskip("rasterio")
        profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": size[0], "width": size[1]}
        place = {"crs": "EPSG:32633", "transform": scene.Affine(10, 0, 500000, 0, -10, 4649000)}
        with scene.open(folder / name / "b.tif", "w", **profile, **place, photometric="RGB") as file:
            file.write(values.transpose(2, 0, 1))
    anyhow = Predictor.from_run(write_run(folder / "anyhow", temperature=1.7), **OPTIONS)
    middle = np.median([np.median(anyhow(folder / name / "a.png").probabilities) for name in SIZES])
    release(write_run(folder / "run", temperature=1.7, threshold=float(middle)), folder / "bundle")
    return folder


def stored(prediction):
    """Probabilities in 16 bit and the mask of a prediction."""
    return to_16_bit(torch.from_numpy(prediction.probabilities)).numpy(), prediction.mask


def read(folder, suffix, stem):
    import rasterio

    if suffix == "png":
        planes = [np.asarray(Image.open(folder / f"{stem}_{kind}.png")) for kind in KINDS]
        return planes[0][None].astype(int), planes[1] // 255
    planes = [rasterio.open(folder / f"{stem}_{kind}.tif").read() for kind in KINDS]
    return planes[0].astype(int), planes[1][0]


def by_array(made, image, out):
    values = np.asarray(Image.open(image)).transpose(2, 0, 1)
    return stored(Predictor.from_adapter(made / "run/adapter.safetensors", **OPTIONS)(values))


def by_floats(made, image, out):
    values = torch.from_numpy(np.asarray(Image.open(image)).transpose(2, 0, 1) / np.float32(255))
    return stored(Predictor.from_adapter(made / "run/adapter.safetensors", **OPTIONS)(values))


def by_folder(made, image, out):
    return stored(Predictor.from_run(made / "run", **OPTIONS)(str(image.parent / "*.png"))["a"])


def by_released_files(made, image, out):
    return stored(Predictor.from_bundle(made / "bundle", **OPTIONS)(image))


def by_scene_in_memory(made, image, out):
    return stored(Predictor.from_bundle(made / "bundle", **OPTIONS)(image.with_name("b.tif")))


def by_writing(made, image, out):
    (mask,) = Predictor.from_run(made / "run", **OPTIONS).write(image, out)
    assert mask == out / "a_mask.png"
    return read(out, "png", "a")


def by_writing_a_scene(made, image, out):
    (mask,) = Predictor.from_run(made / "run", **OPTIONS).write(image.with_name("b.tif"), out)
    assert mask == out / "b_mask.tif"
    return read(out, "tif", "b")


def run_configuration(config, source, out, **options):
    workflow = create_workflow(config_file=str(config), workflow_type="infer", logging_file=False,
                               input=str(source), output_dir=str(out), **OPTIONS, **options)  # fmt: skip
    workflow.run()


def by_configuration(config, image, out, **options):
    run_configuration(config, image.parent, out, **options)
    found, scene = read(out, "png", "a"), read(out, "tif", "b")
    assert all(np.array_equal(*pair) for pair in zip(found, scene, strict=True))
    return found


def by_inference(made, image, out):
    return by_configuration(CONFIGS / "inference.yaml", image, out, adapter=str(made / "run/adapter.safetensors"))


def by_released_inference(made, image, out):
    return by_configuration(made / "bundle/configs/inference.yaml", image, out, bundle_root=str(made / "bundle"))


def by_annotation(made, image, out):
    segmenter = AnnotationSegmenter({"vessels": made / "run/adapter.safetensors"}, **OPTIONS)
    probability = segmenter.automatic(image)
    return to_16_bit(probability).numpy(), segmenter.masks(probability)[0]


WAYS = [by_array, by_floats, by_folder, by_released_files, by_scene_in_memory, by_writing, by_writing_a_scene,
        by_inference, by_released_inference, by_annotation]  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", WAYS)
def test_every_bit_is_the_same(made, tmp_path, way, size):
    image = made / size / "a.png"
    expected = stored(Predictor.from_adapter(made / "run/adapter.safetensors", **OPTIONS)(image))
    found = way(made, image, tmp_path / "out")
    assert 0.05 < expected[1].mean() < 0.95
    assert len(np.unique(expected[0])) > 0.3 * expected[1].size
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert (one != other).sum() == 0


class Kept:
    """Handler that keeps an engine's answers."""

    def __init__(self):
        self.answers = {}

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine):
        for answer, item in zip(engine.state.output, engine.state.batch, strict=True):
            self.answers[item["path"]] = np.asarray(answer["pred"])


@pytest.mark.parametrize("split", ["validation", "test"])
def test_what_is_scored_is_what_is_given(made, fake_drive, split):
    kept, parser = Kept(), ConfigParser()
    parser.read_config(CONFIGS / "evaluate.yaml")
    parser.update({"output_dir": str(made / "run"), "dataset_dir": str(fake_drive), "allow_partial": True, **OPTIONS})
    part = "" if split == "test" else "validate#"
    parser[f"{part}handlers"] = [kept]
    parser.get_parsed_content(f"{part}evaluator").run()
    predictor = Predictor.from_run(made / "run", **OPTIONS)
    assert len(kept.answers) >= 1
    for path, probability in kept.answers.items():
        np.testing.assert_array_equal(probability, predictor(path).probabilities)


def test_validation_while_training_cuts_and_blends_as_prediction(made):
    predictor, parser = Predictor.from_run(made / "run", **OPTIONS), ConfigParser()
    parser.read_config(CONFIGS / "train.yaml")
    parser.update({"crop_size": predictor.spec.crop_size, "model#overlap": predictor.spec.overlap, **OPTIONS})
    image = predictor.load({"image": str(made / "several tiles/a.png")})["image"][None]
    expected, found = (
        torch.no_grad()(inferer)(image, predictor.network)
        for inferer in (predictor.tiles, parser.get_parsed_content("validate#inferer"))
    )
    assert torch.equal(found, expected)


def test_what_an_image_is_is_asked_once_a_file(made, monkeypatch):
    asked = []
    monkeypatch.setattr(topolora_monai.io, "image_kind", lambda path: (asked.append(path), image_kind(path))[1])
    parser = ConfigParser()
    parser.read_config(CONFIGS / "inference.yaml")
    parser["input"] = str(made / "several tiles")
    images, scenes = (parser.get_parsed_content(name) for name in ("images", "scenes"))
    assert [[item["name"] for item in items] for items in (images, scenes)] == [["a"], ["b"]]
    assert sorted(asked) == sorted(item["image"] for item in [*images, *scenes])


def test_every_voxel_is_the_same(made, tmp_path):
    values = np.random.default_rng(1).normal(100, 40, (50, 40, 3)).astype(np.float32)
    values[:9, :9] = np.nan
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(values, np.diag([1, 1, 3, 1])), path)
    predictor = Predictor.from_bundle(made / "bundle", **OPTIONS)
    expected = stored(predictor(path))
    assert expected[1].shape == (3, 40, 50)
    assert not expected[1][:, :9, :9].any()
    assert len(np.unique(expected[0])) > 1000
    adapter = made / "run/adapter.safetensors"
    segmenter = AnnotationSegmenter({"vessels": adapter}, **OPTIONS)
    slices = [segmenter.automatic({"image": str(path), "axis": 0, "slice": number}) for number in range(3)]
    np.testing.assert_array_equal(to_16_bit(torch.stack(slices, 1)).numpy(), expected[0])
    (mask,) = predictor.write(path, tmp_path / "written")
    run_configuration(CONFIGS / "inference.yaml", path, tmp_path / "run", adapter=str(adapter))
    for folder in (mask.parent, tmp_path / "run"):
        probability, found = (
            nib.load(folder / f"scan_{kind}.nii.gz").get_fdata().T for kind in ("probability", "mask")
        )
        np.testing.assert_array_equal(probability, expected[0][0])
        np.testing.assert_array_equal(found, expected[1])


@pytest.mark.parametrize("changes", [{}, {"pixel_values": "amplitude", "despeckle_looks": 4.0}, {"clahe": True}])
def test_scenes_of_measurements_in_memory_and_in_bands(made, tmp_path, changes):
    import rasterio

    values = np.random.default_rng(2).gamma(4, 50, (3, 75, 107)).astype(np.float32)
    values[:, 20:70, 10:60] = -9999
    profile = {"driver": "GTiff", "dtype": "float32", "count": 3, "height": 75, "width": 107, "nodata": -9999}
    with rasterio.open(tmp_path / "a.tif", "w", **profile) as file:
        file.write(values)
    trained = Predictor.from_run(made / "run", **OPTIONS)
    predictor = Predictor(trained.spec.replace(**changes), trained.network, **OPTIONS)
    expected = predictor(tmp_path / "a.tif")
    predictor.write(tmp_path / "a.tif", tmp_path / "out")
    probability, mask = read(tmp_path / "out", "tif", "a")
    np.testing.assert_array_equal(expected.valid, values[0] != -9999)
    assert (mask[~expected.valid] == 255).all()
    np.testing.assert_array_equal(mask[expected.valid], expected.mask[expected.valid])
    np.testing.assert_array_equal(probability[0][expected.valid], stored(expected)[0][0][expected.valid])


def test_uncertainty_of_mirror_images(made):
    trained = Predictor.from_run(made / "run", **OPTIONS)
    settings = {"flip_axes": 1, "uncertainty": True, **OPTIONS}
    found = Predictor(trained.spec.replace(temperature=1.0), trained.network, **settings)(made / "several tiles/a.png")
    p = found.probabilities
    np.testing.assert_allclose(found.uncertainty, -p * np.log2(p) - (1 - p) * np.log2(1 - p), atol=1e-5)


@pytest.mark.parametrize("head", ["per_class", "token_set"])
def test_adapters_that_say_no_more_than_they_must(made, tmp_path, head):
    """As the public ``save_adapter`` writes them, without properties."""
    network = build_network("vit_tiny_test", image_size=64, out_channels=2, multiclass_head=head, mask_tokens=3)
    run = tmp_path / "run"
    run.mkdir()
    save_adapter(adapt(network, preset_config("lora")), run / "adapter.safetensors", activation="softmax")
    shutil.copytree(made / "run/evaluation", run / "evaluation")
    image = made / "smaller than a tile/a.png"
    expected = Predictor.from_run(run, **OPTIONS)(image)
    assert expected.classes == ("background", "class 1", "class 2")
    bundle = release(run, tmp_path / "bundle")
    assert np.array_equal(Predictor.from_bundle(bundle, **OPTIONS)(image).probabilities, expected.probabilities)
    run_configuration(bundle / "configs/inference.yaml", image, tmp_path / "out", bundle_root=str(bundle))
    run_configuration(CONFIGS / "inference.yaml", image, tmp_path / "more", adapter=str(run / "adapter.safetensors"))
    for folder in ("out", "more"):
        np.testing.assert_array_equal(Image.open(tmp_path / folder / "a_mask.png"), expected.mask)
    segmenter = AnnotationSegmenter({"a": run / "adapter.safetensors"}, **OPTIONS)
    np.testing.assert_array_equal(segmenter.automatic(image), expected.probabilities)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((40, 50, 3), np.uint8), "channels come first"),
        (np.full((3, 40, 50), 7.0, np.float32), "scale it"),
        (np.zeros((3, 40, 50), np.uint16), "uint8"),
    ],
)
def test_arrays_that_do_not_fit(made, values, said):
    with pytest.raises(DataError, match=said):
        Predictor.from_run(made / "run", **OPTIONS)(values)
