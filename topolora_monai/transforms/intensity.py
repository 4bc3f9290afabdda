"""From raw pixel values to what the network takes: the logarithm of radar values, limits per scene, [0, 1]."""

import dataclasses
import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topolora_monai.errors import ConfigError, DataError, unknown_choice

PixelValues = Literal["linear", "amplitude", "intensity", "db"]

_DECIBELS = {"linear": None, "amplitude": 20.0, "intensity": 10.0, "db": None}  # per decade; None leaves values as is


@dataclasses.dataclass(frozen=True)
class IntensityScaling:
    """Scale raw values to [0, 1] between two limits for each channel.

    Radar backscatter spans several decades and is scaled in decibels; anything else (CT, MR, optical) as it is.
    The limits are percentiles of each scene, or one range for all scenes where values are calibrated, such as
    Hounsfield units or sigma nought. Pictures have neither unit nor limits of their own: they are divided by the
    largest value of their bits, when they are read.

    Args:
        pixel_values: ``"linear"`` (used as they are), ``"amplitude"`` (20 log10), ``"intensity"`` (power,
            10 log10) or ``"db"`` (already in decibels).
        percentiles: lower and upper percentile, in [0, 100]; the limits where no ``value_range`` is given.
        value_range: lower and upper limit for every channel and scene, in decibels for ``"amplitude"``,
            ``"intensity"`` and ``"db"``, else in the image's own unit; None takes percentiles.
        bits: that are filled in pictures of 16 bit, 8 to 16; see :func:`~topolora_monai.io.read_picture`.

    Raises:
        ConfigError: for an unknown kind of values, a pair that is not two finite numbers in rising order, or another
            number of bits.

    Example:
        >>> amplitude = np.array([[[0.0, 1.0], [10.0, 100.0]]], np.float32)  # no value, 0, 20 and 40 dB
        >>> scaling = IntensityScaling("amplitude", percentiles=(0, 100))
        >>> scaling.limits(amplitude).round(3).tolist()
        [[0.0, 40.0]]
        >>> scaling(amplitude).round(3).tolist()
        [[[0.0, 0.0], [0.5, 1.0]]]
    """

    pixel_values: PixelValues = "linear"
    percentiles: tuple[float, float] = (1.0, 99.0)
    value_range: tuple[float, float] | None = None
    bits: int = 16

    def __post_init__(self) -> None:
        if self.pixel_values not in _DECIBELS:
            raise unknown_choice("pixel_values", self.pixel_values, _DECIBELS)
        object.__setattr__(self, "percentiles", _rising("percentiles", self.percentiles))
        if self.percentiles[0] < 0 or self.percentiles[1] > 100:
            raise ConfigError("percentiles must be in [0, 100]", found=self.percentiles)
        if self.value_range is not None:
            object.__setattr__(self, "value_range", _rising("value_range", self.value_range))
        if type(self.bits) is not int or not 8 <= self.bits <= 16:
            raise ConfigError("bits must be a whole number from 8 to 16", found=repr(self.bits))

    @property
    def decibels(self) -> bool:
        """Whether what it gives is on a scale of decibels."""
        return self.pixel_values != "linear"

    def limits(self, values: ArrayLike, valid: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Lower and upper limit of each channel of one scene, (C, 2), in decibels where the logarithm is taken.

        Only valid, finite pixels count, and positive ones under the logarithm; a channel without any gets (0, 1).

        Args:
            values: raw values of shape (C, ...).
            valid: of the spatial shape, True where there is data; None takes every pixel.

        Raises:
            DataError: if ``valid`` has another shape.
        """
        channels = np.asarray(values)
        if valid is not None and valid.shape != channels.shape[1:]:
            raise DataError("valid mask and image differ in shape", expected=channels.shape[1:], found=valid.shape)
        if self.value_range is not None:
            return np.tile(np.asarray(self.value_range, np.float64), (len(channels), 1))
        return np.stack([self._percentiles(channel if valid is None else channel[valid]) for channel in channels])

    def apply(self, values: ArrayLike, limits: ArrayLike) -> NDArray[np.float32]:
        """Clip raw values of shape (C, ...) to limits of shape (C, 2), as :meth:`limits` gives, and scale to [0, 1].

        What is not a finite number, or has no logarithm, becomes 0. Where both limits are equal, what lies above
        becomes 1 and everything else 0.

        Raises:
            DataError: if there are limits for another number of channels.
        """
        channels, bounds = np.asarray(values), np.asarray(limits, np.float64)
        if bounds.shape != (len(channels), 2):
            raise DataError("limits do not fit the image's channels", expected=(len(channels), 2), found=bounds.shape)
        scaled = self._decibels(channels)
        scaled[~np.isfinite(scaled)] = -np.inf
        with np.errstate(over="ignore"):  # limits that are equal send everything above to infinity
            for index, (low, high) in enumerate(bounds.tolist()):
                scaled[index] -= low
                scaled[index] /= max(high - low, float(np.finfo(np.float32).tiny))
        return np.clip(scaled, 0, 1, out=scaled)

    def __call__(self, values: ArrayLike, valid: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """One scene scaled by its own limits; arguments as of :meth:`limits`."""
        return self.apply(values, self.limits(values, valid))

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, as stored in adapter files."""
        return dataclasses.asdict(self)

    def _decibels(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """A float32 copy, in decibels where asked for; NaN or -inf where there is no logarithm."""
        scaled = values.astype(np.float32)
        per_decade = _DECIBELS[self.pixel_values]
        if per_decade is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                np.log10(scaled, out=scaled)
            scaled *= per_decade
        return scaled

    def _percentiles(self, pixels: NDArray[Any]) -> NDArray[np.float64]:
        scaled = self._decibels(pixels)
        finite = scaled[np.isfinite(scaled)].astype(np.float64)
        return np.percentile(finite, self.percentiles) if finite.size else np.array([0.0, 1.0])


def _rising(name: str, pair: Any) -> tuple[float, float]:
    try:
        low, high = (float(value) for value in pair)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"{name} must be two numbers, the lower first", found=repr(pair))
    return low, high
