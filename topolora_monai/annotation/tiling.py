"""Tiles of an image: what the encoder saw in them, and answers for them put together."""

from __future__ import annotations

from typing import Any

import torch
from monai.data.utils import compute_importance_map
from torch import Tensor

from topolora_monai.annotation.embeddings import Tiles
from topolora_monai.networks import SamSegmenter

__all__ = ["EncoderRecorder", "TileBlend", "plain_tensor"]


class EncoderRecorder:
    """Runs a network on tiles and keeps what its encoder saw and where; for MONAI's inferers ``with_coord``.

    Args:
        network: a :class:`~topolora_monai.networks.SamSegmenter`; of any other nothing is kept.
    """

    def __init__(self, network: Any) -> None:
        self._network = network
        self._features: list[tuple[Tensor, ...]] = []
        self._corners: list[tuple[int, int]] = []

    def __call__(self, windows: Tensor, places: list[list[slice]]) -> Tensor:
        """Logits (B, K, h, w) of windows (B, C, h, w) at the given places of the padded image."""
        if not isinstance(self._network, SamSegmenter):
            answer: Tensor = self._network(windows)
            return answer
        features = self._network.features(windows)
        self._features.append(tuple(feature.to(torch.float16) for feature in features))
        self._corners += [(place[2].start, place[3].start) for place in places]
        return self._network.decode(features, (windows.shape[-2], windows.shape[-1]))

    def tiles(self, padding: tuple[int, int], size: int) -> Tiles | None:
        """What was kept, in half precision, or None; ``padding`` is what was added above and to the left."""
        if not self._features:
            return None
        features = tuple(plain_tensor(torch.cat(parts)) for parts in zip(*self._features, strict=True))
        top, left = padding
        return Tiles(features, tuple((row - top, column - left) for row, column in self._corners), size)


class TileBlend:
    """Answers of overlapping tiles, weighted by MONAI's Gaussian window.

    Args:
        shape: (K, H, W) of the image.
        size: side of a tile.
    """

    def __init__(self, shape: torch.Size, size: int) -> None:
        self._sum, self._weight = torch.zeros(shape), torch.zeros(shape[-2:])
        self._window = compute_importance_map((size, size), mode="gaussian")
        self._size = size

    def add(self, answer: Tensor, row: int, column: int) -> None:
        """Take the answer (K, size, size) of the tile whose first pixel is there, be it outside of the image."""
        height, width = self._weight.shape
        top, left = max(0, row), max(0, column)
        bottom, right = min(height, row + self._size), min(width, column + self._size)
        part = (slice(top - row, bottom - row), slice(left - column, right - column))
        self._sum[:, top:bottom, left:right] += answer[:, part[0], part[1]] * self._window[part]
        self._weight[top:bottom, left:right] += self._window[part]

    def logits(self, elsewhere: Tensor) -> Tensor:
        """The blended answers (K, H, W), and ``elsewhere`` where there is none."""
        return torch.where(self._weight > 0, self._sum / self._weight.clamp(min=1e-12), elsewhere)


def plain_tensor(tensor: Tensor) -> Tensor:
    """A tensor of its own memory, without MONAI's metadata, that may be used outside of inference mode."""
    plain = tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
    with torch.inference_mode(False):
        return plain.detach().clone()
