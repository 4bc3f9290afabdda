"""How many bits a data set's pictures of 16 bit fill."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from topolora_monai.data.items import Item
from topolora_monai.io import deep_maximum, image_kind
from topolora_monai.transforms.intensity import IntensityScaling

_logger = logging.getLogger(__name__)

_DEPTHS = (8, 10, 12, 14, 16)
"""Of cameras and scanners; 8 where pictures were saved with room to spare."""


def fitted_scaling(items: Sequence[Item], bits: int | Literal["auto"] = "auto", **settings: Any) -> IntensityScaling:
    """Scaling that fits a training split, so that 12 bits of a camera do not come out nearly black.

    Args:
        items: of that split, so that nothing is learned from others.
        bits: that pictures of 16 bit fill; ``"auto"`` takes the least of 8, 10, 12, 14 and 16 that holds every value,
            and 16 where there is no such picture.
        **settings: the other arguments of :class:`~topolora_monai.transforms.IntensityScaling`.

    Raises:
        ConfigError: as that class.
        DataError: for a picture that cannot be read.

    Example:
        >>> fitted_scaling([], pixel_values="db").bits, fitted_scaling([], 12).bits
        (16, 12)
    """
    if bits == "auto":
        bits = bits_for(item_maximum(item) for item in items)
        if bits < 16:
            _logger.info(
                "pictures of 16 bit hold no value above %s: they are divided by it instead of by 65,535 "
                "(bits %d; give --scaling#bits 16 if they were meant to be so dark)",
                f"{2**bits - 1:,}",
                bits,
            )
    return IntensityScaling(bits=bits, **settings)


def bits_for(maxima: Iterable[int | None]) -> int:
    """The least depth that holds values; 16 where there are none.

    Example:
        >>> bits_for([4000, None]), bits_for([1023, 4096]), bits_for([None])
        (12, 14, 16)
    """
    largest = max((maximum for maximum in maxima if maximum is not None), default=65535)
    return next(depth for depth in _DEPTHS if largest < 2**depth)


def item_maximum(item: Item) -> int | None:
    """Largest value of an image that is a picture of 16 bit; None for any other.

    A ``DataError`` if it cannot be read.
    """
    return deep_maximum(item["image"]) if image_kind(item["image"]) == "picture" else None
