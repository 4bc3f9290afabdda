"""A briefly trained adapter and generated vessels, made once."""

import numpy as np
import pytest
import torch
from PIL import Image

from topolora_monai.adapters import adapt, preset_config, save_adapter
from topolora_monai.data.synthetic_vessels import draw_sample
from topolora_monai.losses import TopologyLoss
from topolora_monai.networks import build_network

CROP = 64
PROPERTIES = {
    "image_size": 128, "crop_size": CROP, "in_channels": 3, "out_channels": 1, "fit": "pad", "threshold": 0.5,
    "labels": ["background", "vessel"], "activation": "sigmoid",
}  # fmt: skip


def write_sample(folder, number, size=128):
    image, mask, _ = draw_sample(np.random.default_rng([7, number]), size)
    paths = folder / f"{number:02d}.png", folder / f"{number:02d}_label.png"
    for path, array in zip(paths, (image, mask), strict=True):
        Image.fromarray(array).save(path)
    return paths


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    """Six pairs of (image, label), 128x128."""
    folder = tmp_path_factory.mktemp("vessels")
    return [write_sample(folder, number) for number in range(6)]


@pytest.fixture(scope="session")
def adapter(tmp_path_factory, samples):
    """An adapter file, trained for a few steps on the first four samples."""
    torch.manual_seed(0)
    network = build_network("vit_tiny_test", image_size=128)
    adaptation = adapt(network, preset_config("topolora", lora={"rank": 4, "dropout": 0.1}))
    images, masks = zip(*[(np.array(Image.open(i)), np.array(Image.open(m))) for i, m in samples[:4]], strict=True)
    image = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    mask = (torch.from_numpy(np.stack(masks))[:, None] > 0).float()
    optimizer = torch.optim.AdamW(adaptation.trainable().values(), lr=4e-3)
    loss, corners = TopologyLoss({"bce": 1.0, "dice": 1.0}), [(0, 0), (0, 64), (64, 0), (64, 64)]
    network.train()
    for step in range(16):
        row, column = corners[step % 4]
        window = (..., slice(row, row + CROP), slice(column, column + CROP))
        optimizer.zero_grad()
        loss(network(image[window]), mask[window]).backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("adapter") / "adapter.safetensors"
    save_adapter(adaptation, path, **PROPERTIES)
    return path
