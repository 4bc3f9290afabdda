"""Whole images at the one size of a published protocol."""

from __future__ import annotations

from monai.transforms import Resized, ScaleIntensityRanged, TorchVisiond, Transform

__all__ = ["squash"]


def squash(side: int, protocol: str) -> list[Transform]:
    """Transforms by which the authors of a method bring images of any shape to one size, and masks with them.

    Args:
        side: in pixels.
        protocol: of a :class:`~topolora_monai.model.ModelSpec`: ``"published"`` interpolates linearly,
            ``"published_conv_lora"`` by the bicubic filter with antialias, and ``"native"`` leaves images as they are.

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
