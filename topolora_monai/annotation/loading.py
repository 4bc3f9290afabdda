"""Images as an adapter was trained on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.transforms import Compose

from topolora_monai.transforms import GreenClahed, IntensityScaling, LoadItem, RefinedLeed

__all__ = ["loading_transforms"]


def loading_transforms(header: Mapping[str, Any], **label_options: Any) -> Compose:
    """How an adapter's images are read and prepared, as the bundles' ``inference.yaml`` does.

    Args:
        header: of an adapter file.
        **label_options: ``label_values`` and ``label_channels`` of :class:`~topolora_monai.transforms.LoadItem`.

    Raises:
        ConfigError: for settings that are not possible.
    """
    known = {name: header[name] for name in ("pixel_values", "percentiles", "value_range", "bits") if header.get(name)}
    scaling = IntensityScaling(**known)
    decibels = scaling.pixel_values != "linear"
    steps: list[Any] = [LoadItem(int(header.get("in_channels") or 3), scaling, **label_options)]
    if header.get("clahe"):
        steps.append(GreenClahed(keys="image", mask_key="fov"))
    if header.get("despeckle_looks"):
        steps.append(
            RefinedLeed(
                keys="image",
                looks=header["despeckle_looks"],
                pixel_values="db" if decibels else "amplitude",
                db_range="limits" if decibels else None,
                mask_key="fov",
            )
        )
    return Compose(steps)
