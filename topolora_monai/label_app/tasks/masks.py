"""From probabilities to a label file that other tools open."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
import torch
from numpy.typing import NDArray
from PIL import Image

from topolora_monai.errors import DataError
from topolora_monai.io.geometry import align
from topolora_monai.io.images import image_kind, image_orientation
from topolora_monai.io.pictures import open_picture, palette_colours, write_png
from topolora_monai.io.volumes import is_volume, read_volume, write_volume
from topolora_monai.metrics import predicted_masks


def class_numbers(probability: NDArray[np.float32], threshold: float, exclusive: bool = False) -> NDArray[np.uint8]:
    """One number for each pixel.

    Args:
        probability: of classes 1 to K, shape (K, H, W), in [0, 1].
        threshold: from where a class counts; of several that do, the most probable is taken.
        exclusive: the classes and the background exclude one another, so that the most probable one is taken.

    Returns:
        0 for the background, 1 to K, shape (H, W).

    Example:
        >>> class_numbers(np.float32([[[0.2, 0.6, 0.7]], [[0.1, 0.9, 0.3]]]), threshold=0.5).tolist()
        [[0, 2, 1]]
    """
    several_exclude = exclusive and len(probability) > 1
    masks = predicted_masks(torch.from_numpy(probability), None if several_exclude else threshold)
    chosen = np.where(masks, probability, -1).argmax(axis=0) + 1
    return np.where(masks.any(axis=0), chosen, 0).astype(np.uint8)


def read_label(path: str | Path, like: str | Path) -> NDArray[np.uint8]:
    """Class numbers of a label file, upright; a mask of 0 and 255 becomes one of 0 and 1, and NaN 0.

    A palette of black and white alone is such a mask, too, in whatever order; of others the indices count.

    Args:
        path: the file.
        like: its image, to whose grid it is brought, see :func:`~topolora_monai.io.align`.

    Returns:
        (H, W) of a picture or of a volume with one slice, else (slices, rows, columns).

    Raises:
        DataError: if it cannot be read, holds other values than numbers up to 255, or lies elsewhere than its image.
    """
    place, volume = align(path, like), image_kind(path) == "volume"
    if volume:
        values = place.bring(read_volume(path))
        values = np.where(np.isnan(values), 0, values)
        values = values.squeeze() if values.squeeze().ndim == 2 else values
    else:
        values = _picture_numbers(path)
        if values.ndim == 3 and (values[..., :1] == values[..., :3]).all():
            values = values[..., 0]  # grey saved as colour
        if values.ndim != 2:
            raise DataError("label has several channels", path=path, expected="one class number for each pixel")
        values = place.bring(values)
    found = np.unique(values)
    whole = values.dtype == np.bool_ or (np.isfinite(found).all() and (found == np.rint(found)).all())
    if not whole or found.min(initial=0) < 0 or found.max(initial=0) > 255 or values.ndim > 3:
        raise DataError("file is no label", path=path, expected="one class number for each pixel, 0 to 255")
    numbers = values.astype(np.uint8)
    return numbers // np.uint8(255) if set(found.tolist()) <= {0, 255} else numbers


def _picture_numbers(path: str | Path) -> NDArray[Any]:
    picture = open_picture(path)
    if picture.mode == "P":
        used = palette_colours(picture)[np.unique(np.asarray(picture))]
        if (used == used[:, :1]).all() and np.isin(used, (0, 255)).all():
            return np.asarray(picture.convert("L"))
    return np.asarray(picture)


def new_result_file(suffix: str) -> Path:
    """Path of a new file in the folder of temporary files; MONAI Label removes it once it was sent."""
    with tempfile.NamedTemporaryFile(prefix="topolora-", suffix=suffix, delete=False) as file:
        return Path(file.name)


def write_label(numbers: NDArray[np.uint8], like: str | Path, suffix: str | None = None) -> Path:
    """Write class numbers, (H, W) of a picture or (slices, rows, columns) of a volume, as a new temporary file.

    It gets the geometry of the image that it is ``like``; of a picture, the size of its pixels, where the kind of label
    file has one. The suffix is one of :data:`~topolora_monai.label_app.names.RESULT_SUFFIXES`, by default that of the
    image's kind, ``.png`` or ``.nii.gz``.
    """
    if not is_volume(like):
        path = new_result_file(suffix or ".png")
        if path.suffix == ".png":
            write_png(numbers, path)
        elif path.suffix in (".tif", ".tiff"):
            Image.fromarray(numbers).save(path, compression="tiff_deflate")
        else:
            label = SimpleITK.GetImageFromArray(numbers)
            label.SetSpacing(_spacing(like))
            SimpleITK.WriteImage(label, str(path), True)
        return path
    with tempfile.TemporaryDirectory() as folder:
        pages = numbers.ndim == 3 and Path(like).suffix.lower() in (".tif", ".tiff")
        written = Path(folder) / ("label.tif" if pages else "label.nii.gz")
        write_volume(numbers, like, written)
        path = new_result_file(suffix or (".tif" if pages else ".nii.gz"))
        if path.name.endswith((".nii.gz", ".tif")):
            path.write_bytes(written.read_bytes())
        else:
            SimpleITK.WriteImage(SimpleITK.ReadImage(str(written)), str(path), True)
    return path


def _spacing(picture: str | Path) -> tuple[float, float]:
    """Size of an upright picture's pixels as ITK reads it, so that 3D Slicer lays the label over the picture."""
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(picture))
    try:
        reader.ReadImageInformation()
        width, height = reader.GetSpacing()[:2]
    except RuntimeError:  # a kind of file that ITK does not read, and so no program that is built with it
        return 1.0, 1.0
    on_its_side = image_kind(picture) == "picture" and image_orientation(picture) in (5, 6, 7, 8)
    return (float(height), float(width)) if on_its_side else (float(width), float(height))
