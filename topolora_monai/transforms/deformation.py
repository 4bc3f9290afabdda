"""Deformation that leaves thin structures in one piece, and their exact skeletons."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_tensor, ensure_tuple_rep
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.ndimage import binary_erosion, binary_fill_holes, map_coordinates
from skimage.morphology import skeletonize
from torch import Tensor
from torch.nn import functional as F

from topolora_monai.errors import ConfigError, DataError, unknown_choice

_LARGEST_SHIFT = 0.25  # of the spacing
_STEPS = 40  # the error shrinks at least to three quarters in each
_CLOSE_ENOUGH = 0.01  # pixels
_FOUR_AROUND = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], bool)


class ExactSkeletond(MapTransform):
    """Add the topological skeleton of a binary mask (Zhang-Suen thinning by scikit-image), as ``label_skeleton``.

    A 512x512 mask takes about 4 ms, a soft skeleton of it some forty times as long. To be placed after all
    spatial augmentation, since resampling breaks lines of one pixel.

    Args:
        keys: masks of shape (C, H, W), foreground above 0.5.

    Example:
        >>> mask = torch.zeros(1, 7, 7)
        >>> mask[:, 2:5, 1:6] = 1
        >>> skeleton = ExactSkeletond("label")({"label": mask})["label_skeleton"]
        >>> bool(0 < skeleton.sum() < 6), bool((skeleton <= mask).all())
        (True, True)
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add skeletons as float32 tensors of the masks' shapes."""
        result = dict(data)
        for key in self.key_iterator(result):
            masks = torch.as_tensor(result[key]).numpy() > 0.5
            skeletons = [torch.from_numpy(skeletonize(mask)) for mask in masks]
            result[f"{key}_skeleton"] = torch.stack(skeletons).float()
        return result


class RandConnectedElasticd(RandomizableTransform, MapTransform):
    """Rotate, scale and bend images and masks; lines of one pixel stay connected.

    Resampling a mask by its nearest pixel breaks thin lines. Here the mask's skeleton is moved as a drawing, each
    link between neighbouring pixels as a straight stroke, and united with the mask sampled linearly and cut at one
    half: strokes join where their pixels did, and lie inside where the structure is wider. Single background pixels
    left between both are filled. What lies less than two pixels apart may merge, and holes of one or two may close.

    The elastic part is a cubic B-spline on a grid of control points (Rueckert et al., "Nonrigid registration using
    free-form deformations", 1999) moved by at most a quarter of their spacing, which keeps the map one-to-one.
    What comes from beyond the frame is 0. A crop of 288x288 pixels takes about 10 ms.

    Args:
        keys: tensors of shape (C, H, W), all of one height and width.
        mode: how to sample each key, one for all or one for each: ``"bilinear"`` for images; ``"connected"`` for
            masks of thin structures, 0 and 1, each channel by itself; ``"inside"`` for fields of view, 1 where
            everything the other modes look at is inside; ``"nearest"`` for indices of classes.
        prob: probability of a deformation.
        rotate_range: largest angle in radians, either way.
        scale_range: smallest and largest factor by which things grow, drawn evenly on a logarithmic scale.
        spacing: distance of control points in pixels.
        magnitude_range: range of the largest shift of a control point in pixels; the image itself moves about a
            quarter of it (root mean square). (0, 0) bends nothing.

    Raises:
        ConfigError: for an unknown mode, a scale that is not positive, or a magnitude above a quarter of the spacing.
        DataError: for keys of different size, when called.

    Example:
        >>> import scipy
        >>> line = torch.zeros(1, 64, 64)
        >>> line[0, 20:44, 32] = 1
        >>> bend = RandConnectedElasticd(["image", "label"], mode=["bilinear", "connected"], prob=1)
        >>> bent = bend.set_random_state(0)({"image": line, "label": line})["label"]
        >>> scipy.ndimage.label(bent[0] > 0, structure=np.ones((3, 3)))[1]
        1
    """

    def __init__(
        self,
        keys: KeysCollection,
        mode: str | Sequence[str] = "bilinear",
        prob: float = 0.5,
        rotate_range: float = math.pi,
        scale_range: tuple[float, float] = (0.8, 1.25),
        spacing: float = 48.0,
        magnitude_range: tuple[float, float] = (0.0, 10.0),
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        for name in self.mode:
            if name not in _SAMPLERS:
                raise unknown_choice("mode", name, _SAMPLERS)
        if not 0 < scale_range[0] <= scale_range[1] < math.inf:
            raise ConfigError("scale_range must be above 0, the lower first", found=scale_range)
        if not 0 <= magnitude_range[0] <= magnitude_range[1] <= _LARGEST_SHIFT * spacing:
            raise ConfigError(
                "magnitude_range does not fit the spacing of control points",
                expected=f"0 to {_LARGEST_SHIFT * spacing:g} pixels, a quarter of spacing, the lower first",
                found=magnitude_range,
                hint="shift control points less, or put them further apart",
            )
        self.rotate_range = rotate_range
        self.scale_range = scale_range
        self.spacing = spacing
        self.magnitude_range = magnitude_range

    def randomize(self, size: tuple[int, int]) -> _Warp | None:
        """Draw whether, and which deformation of a frame of (H, W) pixels."""
        super().randomize(None)
        if not self._do_transform:
            return None
        angle = self.R.uniform(-self.rotate_range, self.rotate_range)
        scale = math.exp(self.R.uniform(*np.log(self.scale_range)))
        magnitude = self.R.uniform(*self.magnitude_range)
        points = [math.ceil(side / self.spacing) + 3 for side in size]
        shifts = self.R.uniform(-magnitude, magnitude, (2, *points))
        return _Warp(size, angle, scale, shifts, self.spacing)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with its keys deformed, float32 and without metadata, whose geometry no longer holds."""
        result = dict(data)
        arrays = {key: convert_to_tensor(result[key]) for key in self.key_iterator(result)}
        sizes = {key: tuple(array.shape[1:]) for key, array in arrays.items()}
        height, *width = next(iter(sizes.values()))
        if len(width) != 1 or len(set(sizes.values())) > 1:
            raise DataError("keys to deform together must be (C, H, W) of one size", found=sizes)
        warp = self.randomize((height, width[0]))
        if warp is not None:
            for key, mode in self.key_iterator(result, self.mode):
                result[key] = _SAMPLERS[mode](arrays[key].float(), warp)
        return result


class _Warp:
    """A one-to-one map of the frame, from each pixel of the result to where it comes from, and back.

    Pixels are (row, column). The source of pixel o is ``centre + linear @ (o + shift(o) - centre)``.
    """

    def __init__(
        self, size: tuple[int, int], angle: float, scale: float, control: NDArray[np.float64], spacing: float
    ) -> None:
        cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
        self.size = size
        self.linear = np.array([[cos, -sin], [sin, cos]])
        self.centre = (np.array(size) - 1) / 2
        rows, columns = (
            _spline_weights(side, count, spacing) for side, count in zip(size, control.shape[1:], strict=True)
        )
        self.shift = rows @ control @ columns.T
        moved = np.moveaxis(np.indices(size) + self.shift, 0, -1)
        source = (moved - self.centre) @ self.linear.T + self.centre
        normalised = (2 * source[..., ::-1] + 1) / np.array(size[::-1]) - 1  # (x, y), as grid_sample takes them
        self.grid = torch.from_numpy(normalised.astype(np.float32))[None]

    def sample(self, values: Tensor, mode: str = "bilinear") -> Tensor:
        """Values of shape (C, H, W) at the sources; 0 beyond the frame."""
        return F.grid_sample(values[None], self.grid, mode, "zeros", align_corners=False)[0]

    def forward(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where points of the source, (N, 2), come to lie.

        Solves o = q - shift(o), where q undoes the linear part. A cubic B-spline of controls within m changes by at
        most 3 m / spacing a pixel, 3/4 here, so that each step shrinks the error.
        """
        undone: NDArray[np.float64] = (points - self.centre) @ np.linalg.inv(self.linear).T + self.centre
        found = undone
        for _ in range(_STEPS):
            shift = np.stack([map_coordinates(plane, found.T, order=1, mode="nearest") for plane in self.shift], -1)
            previous, found = found, undone - shift
            if np.abs(found - previous).max(initial=0) < _CLOSE_ENOUGH:
                break
        return found


def _spline_weights(side: int, count: int, spacing: float) -> NDArray[np.float64]:
    """Weight of each control point at each pixel along one axis, (side, count); rows sum to 1."""
    return np.asarray(BSpline.design_matrix(np.arange(side) / spacing, np.arange(-3.0, count + 1), k=3).toarray())


def _connected(masks: Tensor, warp: _Warp) -> Tensor:
    """Masks cut at one half, united with their skeletons as strokes, without the pinholes between both."""
    planes = []
    for sampled, mask in zip(warp.sample(masks).numpy() > 0.5, masks.numpy() > 0.5, strict=True):
        plane = sampled | _strokes(skeletonize(mask), warp)
        pinholes = ~plane & binary_erosion(plane, _FOUR_AROUND)
        if pinholes.any():
            holes = torch.from_numpy(binary_fill_holes(mask) & ~mask)[None].float()
            plane |= pinholes & (warp.sample(holes)[0].numpy() == 0)
        planes.append(plane)
    return torch.from_numpy(np.stack(planes)).float()


def _strokes(skeleton: NDArray[np.bool_], warp: _Warp) -> NDArray[np.bool_]:
    """Draw the links between a skeleton's pixels where they come to lie."""
    points = np.argwhere(skeleton)
    first, second = _links(skeleton)
    moved = warp.forward(points.astype(np.float64))
    starts = np.concatenate([moved, moved[first]])  # every pixel also by itself, for those without a link
    strokes = np.concatenate([moved, moved[second]]) - starts
    steps = max(1, math.ceil(np.abs(strokes).max(initial=0)))  # of at most a pixel each, which leave no gap
    along = np.linspace(0, 1, steps + 1)[:, None, None]
    drawn = np.rint(starts + along * strokes).astype(np.int64).reshape(-1, 2)
    drawn = drawn[((drawn >= 0) & (drawn < warp.size)).all(axis=1)]
    canvas = np.zeros(warp.size, bool)
    canvas[tuple(drawn.T)] = True
    return canvas


def _links(skeleton: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of neighbouring pixels, diagonal ones too, as indices into ``argwhere``.

    Example:
        >>> first, second = _links(np.array([[1, 1, 0], [0, 0, 1]], bool))
        >>> list(zip(first.tolist(), second.tolist()))
        [(0, 1), (1, 2)]
    """
    index = np.full(tuple(side + 2 for side in skeleton.shape), -1)
    index[1:-1, 1:-1][skeleton] = np.arange(skeleton.sum())
    y, x = np.nonzero(index >= 0)
    around = ((0, 1), (1, 0), (1, 1), (1, -1))
    pairs = np.concatenate([np.stack([index[y, x], index[y + dy, x + dx]]) for dy, dx in around], axis=1)
    first, second = pairs[:, pairs[1] >= 0]
    return first, second


_SAMPLERS = {
    "bilinear": lambda values, warp: warp.sample(values),
    "nearest": lambda values, warp: warp.sample(values, "nearest"),
    "inside": lambda values, warp: (warp.sample(values) > 0.999).float(),  # rounding apart, all that was looked at
    "connected": _connected,
}
