"""Speckle of coherent imaging, added as augmentation or filtered out (synthetic aperture radar, ultrasound)."""

import math
from collections.abc import Hashable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from numpy.typing import NDArray
from scipy.ndimage import correlate
from torch import Tensor

from topolora_monai.errors import ConfigError, unknown_choice

_SCALES = ("amplitude", "intensity", "db")


class _Scale:
    """How an image's values stand for intensity, up to a factor, which neither speckle nor its filter depends on."""

    def __init__(self, pixel_values: str, db_range: float | str | None) -> None:
        if pixel_values not in _SCALES:
            raise unknown_choice("pixel_values", pixel_values, _SCALES)
        if (pixel_values == "db") != (db_range is not None):
            raise ConfigError(
                'db_range belongs to pixel_values "db"',
                expected='a range with "db", none with "amplitude" and "intensity"',
                found=f"pixel_values {pixel_values!r}, db_range {db_range!r}",
            )
        if not (db_range is None or isinstance(db_range, str) or (math.isfinite(db_range) and db_range > 0)):
            raise ConfigError("db_range must be above 0 dB", found=db_range)
        self.pixel_values = pixel_values
        self.db_range = db_range

    def decades(self, data: Mapping[Hashable, Any]) -> Tensor:
        """Decades of intensity that [0, 1] covers, shape () or (C, 1, 1); for decibels only."""
        if isinstance(self.db_range, str):
            limits = torch.as_tensor(data[self.db_range], dtype=torch.float64)
            return ((limits[:, 1] - limits[:, 0]) / 10)[:, None, None]
        assert self.db_range is not None  # as "db" demands
        return torch.tensor(self.db_range / 10, dtype=torch.float64)

    def to_intensity(self, values: Tensor, data: Mapping[Hashable, Any]) -> Tensor:
        """Values to intensity in float64."""
        values = values.double()
        if self.pixel_values == "db":
            return 10 ** (values * self.decades(data))
        return values**2 if self.pixel_values == "amplitude" else values

    def from_intensity(self, intensity: Tensor, data: Mapping[Hashable, Any]) -> Tensor:
        """Inverse of :meth:`to_intensity`."""
        if self.pixel_values == "db":
            decades = self.decades(data)
            return torch.where(decades > 0, intensity.log10() / decades.clamp(min=1e-12), 0)
        return intensity.sqrt() if self.pixel_values == "amplitude" else intensity


class RandSpeckled(RandomizableTransform, MapTransform):
    r"""Multiply by speckle: intensity :math:`I` becomes :math:`I g` with :math:`g \sim \Gamma(L, 1/L)` of mean 1.

    Fully developed speckle averaged over L looks follows this law (Goodman, "Some fundamental properties of
    speckle", 1976). Amplitudes are multiplied by :math:`\sqrt{g}`, and decibels get :math:`10 \log_{10} g` added,
    whose mean is negative. On a scene of L0 looks that leaves 1 / (1/L0 + 1/L + 1/(L0 L)). Pixels are independent.
    Channels that are copies of one picture get the same speckle, polarisations independent ones. The result is clipped
    to [0, 1].

    Args:
        keys: images of shape (C, H, W), values in [0, 1].
        prob: probability of adding any.
        looks: range of L, drawn evenly on a logarithmic scale; one number for always that many.
        pixel_values: what the image holds: ``"intensity"`` or ``"amplitude"`` (0 means no echo), or ``"db"``
            scaled to [0, 1], as :class:`~topolora_monai.transforms.intensity.IntensityScaling` makes of all three.
        db_range: for ``"db"``, how many decibels [0, 1] covers, or the key under which an item holds its limits of
            shape (C, 2), as that class's ``limits`` gives them.
        mask_key: mask of valid pixels, (1, H, W); the others stay as they are. None treats every pixel.

    Raises:
        ConfigError: for looks that are not positive, an unknown kind of values, or a missing or idle ``db_range``.

    Example:
        >>> speckled = RandSpeckled("image", prob=1, looks=4).set_random_state(0)
        >>> noisy = speckled({"image": torch.full((1, 200, 200), 0.1)})["image"]
        >>> mean, looks = noisy.mean(), noisy.mean() ** 2 / noisy.var()
        >>> round(mean.item(), 2), round(looks.item())
        (0.1, 4)
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.5,
        looks: float | tuple[float, float] = (1.0, 8.0),
        pixel_values: Literal["amplitude", "intensity", "db"] = "intensity",
        db_range: float | str | None = None,
        mask_key: str | None = None,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.looks = _range_of_looks(looks)
        self.scale = _Scale(pixel_values, db_range)
        self.mask_key = mask_key
        self.drawn_looks = self.looks[0]

    def randomize(self, data: Any = None) -> None:
        """Draw whether, and how many looks."""
        super().randomize(data)
        low, high = self.looks
        self.drawn_looks = math.exp(self.R.uniform(math.log(low), math.log(high)))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with speckled images, float32."""
        result = dict(data)
        self.randomize()
        if not self._do_transform:
            return result
        for key in self.key_iterator(result):
            image = torch.as_tensor(result[key])
            noisy = self.scale.to_intensity(image, data) * self._speckle(image)
            scaled = self.scale.from_intensity(noisy, data).clamp(0, 1).float()
            result[key] = scaled if self.mask_key is None else torch.where(_mask(data, self.mask_key), scaled, image)
        return result

    def _speckle(self, image: Tensor) -> Tensor:
        copies = bool((image == image[:1]).all())
        shape = (1 if copies else len(image), *image.shape[1:])
        return torch.from_numpy(self.R.gamma(self.drawn_looks, 1 / self.drawn_looks, shape))


class RefinedLeed(MapTransform):
    r"""Despeckle with the refined Lee filter.

    Lee ("Refined filtering of image noise using local statistics", 1981) estimates each pixel from the mean and
    variance around it, :math:`\bar z + b (z - \bar z)` with :math:`b = \mathrm{var}(x) / \mathrm{var}(z)` and
    :math:`\mathrm{var}(x) = (\mathrm{var}(z) - \bar z^2 / L) / (1 + 1 / L)`: their mean where only speckle varies,
    the pixel itself where the scene does. Statistics are taken over the half of the window that lies on the
    pixel's side of the strongest edge, one of eight: left, right, upper, lower, or a triangle. Edges are sought
    among nine overlapping sub-windows' means (3x3 pixels each in a 7x7 window).

    Amplitudes and decibels are filtered as intensities. At the border the image is continued by its mirror image.
    Invalid pixels (outside the mask, or not finite) count nowhere and stay as they are.

    Args:
        keys: images of shape (C, H, W), not negative.
        looks: number of looks L of the image; Sentinel-1 IW ground range products have about 4.4.
        pixel_values: as of :class:`RandSpeckled`, and so is ``db_range``.
        db_range: see there.
        mask_key: mask of valid pixels, (1, H, W); None takes all that are finite.

    Raises:
        ConfigError: as :class:`RandSpeckled`.

    Example:
        >>> speckle = torch.from_numpy(np.random.default_rng(0).gamma(4, 1 / 4, (1, 64, 64))).float()
        >>> filtered = RefinedLeed("image", looks=4)({"image": speckle})["image"]
        >>> bool(filtered.var() < speckle.var() / 8)
        True
    """

    def __init__(
        self,
        keys: KeysCollection,
        looks: float,
        pixel_values: Literal["amplitude", "intensity", "db"] = "intensity",
        db_range: float | str | None = None,
        mask_key: str | None = None,
    ) -> None:
        super().__init__(keys)
        self.looks = _range_of_looks(looks)[0]
        self.scale = _Scale(pixel_values, db_range)
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with filtered images, float32."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = torch.as_tensor(result[key])
            valid = image.isfinite()
            if self.mask_key is not None:
                valid &= _mask(data, self.mask_key)
            intensity = self.scale.to_intensity(image, data).numpy()
            planes = [self._filter(*plane) for plane in zip(intensity, valid.numpy(), strict=True)]
            filtered = self.scale.from_intensity(torch.from_numpy(np.stack(planes)), data).float()
            result[key] = torch.where(valid, filtered, image)
        return result

    def _filter(self, intensity: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
        """One plane; values where not valid are of no account."""
        intensity = np.where(valid, intensity, 0)
        side = self._side_of_edge(intensity, valid)
        mean, variance = np.zeros_like(intensity), np.zeros_like(intensity)
        for index, half in enumerate(_HALF_WINDOWS):
            count = np.maximum(_sum(valid, half), 1)
            half_mean = _sum(intensity, half) / count
            half_variance = _sum(intensity**2, half) / count - half_mean**2
            np.copyto(mean, half_mean, where=side == index)
            np.copyto(variance, half_variance, where=side == index)
        scene = np.maximum(variance - mean**2 / self.looks, 0) / (1 + 1 / self.looks)
        weight = np.divide(scene, variance, out=np.zeros_like(scene), where=scene > 0)
        filtered: NDArray[np.float64] = mean + weight * (intensity - mean)
        return filtered

    def _side_of_edge(self, intensity: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Index into ``_HALF_WINDOWS`` for each pixel."""
        box = np.ones((3, 3))
        count = _sum(valid, box)
        means = _neighbours(_sum(intensity, box) / np.maximum(count, 1))
        known = _neighbours(count > 0)
        centre = means[1][1]
        # A sub-window without data shows no edge, and the pixel does not belong to its side.
        filled = [[np.where(known[y][x], means[y][x], centre) for x in range(3)] for y in range(3)]
        distance = [[np.where(known[y][x], np.abs(means[y][x] - centre), np.inf) for x in range(3)] for y in range(3)]
        contrast, far_side = [], []
        for first, second in _OPPOSITE_SIDES:
            contrast.append(np.abs(sum(filled[y][x] for y, x in first) - sum(filled[y][x] for y, x in second)))
            (near_y, near_x), (far_y, far_x) = first[1], second[1]
            far_side.append(distance[far_y][far_x] < distance[near_y][near_x])
        direction = np.argmax(contrast, axis=0)
        far: NDArray[np.bool_] = np.take_along_axis(np.stack(far_side), direction[None], axis=0)[0]
        side: NDArray[np.int64] = 2 * direction + far
        return side


_OPPOSITE_SIDES = (
    (((0, 0), (1, 0), (2, 0)), ((0, 2), (1, 2), (2, 2))),  # left, right
    (((0, 0), (0, 1), (0, 2)), ((2, 0), (2, 1), (2, 2))),  # upper, lower
    (((0, 1), (0, 0), (1, 0)), ((1, 2), (2, 2), (2, 1))),  # upper left, lower right
    (((0, 1), (0, 2), (1, 2)), ((1, 0), (2, 0), (2, 1))),  # upper right, lower left
)
"""Rows and columns of sub-windows on both sides of an edge, the one in the middle of each side second."""


_Y, _X = np.mgrid[-3:4, -3:4]
_HALF_WINDOWS = np.stack([_X <= 0, _X >= 0, _Y <= 0, _Y >= 0, _X + _Y <= 0, _X + _Y >= 0, _Y <= _X, _Y >= _X]) * 1.0
"""Left, right, upper, lower half and the four triangles of a window, each with the pixel's own line."""


def _sum(plane: NDArray[Any], window: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over the window around each pixel."""
    summed: NDArray[np.float64] = correlate(plane.astype(np.float64), window, mode="reflect")
    return summed


def _neighbours(plane: NDArray[Any]) -> list[list[NDArray[Any]]]:
    """The plane as seen two pixels further up, down, left and right: rows and columns of three."""
    padded = np.pad(plane, 2, mode="symmetric")
    height, width = plane.shape
    offsets = (0, 2, 4)
    return [[padded[y : y + height, x : x + width] for x in offsets] for y in offsets]


def _mask(data: Mapping[Hashable, Any], key: str) -> Tensor:
    return torch.as_tensor(data[key]) > 0.5


def _range_of_looks(looks: float | tuple[float, float]) -> tuple[float, float]:
    low, high = (looks, looks) if isinstance(looks, (int, float)) else looks
    if not 0 < low <= high < math.inf:
        raise ConfigError("looks must be above 0, the lower first", found=looks)
    return float(low), float(high)
