"""How large an image may be, found out before it is decoded."""

from __future__ import annotations

import math
from pathlib import Path

from topolora_monai.errors import DataError
from topolora_monai.io.images import image_kind, image_size
from topolora_monai.io.pictures import picture_size
from topolora_monai.io.volumes import volume_shape

__all__ = ["ImageTooLargeError", "check_image_size", "image_shape"]


class ImageTooLargeError(DataError):
    """An image with more pixels than the server takes."""


def image_shape(path: str | Path) -> tuple[int, ...]:
    """(height, width) of an upright picture or raster, (slices, rows, columns) of a volume, from the file's header.

    Raises:
        DataError: if it cannot be read.
    """
    kind = image_kind(path)
    if kind == "volume":
        return tuple(volume_shape(path))
    if kind == "raster":
        return image_size(path)
    return picture_size(path)


def check_image_size(path: str | Path, max_pixels: int) -> None:
    """Refuse an image that would take more memory than the server wants to give.

    Args:
        path: of the image.
        max_pixels: most pixels, or voxels of a volume.

    Raises:
        ImageTooLargeError: if it has more.
        DataError: if it cannot be read.
    """
    shape = image_shape(path)
    if math.prod(shape) > max_pixels:
        raise ImageTooLargeError(
            "image is too large",
            expected=f"at most {max_pixels:,} pixels",
            found=" x ".join(str(side) for side in shape),
            hint="reduce it, or start the server with another --max_megapixels",
        )
