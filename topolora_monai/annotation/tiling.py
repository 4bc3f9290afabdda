"""What the encoder saw in the tiles of an image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from topolora_monai.annotation.embeddings import Tiles
from topolora_monai.model.tiling import TileGrid
from topolora_monai.networks import SamSegmenter

__all__ = ["EncoderRecorder", "plain_tensor"]


class EncoderRecorder:
    """Runs a network on batches of tiles and keeps what its encoder saw.

    Args:
        network: a :class:`~topolora_monai.networks.SamSegmenter`; of any other nothing is kept.
    """

    def __init__(self, network: Any) -> None:
        self._network = network
        self._features: list[tuple[Tensor, ...]] = []

    def __call__(self, tiles: Tensor) -> Tensor:
        """Logits (B, K, h, w) of tiles (B, C, h, w)."""
        if not isinstance(self._network, SamSegmenter):
            answer: Tensor = self._network(tiles)
            return answer
        features = self._network.features(tiles)
        self._features.append(tuple(feature.to(torch.float16) for feature in features))
        return self._network.decode(features, (tiles.shape[-2], tiles.shape[-1]))

    def tiles(self, grid: TileGrid) -> Tiles | None:
        """What was kept of all tiles of a grid, in half precision, or None."""
        if not self._features:
            return None
        features = tuple(plain_tensor(torch.cat(parts)) for parts in zip(*self._features, strict=True))
        return Tiles(features, tuple(grid.corners), grid.crop)


def plain_tensor(tensor: Tensor) -> Tensor:
    """A tensor of its own memory, without MONAI's metadata, that may be used outside of inference mode."""
    plain = tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
    with torch.inference_mode(False):
        return plain.detach().clone()
