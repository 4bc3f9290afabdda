"""Adapted networks and real images for the tests of exported files."""

import json

import torch
from skimage import data

from topolora_monai.adapters import adapt, preset_config, save_adapter
from topolora_monai.networks import build_network

HEIGHT, WIDTH = 40, 56


def adapted(preset="topolora", network_name="vit_tiny_test"):
    """A network whose adapters no longer do nothing."""
    adaptation = adapt(build_network(network_name, image_size=64), preset_config(preset))
    generator = torch.Generator().manual_seed(1)
    for parameter in adaptation.trainable().values():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return adaptation


def write_adapter(path, *network):
    settings = {"dataset": "drive", "labels": ["background", "vessel"], "image_size": 64, "crop_size": 32,
                "in_channels": 3, "out_channels": 1, "fit": "pad", "threshold": 0.4}  # fmt: skip
    save_adapter(adapted(*network), path, **settings)
    return path


def fundus(count):
    """Pieces of a photograph of a retina, (count, 3, HEIGHT, WIDTH) in [0, 1]."""
    picture = torch.from_numpy(data.retina()[::4, ::4]).permute(2, 0, 1).float() / 255
    return torch.stack([picture[:, 100 + 40 * i :, 90 + 20 * i :][:, :HEIGHT, :WIDTH] for i in range(count)])


def relative_difference(found, expected):
    """Largest difference as a part of the range of what is expected."""
    return float((found - expected).abs().max() / (expected.max() - expected.min()))


def eager(network, image):
    with torch.no_grad():
        return network.eval()(image)


def read_metadata(path):
    """As a user of the file would, without the package."""
    if path.suffix == ".onnx":
        import onnx

        return json.loads({prop.key: prop.value for prop in onnx.load(path).metadata_props}["topolora_monai"])
    files = {"topolora_monai": ""}
    (torch.export.load if path.suffix == ".pt2" else torch.jit.load)(path, **{
        "extra_files" if path.suffix == ".pt2" else "_extra_files": files
    })  # fmt: skip
    return json.loads(files["topolora_monai"])
