"""Images as an adapter was trained on them."""

from __future__ import annotations

from typing import Any

from monai.transforms import Compose

from topolora_monai.model.spec import ModelSpec
from topolora_monai.transforms import GreenClahed, LoadItem, RefinedLeed

__all__ = ["loading_transforms"]


def loading_transforms(spec: ModelSpec, **label_options: Any) -> Compose:
    """How an adapter's images are read and prepared, as the bundles' ``inference.yaml`` does.

    Args:
        spec: of the model.
        **label_options: ``label_values`` and ``label_channels`` of :class:`~topolora_monai.transforms.LoadItem`.
    """
    decibels = spec.pixel_values != "linear"
    steps: list[Any] = [LoadItem(spec.in_channels, spec.scaling, **label_options)]
    if spec.clahe:
        steps.append(GreenClahed(keys="image", mask_key="fov"))
    if spec.despeckle_looks is not None:
        steps.append(
            RefinedLeed(
                keys="image",
                looks=spec.despeckle_looks,
                pixel_values="db" if decibels else "amplitude",
                db_range="limits" if decibels else None,
                mask_key="fov",
            )
        )
    return Compose(steps)
