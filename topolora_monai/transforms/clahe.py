"""Local contrast of fundus photographs."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from skimage.exposure import equalize_adapthist

from topolora_monai.errors import ConfigError, DataError

_BINS = 256


class GreenClahed(MapTransform):
    """Replace a fundus photograph by its green channel after CLAHE, repeated to all channels.

    Vessels contrast best with the background in green. Contrast limited adaptive histogram equalisation (Zuiderveld,
    "Contrast limited adaptive histogram equalization", 1994; by scikit-image) then evens out illumination and
    stretches the result to [0, 1].

    Args:
        keys: images of shape (3, H, W) or, already grey, (1, H, W), values in [0, 1].
        clip_limit: height a histogram bin may reach, in multiples of the flat histogram's, above 1.
        tiles: number of tiles along each axis.
        mask_key: field of view of shape (1, H, W), whose surroundings are filled with the nearest pixel inside first,
            or they would count along its border, and are 0 afterwards; None equalises the whole picture.

    Raises:
        ConfigError: for a clip limit of 1 or less, or no tiles.
        DataError: for an image with another number of channels, when called.

    Example:
        >>> image = torch.zeros(3, 64, 64)
        >>> image[1] = torch.linspace(0.2, 0.4, 64)  # low contrast, in green only
        >>> equalised = GreenClahed("image")({"image": image})["image"]
        >>> equalised.shape, equalised.min().item(), equalised.max().item()
        (torch.Size([3, 64, 64]), 0.0, 1.0)
    """

    def __init__(
        self, keys: KeysCollection, clip_limit: float = 2.0, tiles: int = 8, mask_key: str | None = None
    ) -> None:
        super().__init__(keys)
        if not clip_limit > 1:
            raise ConfigError("clip_limit must be above 1, the flat histogram", found=clip_limit)
        if tiles < 1:
            raise ConfigError("there must be at least one tile along each axis", found=tiles)
        self.clip_limit = clip_limit
        self.tiles = tiles
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with equalised images, float32 in [0, 1]."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = torch.as_tensor(result[key])
            if len(image) not in (1, 3):
                raise DataError(
                    "not a colour or grey image", expected="1 or 3 channels", found=f"{len(image)}, key {key!r}"
                )
            plane = image[len(image) // 2].numpy().astype(np.float64)  # green of three, or the only one
            inside = None if self.mask_key is None else torch.as_tensor(data[self.mask_key])[0].numpy() > 0.5
            equalised = torch.from_numpy(self._equalise(plane, inside)).float()
            result[key] = equalised.expand_as(image).contiguous()
        return result

    def _equalise(self, plane: NDArray[np.float64], inside: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        if inside is not None:
            if not inside.any():
                return np.zeros_like(plane)
            nearest = distance_transform_edt(~inside, return_distances=False, return_indices=True)
            plane = plane[tuple(nearest)]
        if plane.min() == plane.max():  # no contrast to stretch
            return plane if inside is None else plane * inside
        equalised: NDArray[np.float64] = equalize_adapthist(
            plane,
            kernel_size=[max(1, -(-side // self.tiles)) for side in plane.shape],
            clip_limit=self.clip_limit / _BINS,
            nbins=_BINS,
        )
        return equalised if inside is None else equalised * inside
