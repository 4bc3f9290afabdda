"""Where the grid of an image lies in the world, and whether its mask's lies there too, by their headers alone."""

import functools
import itertools
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from topolora_monai.errors import DataError
from topolora_monai.io.images import image_kind, image_size
from topolora_monai.io.rasters import open_raster
from topolora_monai.io.volume_header import volume_state
from topolora_monai.io.volumes import is_volume, volume_affine, volume_shape

_SAME = 0.1
"""Farthest, in voxels or pixels of the image, that a mask's corner may lie from the image's."""
_ROUNDING = 0.01
"""Distances below it come from rounded numbers in headers, and nobody is told."""
_RASTER_AXES = 2
_LONGEST_CRS = 80
"""Characters of one that has no code and is written out."""
_Values = TypeVar("_Values", bound=np.generic)


class Geometry(NamedTuple):
    """The grid of a volume or raster.

    Attributes:
        shape: (slices, rows, columns), or (rows, columns).
        affine: from an index such as (row, column, 1) to the place of that pixel's centre: of volumes in mm to the
            right, the front and the top (RAS), of rasters in the units of the CRS. None where the file says nothing.
        crs: rasterio's, of a raster that has one.
        by_points: the place of a raster is that of its ground control points, to which ``affine`` is fitted.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64] | None
    crs: Any = None
    by_points: bool = False

    def __str__(self) -> str:
        return _volume_in_words(self) if len(self.shape) > _RASTER_AXES else _raster_in_words(self)


class Alignment(NamedTuple):
    """How a mask is brought to the grid of its image.

    Attributes:
        orientation: nibabel's, of the mask's axes on those of the image; None where they are the same.
        note: what a person should know of it, if anything.
    """

    orientation: NDArray[np.float64] | None = None
    note: str | None = None

    def bring(self, values: NDArray[_Values]) -> NDArray[_Values]:
        """The mask's values, all of them, in the order of the image's; a view."""
        return values if self.orientation is None else np.asarray(apply_orientation(values, self.orientation))


def align(mask: str | Path, image: str | Path) -> Alignment:
    """How a mask lies on its image, of the same number of pixels.

    Axes in another order or direction are brought back. A file that does not say where it lies, as no picture does,
    is taken for one of the same place.

    Args:
        mask: a picture, raster or volume.
        image: likewise.

    Raises:
        DataError: if it lies anywhere else, by a tenth of a voxel or pixel at any corner, or if a file is damaged.

    Example:
        >>> import tempfile
        >>> folder, values = Path(tempfile.mkdtemp()), np.arange(6, dtype=np.uint8).reshape(3, 2, 1)
        >>> nib.save(nib.Nifti1Image(values, np.eye(4)), folder / "image.nii")
        >>> turned = np.array([[-1, 0, 0, 2], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        >>> nib.save(nib.Nifti1Image(values[::-1], turned), folder / "mask.nii")
        >>> align(folder / "mask.nii", folder / "image.nii").bring(values[::-1].T).ravel().tolist()
        [0, 2, 4, 1, 3, 5]
    """
    own, wanted = file_geometry(mask), file_geometry(image)
    axes = {_RASTER_AXES if geometry is None else len(geometry.shape) for geometry in (own, wanted)}
    if len(axes) > 1:
        return Alignment()
    if own is None or wanted is None or own.affine is None or wanted.affine is None:
        return Alignment(note=_unplaced(own, wanted))
    orientation, distance = _relation(own, wanted)
    same_crs = own.crs is None or wanted.crs is None or own.crs == wanted.crs
    if orientation is None or not distance < _SAME or not same_crs:
        raise _elsewhere(mask, image, own, wanted, distance if same_crs else None)
    notes = []
    turned = (orientation != np.array([[axis, 1] for axis in range(len(own.shape))])).any()
    if turned:
        notes.append("has its axes in another order or direction than its image, and is read in the image's")
    if distance > _ROUNDING:
        unit = "voxel" if len(own.shape) > _RASTER_AXES else "pixel"
        notes.append(f"lies {distance:.2f} {unit} from its image, which is passed over")
    if (own.crs is None) != (wanted.crs is None):
        notes.append("has no CRS, which its image has" if own.crs is None else "has a CRS, which its image has not")
    return Alignment(orientation if turned else None, f"mask {'; '.join(notes)}" if notes else None)


def shape_on_grid(mask: str | Path, image: str | Path) -> tuple[int, ...]:
    """(slices, rows, columns) of a volume's mask, in the order of the volume's axes where that makes the two alike.

    Raises:
        DataError: if a header is damaged.
    """
    own, wanted = file_geometry(mask), file_geometry(image)
    if own is None or wanted is None or own.affine is None or wanted.affine is None:
        return volume_shape(mask)
    orientation, _ = _relation(own, wanted)
    return own.shape if orientation is None else wanted.shape


def size_on_grid(mask: str | Path, image: str | Path, axis: int | None = None) -> tuple[int, int]:
    """(height, width) of a mask, or of its slices along an axis of its image.

    Raises:
        DataError: as :func:`~topolora_monai.io.image_size`.
    """
    if not is_volume(mask) or not is_volume(image):
        return image_size(mask, axis)
    height, width = (side for other, side in enumerate(shape_on_grid(mask, image)) if other != (axis or 0))
    return height, width


def file_geometry(path: str | Path) -> Geometry | None:
    """Grid of a file, from its header; None for pictures, whose files do not say where they are of.

    A NIfTI without qform and sform, pages of a TIFF, and rasters without transform and control points have no
    geometry either. World files beside pictures are not looked at.

    Raises:
        DataError: if the header is damaged.
    """
    kind = image_kind(path)
    if kind == "volume":
        return Geometry(volume_shape(path), _usable(volume_affine(path)))
    if kind == "raster" and Path(path).is_file():
        return _raster_in_state(Path(path).absolute(), volume_state(path))
    return None


@functools.lru_cache(maxsize=256)
def _raster_in_state(path: Path, state: Hashable) -> Geometry:
    from rasterio.transform import Affine, from_gcps  # noqa: PLC0415 - an optional dependency

    with open_raster(path) as dataset:
        shape, transform, crs = dataset.shape, dataset.transform, dataset.crs
        points, crs_of_points = dataset.gcps
    by_points = transform.is_identity and len(points) > _RASTER_AXES
    if by_points:
        transform, crs = from_gcps(points), crs_of_points
    if transform.is_identity:
        return Geometry(shape, None, crs or None)
    from_centre = np.array(transform * Affine.translation(0.5, 0.5)).reshape(3, 3)
    return Geometry(shape, _usable(from_centre[:, [1, 0, 2]]), crs or None, by_points)


def _usable(affine: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """None for one that says nothing, since voxels would have no extent."""
    if affine is None or not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:-1, :-1]) < len(affine) - 1:
        return None
    return affine


def _relation(own: Geometry, wanted: Geometry) -> tuple[NDArray[np.float64] | None, float]:
    """The mask's axes on the image's, None if its shape is another then; and the distance of the farthest corner."""
    assert own.affine is not None and wanted.affine is not None
    to_image = np.linalg.inv(wanted.affine) @ own.affine
    orientation = io_orientation(to_image)
    if np.isnan(orientation).any():
        return None, float("nan")
    brought = tuple(own.shape[axis] for axis in np.argsort(orientation[:, 0]))
    if brought != wanted.shape:
        return None, float("nan")
    corners = np.array([*itertools.product(*((0, side - 1) for side in brought))]).T
    ends = np.vstack([corners, np.ones(corners.shape[1])])
    away = (to_image @ inv_ornt_aff(orientation, own.shape) @ ends - ends)[:-1]
    return orientation, float(np.linalg.norm(away, axis=0).max())


def _unplaced(own: Geometry | None, wanted: Geometry | None) -> str | None:
    """What to say where one of them, of as many axes, does not say where it lies."""
    known = [geometry is not None and geometry.affine is not None for geometry in (own, wanted)]
    if known[0] == known[1]:
        return None
    which = "mask does not say where it lies, and its image does" if known[1] else "image does not say where it lies"
    return f"{which}: their sizes alone are compared"


def _elsewhere(
    mask: str | Path, image: str | Path, own: Geometry, wanted: Geometry, distance: float | None
) -> DataError:
    volume = len(own.shape) > _RASTER_AXES
    unit = "voxels" if volume else "pixels"
    apart = "" if distance is None or np.isnan(distance) else f"; up to {distance:,.4g} {unit} away"
    if volume:
        way = "SimpleITK.Resample(mask, image, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)"
    elif wanted.by_points:
        way = "draw it on the image as it is stored, or warp the image to the mask's CRS (gdalwarp -tps) and use that"
    else:
        way = f"rio warp {Path(mask).name} aligned.tif --like {Path(image).name} --resampling nearest"
    otherwise = "if it was drawn on this image and its header alone is wrong, give it the image's"
    return DataError(
        "mask lies elsewhere than its image",
        path=mask,
        expected=f"{wanted}, as {image}",
        found=f"{own}{apart}",
        hint=f"bring it to the image's grid: {way}; {otherwise}",
    )


def _volume_in_words(geometry: Geometry) -> str:
    """The fastest axis first, as tools for NIfTI and DICOM print it."""
    assert geometry.affine is not None
    fastest_first = geometry.affine[:, [2, 1, 0, 3]]
    sides = " x ".join(str(side) for side in geometry.shape[::-1])
    spacing = " x ".join(f"{size:.5g}" for size in nib.affines.voxel_sizes(fastest_first))
    origin = ", ".join(f"{place:.6g}" for place in fastest_first[:3, 3] + 0.0)  # no -0
    axes = "".join(nib.aff2axcodes(fastest_first))
    turn = np.degrees(nib.affines.obliquity(fastest_first).max())
    turned = f" turned by {turn:.2f} degrees" if turn > _ROUNDING else ""
    return f"{sides} voxels, spacing {spacing} mm, origin ({origin}) mm, axes {axes}{turned}"


def _raster_in_words(geometry: Geometry) -> str:
    assert geometry.affine is not None
    corner = geometry.affine @ [-0.5, -0.5, 1]
    steps = geometry.affine[:2, :2]  # columns: to the next row, to the next column
    pixels = f"pixels of {steps[0, 1]:.8g} x {steps[1, 0]:.8g}"
    if abs(steps[0, 0]) + abs(steps[1, 1]) > 0:
        pixels += f", turned by {steps[0, 0]:.8g} and {steps[1, 1]:.8g}"
    crs = geometry.crs.to_string()[:_LONGEST_CRS] if geometry.crs else "no CRS"
    points = " by control points" if geometry.by_points else ""
    rows, columns = geometry.shape
    return f"{columns} x {rows} pixels, {crs}, first pixel at ({corner[0]:.10g}, {corner[1]:.10g}), {pixels}{points}"
