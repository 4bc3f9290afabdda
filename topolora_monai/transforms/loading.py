"""From an item's paths to tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Transform

from topolora_monai.data.files import read_image, read_mask

__all__ = ["LoadItem"]


class LoadItem(Transform):
    """Read the files of an :class:`~topolora_monai.data.Item` into tensors.

    ``image`` becomes float32 (C, H, W) in [0, 1]; ``label`` and ``fov`` float32 (1, H, W) with 0 and 1. An
    annotated item without a field of view gets one of ones. ``name`` and ``path`` say where it came from.

    Args:
        channels: 1 or 3 channels for the image.

    Raises:
        DataError: for a file that cannot be used.
    """

    def __init__(self, channels: int = 3) -> None:
        self.channels = channels

    def __call__(self, data: Mapping[str, str]) -> dict[str, Any]:
        """Load one item."""
        image = torch.from_numpy(read_image(data["image"], self.channels))
        loaded: dict[str, Any] = {
            "image": image,
            "name": data.get("name", Path(data["image"]).stem),
            "path": data["image"],
        }
        if "label" in data:
            loaded["label"] = torch.from_numpy(read_mask(data["label"])[None]).float()
            loaded["fov"] = (
                torch.from_numpy(read_mask(data["fov"])[None]).float()
                if "fov" in data
                else torch.ones(1, *image.shape[1:])
            )
        return loaded
