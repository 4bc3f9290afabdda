"""From an item's paths to tensors."""

import math
from collections.abc import Hashable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Resized, ScaleIntensityRanged, TorchVisiond, Transform
from numpy.typing import NDArray
from torch import Tensor

from topolora_monai.errors import DataError
from topolora_monai.io import (
    ImageData,
    LabelValues,
    read_image,
    read_labels,
    read_mask,
    read_volume,
    volume_state,
)
from topolora_monai.io.rasters import open_raster, read_bands
from topolora_monai.metrics import class_masks
from topolora_monai.transforms.intensity import IntensityScaling

_LIMITS_PIXELS = 1_000_000


class LoadItem(Transform):
    """Read the files of an :class:`~topolora_monai.data.Item` into tensors.

    - ``image``: float32 (C, H, W) in [0, 1];
    - ``label``: float32 (1, H, W) with class numbers, or (K, H, W), 1 where the pixel is of class 1 to K, all 0 in
      the background;
    - ``fov``: float32 (1, H, W), 1 where the image holds data, somebody annotated it and it lies in the field of
      view, if there is one;
    - ``limits``: float64 (C, 2), what a raster or volume was scaled between, 0 and 1 for pictures;
    - ``name``, ``path``, and ``axis`` and ``slice`` of a volume: where it came from.

    Args:
        channels: of the image.
        scaling: for rasters and volumes, whose values have units; its limits are taken from the whole scene or
            volume, never from a crop or a slice. Of pictures it says how many bits are filled.
        label_values: of the data set, see :func:`~topolora_monai.io.read_labels`.
        label_channels: K, to have a channel for each foreground class, which transforms of masks can work on one by
            one; None for class numbers.

    Raises:
        DataError: for a file that cannot be used, or a mask with more classes.
    """

    def __init__(
        self,
        channels: int = 3,
        scaling: IntensityScaling | None = None,
        label_values: LabelValues | None = None,
        label_channels: int | None = None,
    ) -> None:
        self.channels = channels
        self.scaling = scaling or IntensityScaling()
        self.label_values = label_values
        self.label_channels = label_channels

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Load one item."""
        axis, index = data.get("axis"), data.get("slice")
        image = read_image(data["image"], self.channels, axis, index, self.scaling.bits)
        limits = self._limits(data["image"], image)
        values = image.values if limits is None else self.scaling.apply(image.values, limits)
        valid = image.valid
        loaded: dict[str, Any] = {
            "image": torch.from_numpy(values * valid),
            "limits": torch.from_numpy(np.tile([0.0, 1.0], (len(values), 1)) if limits is None else limits),
            "name": data.get("name", Path(data["image"]).stem),
            "path": data["image"],
            **{key: data[key] for key in ("axis", "slice", "group") if key in data},
        }
        if "label" in data:
            classes, known = read_labels(data["label"], self.label_values, axis, index, like=data["image"])
            loaded["label"] = self._label(classes, data["label"])
            valid = valid if known is None else valid & known
        if "fov" in data:
            valid = valid & (read_mask(data["fov"], axis, index, like=data["image"]) > 0)
        loaded["fov"] = torch.from_numpy(valid[None]).float()
        return loaded

    def _label(self, classes: NDArray[np.uint8], path: str) -> Tensor:
        if self.label_channels is None:
            return torch.from_numpy(classes[None]).float()
        if classes.max(initial=0) > self.label_channels:
            raise DataError(
                "mask has more classes than the network",
                path=path,
                expected=f"class numbers 0 to {self.label_channels}",
                found=int(classes.max()),
                hint="give --classes all names, the background first",
            )
        return torch.from_numpy(class_masks(classes, self.label_channels)).float()

    def _limits(self, path: str, image: ImageData) -> NDArray[np.float64] | None:
        if image.scaled:
            return None
        if image.kind == "volume":
            limits = _volume_limits(path, volume_state(path), self.scaling)
            return np.repeat(limits, len(image.values), axis=0)
        return raster_limits(path, self.channels, self.scaling)


def raster_limits(path: str | Path, channels: int, scaling: IntensityScaling) -> NDArray[np.float64]:
    """What the values of a raster of measurements are scaled between, shape (C, 2).

    They are those of every n-th of its pixels, about a million in all, so that rasters of any size have some, whether
    they are read whole or not. A ``DataError``, as :func:`~topolora_monai.io.read_image`.
    """
    if scaling.value_range is not None:
        return scaling.limits(np.empty((channels, 0)))
    import rasterio  # noqa: PLC0415 - an optional dependency

    # Averaged overviews, which GDAL would take, have less speckle and so narrower limits.
    with open_raster(path), rasterio.open(path, OVERVIEW_LEVEL="NONE") as source:
        step = max(1.0, math.sqrt(source.height * source.width / _LIMITS_PIXELS))
        shape = (max(1, int(source.height / step)), max(1, int(source.width / step)))
        return scaling.limits(*read_bands(source, channels, out_shape=shape))


def squash(side: int, protocol: str) -> list[Transform]:
    """Transforms by which the authors of a method bring images of any shape to one size, and masks with them.

    The ``protocol`` of a :class:`~topolora_monai.model.ModelSpec` is ``"published"``, which interpolates linearly,
    ``"published_conv_lora"``, by the bicubic filter with antialias, or ``"native"``, which leaves images as they are.

    Example:
        >>> [type(transform).__name__ for transform in squash(384, "published")], squash(384, "native")
        (['Resized'], [])
    """
    size = (side, side)
    if protocol == "native":
        return []
    if protocol == "published":
        return [Resized(["image", "label", "fov"], size, mode=["bilinear", "nearest-exact", "nearest-exact"])]
    return [
        TorchVisiond("image", "Resize", size=list(size), interpolation=3, antialias=True),  # bicubic
        ScaleIntensityRanged("image", a_min=0.0, a_max=1.0, b_min=0.0, b_max=1.0, clip=True),
        Resized(["label", "fov"], size, mode="nearest-exact"),
    ]


@lru_cache(maxsize=64)
def _volume_limits(path: str, state: Hashable, scaling: IntensityScaling) -> NDArray[np.float64]:
    """Limits of a whole volume, shape (1, 2); ``state`` keeps those of an older file from being used."""
    values = read_volume(path)
    return scaling.limits(values[None], np.isfinite(values))
