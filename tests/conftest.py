"""Shared fixtures: generated images, a tiny network, and real files where they are at hand."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("TOPOLORA_SHARED", ROOT.parent / "shared"))


def pytest_configure(config):
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"  # and in what tests start


def _real(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"needs real files that are not here: {path.name} (set TOPOLORA_SHARED)")
    return path


@pytest.fixture
def real_drive() -> Path:
    return _real(SHARED / "data" / "DRIVE")


@pytest.fixture
def real_data():
    """Path of one of the real copies, by its folder's name."""
    return lambda name: _real(SHARED / "data" / name)


@pytest.fixture
def mobile_sam() -> Path:
    return _real(SHARED / "weights" / "mobile_sam.pt")


@pytest.fixture
def mobile_sam_reference(mobile_sam) -> Path:
    return _real(mobile_sam.with_name("mobile_sam_reference.npz"))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def write_image(tmp_path):
    """Write an array to ``tmp_path / name`` and return the path."""

    def write(name: str, array: np.ndarray, **kwargs) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path, **kwargs)
        return path

    return write


@pytest.fixture
def fake_drive(tmp_path):
    """A tiny data set in DRIVE's layout, with its odd formats: 6 training images, 2 test images of 72x64."""
    return write_fake_drive(tmp_path / "DRIVE")


def write_fake_drive(root):
    """The same below a folder, which is given back."""
    rng = np.random.default_rng(0)
    for part, numbers, tag in (("training", (21, 22, 23, 24, 25, 26), "training"), ("test", (1, 2), "test")):
        for number in numbers:
            mask = np.zeros((64, 72), np.uint8)
            mask[10:54, 10 + number % 8 : 13 + number % 8] = 255
            mask[30:33, 8:60] = 255
            image = rng.integers(120, 160, (64, 72, 3), dtype=np.uint8)
            image[mask > 0] //= 2
            fov = np.zeros((64, 72), np.uint8)
            fov[4:60, 4:68] = 255
            stem = f"{number:02d}"
            files = [
                (f"images/{stem}_{tag}.tif", image),
                (f"1st_manual/{stem}_manual1.gif", mask),
                (f"mask/{stem}_{tag}_mask.gif", fov),
            ]
            if part == "test":
                files.append((f"2nd_manual/{stem}_manual2.gif", mask))
            for name, array in files:
                path = root / part / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    return root


@pytest.fixture
def tiny_network():
    from topolora_monai.networks import build_network

    return build_network("vit_tiny_test", image_size=64)
