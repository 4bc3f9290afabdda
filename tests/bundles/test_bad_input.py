"""Bad input stops a run before its first epoch, with one error that names the file and the way out."""

import shutil

import pytest
import torch
from monai.bundle import create_workflow
from PIL import Image

from tests.bundles.helpers import CONFIGS, SMALL, run
from topolora_monai.errors import TopoLoRAError
from topolora_monai.networks import build_network


def fail(folder, **options) -> str:
    """Run training in this process and return the package's own error."""
    options = {**SMALL, "dataset_name": "drive", "dataset_dir": folder, "data#allow_partial": True, **options}
    options = {key: str(value) if key.endswith(("_dir", "weights")) else value for key, value in options.items()}
    with pytest.raises(Exception) as caught:
        create_workflow(config_file=str(CONFIGS / "train.yaml"), workflow_type="train", **options).run()
    error = caught.value
    while error is not None and not isinstance(error, TopoLoRAError):
        error = error.__cause__
    assert error is not None, caught.getrepr(chain=True)
    return str(error)


def train_once(fake_drive, out):
    options = {
        **SMALL,
        "epochs": 1,
        "dataset_name": "drive",
        "dataset_dir": str(fake_drive),
        "data#allow_partial": True,
    }
    output_dir = str(out["output_dir"])
    create_workflow(
        config_file=str(CONFIGS / "train.yaml"), workflow_type="train", output_dir=output_dir, **options
    ).run()


@pytest.fixture
def out(tmp_path):
    return {"output_dir": tmp_path / "run"}


def first_mask(fake_drive):
    return fake_drive / "training/1st_manual/25_manual1.gif"


def test_missing_folder(tmp_path, out):
    assert "nowhere" in fail(tmp_path / "nowhere", **out)


def test_truncated_image(fake_drive, out):
    path = fake_drive / "training/images/25_training.tif"
    path.write_bytes(path.read_bytes()[:3000])
    assert "25_training.tif" in fail(fake_drive, **out)


def test_zero_byte_mask(fake_drive, out):
    first_mask(fake_drive).write_bytes(b"")
    assert "25_manual1.gif" in fail(fake_drive, **out)


def test_mask_with_more_values(fake_drive, out):
    Image.linear_gradient("L").resize((72, 64)).save(first_mask(fake_drive))
    assert "other values" in fail(fake_drive, **out)


def test_unknown_names(fake_drive, out):
    assert "did you mean topolora" in fail(fake_drive, preset="topolorra", **out)
    assert "did you mean drive" in fail(fake_drive, **{**out, "dataset_name": "drvie"})
    assert "vit_b" in fail(fake_drive, **{**out, "network_name": "vit_x"})


def test_impossible_numbers(fake_drive, out):
    assert "multiple of 16" in fail(fake_drive, **{**out, "image_size": 100})
    assert "epochs" in fail(fake_drive, **{**out, "epochs": -3})
    assert "crop_size" in fail(fake_drive, **{**out, "crop_size": 0})


def test_output_is_a_file(fake_drive, tmp_path):
    (tmp_path / "file").touch()
    assert "output_dir is a file" in fail(fake_drive, output_dir=tmp_path / "file")


def test_checkpoint_of_another_base(fake_drive, tmp_path, out):
    torch.save(build_network("vit_tiny_test").state_dict(), tmp_path / "tiny.pth")
    assert "not of base vit_t" in fail(fake_drive, **{**out, "network_name": "vit_t", "weights": tmp_path / "tiny.pth"})


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_grey_transparent_and_deep_images_are_handled(fake_drive, out, mode):
    for path in (fake_drive / "training/images").iterdir():
        image = Image.open(path)
        (
            image.convert("L").convert("I").point(lambda v: v * 257).convert("I;16")
            if mode == "I;16"
            else image.convert(mode)
        ).save(path.with_suffix(".png"))
        path.unlink()
    train_once(fake_drive, out)
    assert (out["output_dir"] / "adapter.safetensors").is_file()


def test_the_command_line_prints_the_error_alone(fake_drive, tmp_path, out):
    shutil.copy(first_mask(fake_drive), first_mask(fake_drive).with_suffix(".png"))
    done = run(
        "training", CONFIGS / "train.yaml", tmp_path, **SMALL, dataset_name="drive", dataset_dir=fake_drive, **out
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.rstrip().splitlines()[-4].startswith("error: several files for one mask: 25")


def test_adapter_of_another_base(fake_drive, tmp_path, out):
    train_once(fake_drive, out)
    torch.save(build_network("vit_tiny_test", seed=5).state_dict(), tmp_path / "other.pth")
    done = run("inferring", CONFIGS / "inference.yaml", tmp_path, adapter=out["output_dir"] / "adapter.safetensors",
               weights=tmp_path / "other.pth", input=fake_drive / "test/images", output_dir=tmp_path / "p")  # fmt: skip
    assert done.returncode == 1
    assert "error: adapter is for other base weights" in done.stderr
    assert "--weights" in done.stderr
