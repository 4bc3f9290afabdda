"""Crops where there is something to learn."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, SpatialCrop

from topolora_monai.errors import ConfigError


class RandForegroundCropd(MapTransform, Randomizable):
    """Crop around a random pixel of the foreground, or anywhere.

    As MONAI's ``RandCropByPosNegLabeld``, but for masks that have a channel for each foreground class and none for the
    background; each class in an image is as likely as the others. Crops keep inside the image. Without foreground they
    lie anywhere.

    Args:
        keys: images and masks of one size, shape (C, H, W), not smaller than the crop.
        label_key: the mask, above 0.5 where there is foreground.
        roi_size: height and width of the crop.
        share: of crops that are centred on foreground.

    Raises:
        ConfigError: for a share outside [0, 1].

    Example:
        >>> mask = torch.zeros(1, 100, 100)
        >>> mask[:, 50, 50] = 1
        >>> crop = RandForegroundCropd("label", "label", (9, 9), share=1.0)
        >>> crop({"label": mask})["label"][0, 4, 4].item()
        1.0
    """

    def __init__(self, keys: KeysCollection, label_key: str, roi_size: Sequence[int], share: float = 0.5) -> None:
        super().__init__(keys)
        if not 0 <= share <= 1:
            raise ConfigError("share of crops centred on foreground", expected="0 to 1", found=share)
        self.label_key = label_key
        self.roi_size = tuple(roi_size)
        self.share = share

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Crop all keys alike."""
        result = dict(data)
        mask = torch.as_tensor(result[self.label_key]).numpy() > 0.5
        start = self._start(mask)
        ends = [low + side for low, side in zip(start, self.roi_size, strict=True)]
        cropper = SpatialCrop(roi_start=start, roi_end=ends)
        for key in self.key_iterator(result):
            result[key] = cropper(result[key])
        return result

    def _start(self, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> list[int]:
        room = [length - side for length, side in zip(mask.shape[1:], self.roi_size, strict=True)]
        centred = self.R.random() < self.share
        start = [int(self.R.randint(most + 1)) for most in room]
        classes = np.flatnonzero(mask.any((1, 2)))
        if not centred or not len(classes):
            return start
        chosen = mask[classes[self.R.randint(len(classes))]]
        pixels = np.flatnonzero(chosen)
        centre = np.unravel_index(pixels[self.R.randint(len(pixels))], chosen.shape)
        return [
            int(np.clip(at - side // 2, 0, most)) for at, side, most in zip(centre, self.roi_size, room, strict=True)
        ]
