"""Running the bundle as its users do, small enough for a test."""

import subprocess
from pathlib import Path

from monai.bundle import ConfigParser

from tests.processes import run_module

BUNDLE = Path(__file__).parents[2] / "bundles" / "topolora_sam_segmentation"
CONFIGS = BUNDLE / "configs"

SMALL = {
    "network_name": "vit_tiny_test",
    "image_size": 64,
    "crop_size": 32,
    "epochs": 2,
    "crops_per_image": 1,
    "precision": "fp32",
    "model#overlap": 0.0,
}


def files(*names: str) -> str:
    """Several configurations of the bundle, as one gives them to MONAI."""
    return str([str(CONFIGS / name) for name in names])


def parsed(*names: str, **options) -> ConfigParser:
    """These configurations with overrides, small enough for a test."""
    parser = ConfigParser()
    parser.read_config([CONFIGS / name for name in names])
    parser.update(SMALL | options)
    return parser


def flatten(options: dict) -> list[str]:
    return [word for key, value in options.items() for word in (f"--{key}", str(value))]


def words(run_id: str, config: str | Path, **options) -> list[str]:
    """What follows ``python -m monai.bundle``."""
    return ["run", run_id, "--config_file", str(config), *flatten(options)]


def run(run_id: str, config: str | Path, cwd: Path, **options) -> subprocess.CompletedProcess:
    return run_module("monai.bundle", *words(run_id, config, **options), cwd=cwd)
