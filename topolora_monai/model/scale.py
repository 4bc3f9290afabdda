"""The pixel scale of new images beside that of a model's training."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from topolora_monai.data import Item
from topolora_monai.data.fields_of_view import view_diameter
from topolora_monai.errors import ConfigError, DataError
from topolora_monai.io import image_kind
from topolora_monai.spec import ModelSpec

__all__ = ["MatchScale", "PixelScale", "ScaleMatch"]

_logger = logging.getLogger(__name__)

_RATIOS = (1 / 16, 16)
_LEAST_CROP = 16
_BY_HAND = "give the ratio of the two scales, such as --match_scale 1.7"


class PixelScale(NamedTuple):
    """How large things are in images, in pixels; None for what is not known.

    Attributes:
        view_diameter: of the field of view.
        thickness: of the thinnest class, along its skeleton.
    """

    view_diameter: float | None = None
    thickness: float | None = None


MatchScale = bool | float | str | PixelScale | None
"""Whether and how the scale of new images is matched, see :class:`ScaleMatch`."""


class ScaleMatch:
    """How large tiles of new images are, so that structures in them look as large as in training.

    A network that has learnt vessels three pixels wide misses those of a camera that draws them five pixels wide. Its
    tiles are enlarged to one size anyway, so tiles that are larger by the same ratio bring them back.

    Args:
        spec: of the model, which knows the scale of its training images.
        match: False or None for tiles as in training; True to find the ratio of each image from its field of view; a
            number, which is the ratio; ``"5.1px"``, how thick the new structures are; or the scale of the new images.

    Raises:
        ConfigError: if the model does not know the scale that is to be compared, or the ratio is not possible.

    Example:
        >>> import torch
        >>> model = {"network_name": "vit_t", "base_sha256": 64 * "0", "adaptation": {}, "package_version": "1.0"}
        >>> drive = ModelSpec(**model, crop_size=192, view_diameter=540.0, thickness=3.0)
        >>> ScaleMatch(drive, 1.7).crop_size, ScaleMatch(drive, "4.5px").crop_size
        (326, 288)
        >>> rows, columns = np.ogrid[:700, :700]
        >>> image = np.float32(0.5 * ((rows - 350) ** 2 + (columns - 350) ** 2 < 325**2))[None]
        >>> ScaleMatch(drive, True).crop_of(torch.from_numpy(image))
        231
    """

    def __init__(self, spec: ModelSpec, match: MatchScale = False) -> None:
        self._spec = spec
        wanted = _wanted(match)
        self.by_view = wanted is True
        """Whether each image has a ratio of its own."""
        self._by = "nothing"
        self._ratios: list[float] = []
        self._without: list[str] = []
        if wanted is not False and spec.protocol != "native":
            raise ConfigError(
                "the scale of images cannot be matched: the model takes them whole, squashed to its size",
                expected="a model of protocol native",
                found=spec.protocol,
                hint="leave --match_scale out",
            )
        if wanted is True:
            self._trained("view_diameter")
            self._by, self.crop_size = "field of view", spec.crop_size
            return
        ratio = 1.0
        if isinstance(wanted, PixelScale):
            ratio = self._ratio_to(wanted)
        elif wanted is not False:
            self._by, ratio = "given", wanted
        self.crop_size = self._crop(ratio)
        """Side of tiles in pixels; that of training where each image has its own."""
        if wanted is not False:
            self._ratios = [ratio]

    def crop_of(self, image: Tensor) -> int:
        """Side of an image's tiles in pixels.

        Args:
            image: (C, H, W) in [0, 1].

        Raises:
            DataError: if no field of view is found in it, and none was in others that :meth:`survey` has seen.
            ConfigError: if its ratio is not possible.
        """
        if not self.by_view:
            return self.crop_size
        return self._crop(self._ratio_of(image) or self._typical("the image"))

    def survey(self, items: Sequence[Item], load: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        """Find the ratios of images before the first is segmented, and log them.

        An image without a field of view gets the others' median, and is named.

        Args:
            items: the images.
            load: from an item to its ``image``, (C, H, W) in [0, 1].

        Raises:
            DataError: if no image has a field of view, or one cannot be read.
            ConfigError: for a scene, of which none is looked for, and if a ratio is not possible.
        """
        if not self.by_view:
            if self._ratios:
                _logger.info("%s", self._said())
            return
        self._ratios, self._without = [], []
        for item in items:
            if image_kind(item["image"]) == "raster":
                raise ConfigError("no field of view is looked for in scenes", path=item["image"], hint=_BY_HAND)
            ratio = self._ratio_of(load({key: value for key, value in item.items() if key not in _TRUTH})["image"])
            if ratio is None:
                self._without.append(item["name"])
            else:
                self._crop(ratio)
                self._ratios.append(ratio)
        if items:
            self._typical(f"any of {len(items)} images" if len(items) > 1 else str(items[0]["image"]))
            _logger.info("%s", self._said())
        if self._without:
            _logger.warning("no field of view in %s: they get the others' median", ", ".join(self._without))

    def record(self) -> dict[str, Any] | None:
        """What was used, for a summary: by what it was found, and the ratios; None where nothing is matched."""
        if not self._ratios:
            return None
        least, most = min(self._ratios), max(self._ratios)
        ratios = {"ratio": float(np.median(self._ratios)), "least": least, "most": most}
        return {"by": self._by, **ratios, "without_field_of_view": list(self._without)}

    def _said(self) -> str:
        least, most = self._crop(min(self._ratios)), self._crop(max(self._ratios))
        sides = f"{least} px" if least == most else f"{least} to {most} px"
        share = f"{np.median(self._ratios):.2f}"
        return f"scale matched by {self._by}, ratio {share}: tiles of {sides}, in training {self._spec.crop_size}"

    def _ratio_of(self, image: Tensor) -> float | None:
        diameter = view_diameter(np.asarray(image.detach().cpu().float()))
        return None if diameter is None else diameter / self._trained("view_diameter")

    def _typical(self, of: str) -> float:
        if not self._ratios:
            raise DataError(
                f"no field of view was found in {of}, so its pixel scale is not known",
                expected="a lit disc in a dark surround",
                hint=_BY_HAND + (", or their thickness, such as 5.1px" if self._spec.thickness else ""),
            )
        return float(np.median(self._ratios))

    def _ratio_to(self, scale: PixelScale) -> float:
        if scale.view_diameter and self._spec.view_diameter:
            self._by = "field of view"
            return scale.view_diameter / self._spec.view_diameter
        self._by = "thickness"
        if scale.thickness is None:
            raise ConfigError("nothing is known of the new images' pixel scale", found=scale, hint=_BY_HAND)
        return scale.thickness / self._trained("thickness")

    def _trained(self, name: str) -> float:
        value: float | None = getattr(self._spec, name)
        if value is None:
            raise ConfigError(
                "the model does not know the pixel scale that it was trained at",
                expected=f"{name} in the adapter file",
                found="none: its training images show none, or it was trained by an older version",
                hint=f"give --{name} of its training images, in pixels; or {_BY_HAND.removeprefix('give ')}",
            )
        return value

    def _crop(self, ratio: float) -> int:
        side = round(self._spec.crop_size * min(ratio, 2 * _RATIOS[1]))
        if not _RATIOS[0] <= ratio <= _RATIOS[1] or side < _LEAST_CROP:
            raise ConfigError(
                "the scale of the new images is too far from that of training",
                expected=f"a ratio from 1/16 to 16, and tiles of {_LEAST_CROP} px at least",
                found=f"ratio {ratio:.3g}, of tiles of {self._spec.crop_size} px",
                hint="is it the ratio of new to training pixels? If so, resize the images",
            )
        return side


_TRUTH = ("label", "fov", "second_label")


def _wanted(match: MatchScale) -> bool | float | PixelScale:
    word = match.strip().lower() if isinstance(match, str) else match
    if isinstance(word, PixelScale):
        return word
    if word is None or word in (False, "false"):
        return False
    if word is True or word == "true":
        return True
    if isinstance(word, str):
        thick = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?) ?px", word)
        if thick and float(thick[1]):
            return PixelScale(thickness=float(thick[1]))
    elif isinstance(word, int | float) and word > 0:
        return float(word)
    raise ConfigError(
        "wrong match_scale",
        expected="true, false, a ratio above 0, a thickness such as 5.1px, or a plan.yaml of the new images",
        found=repr(match),
    )
