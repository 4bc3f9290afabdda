"""Masks and probabilities as files: pictures one by one, volumes put back together."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from topolora_monai.io import volume_output_name, volume_shape, write_png, write_volume
from topolora_monai.io.atomic import writing
from topolora_monai.io.json_files import write_json
from topolora_monai.metrics import check_threshold, class_indices, threshold_bin, to_16_bit
from topolora_monai.networks.activation import Activation


def decided(stored: NDArray[np.uint16], threshold: float, activation: Activation) -> NDArray[np.uint8]:
    """The decision: masks of probabilities as they are stored, so that a mask follows from its probability images.

    Args:
        stored: values of :func:`~topolora_monai.metrics.to_16_bit`, shape (K, ...).
        threshold: foreground is ``probability >= threshold``; not used where classes exclude one another.
        activation: what made the probabilities; ``"softmax"`` makes several classes exclude one another.

    Returns:
        The number of the most probable class, 0 for the background, shape (1, ...), where classes exclude one another;
        else 0 and 1 for each class, shape (K, ...).

    Raises:
        ConfigError: for a threshold that is no number from 0 to 1.

    Example:
        >>> decided(np.uint16([[40000, 100]]), 0.5, "sigmoid").tolist()
        [[1, 0]]
    """
    if len(stored) > 1 and activation == "softmax":
        return class_indices(stored)[None]
    return (stored >= threshold_bin(threshold)).astype(np.uint8)


def mask_of(probability: Tensor, threshold: float, activation: Activation) -> NDArray[np.uint8]:
    """Class numbers, 0 for the background, of probabilities (K, ...); 0 and 1, (K, ...), of classes that may overlap.

    Arguments otherwise as of :func:`decided`.

    Example:
        >>> mask_of(torch.tensor([[[0.4, 0.6]]]), 0.5, "sigmoid").tolist()
        [[0, 1]]
    """
    masks = decided(to_16_bit(probability).cpu().numpy().astype(np.uint16), threshold, activation)
    return masks[0] if len(masks) == 1 else masks


def write_classes(folder: str | Path, classes: Sequence[str]) -> None:
    """Write ``classes.json``, the name, background first, of each number in masks of several classes; none for one.

    Raises:
        OutputError: if it cannot be written.
    """
    if len(classes) <= 2:
        return
    path = Path(folder) / "classes.json"
    with writing(path, "names of classes"):
        write_json({str(number): name for number, name in enumerate(classes)}, path)


class MaskWriter:
    """Write ``NAME_mask.png`` (0 and 255) and ``NAME_probability.png`` (16 bit) at the input's size.

    With several classes, ``NAME_probability_K.png`` is of class K, from 1. Where they exclude one another,
    ``NAME_mask.png`` holds the number of the most probable class, 0 for the background; where they may overlap, there
    is one ``NAME_mask_K.png`` each. Probabilities are stored as :func:`~topolora_monai.metrics.to_16_bit` gives them,
    and so is ``NAME_uncertainty.png`` when given, one for each class that may overlap with others.
    Where the image holds no data (``fov`` is 0, as of NaN voxels), all of them are 0.
    Slices of a volume are put back together in its geometry: ``NAME_mask.nii.gz`` (0 and 1, or class numbers), or
    ``.tif`` for pages of a TIFF, once its last slice is there.

    Args:
        folder: where to.
        threshold: as of :func:`decided`, as is ``activation``.
        activation: what made the probabilities.

    Raises:
        ConfigError: for a threshold that is no number from 0 to 1.
    """

    def __init__(self, folder: str | Path, threshold: float = 0.5, activation: Activation = "sigmoid") -> None:
        self.folder = Path(folder)
        self.threshold = check_threshold(threshold)
        self.activation = activation
        self._volumes: dict[str, tuple[NDArray[np.uint16], set[int]]] = {}
        """Planes (P, slices, rows, columns) by the path of a volume, and the slices that are missing."""

    def add(self, item: Mapping[str, Any], probabilities: Tensor, entropy: Tensor | None = None) -> list[Path]:
        """Write an image, or keep a slice until its volume is whole.

        Args:
            item: as :class:`~topolora_monai.transforms.LoadItem` gives it.
            probabilities: shape (K, H, W).
            entropy: how unsure they are, see :class:`~topolora_monai.model.uncertainty.Uncertainty`, one map for each
                class or for all.

        Returns:
            The masks that were written.

        Raises:
            OutputError: if a file cannot be written; those written before are whole.
        """
        layers = [probabilities.float()] + ([] if entropy is None else [entropy.to(probabilities).float()])
        stored = to_16_bit(torch.cat(layers)).cpu().numpy().astype(np.uint16)
        valid = np.asarray(item["fov"].cpu() > 0) if "fov" in item else np.ones_like(stored[:1], bool)
        planes = np.concatenate([stored * valid, valid], dtype=np.uint16)
        classes, name, path = len(layers[0]), str(item["name"]), str(item["path"]) if "slice" in item else ""
        if not path:
            foreground = 1 if classes > 1 and self.activation == "softmax" else 255
            return self._write(planes, classes, foreground, write_png, lambda kind: f"{name}_{kind}.png")
        axis = int(item["axis"])
        if path not in self._volumes:
            shape = volume_shape(path)
            self._volumes[path] = np.zeros((len(planes), *shape), np.uint16), set(range(shape[axis]))
        volume, missing = self._volumes[path]
        np.moveaxis(volume, axis + 1, 1)[:, int(item["slice"])] = planes
        missing.discard(int(item["slice"]))
        if missing:
            return []
        del self._volumes[path]
        stem = name.rpartition("_s")[0]
        return self._write(
            volume,
            classes,
            1,
            lambda array, to: write_volume(array, path, to),
            lambda kind: volume_output_name(path, f"{stem}_{kind}"),
        )

    def _write(
        self,
        planes: NDArray[np.uint16],
        classes: int,
        foreground: int,
        write: Callable[[Any, Path], None],
        name: Callable[[str], str],
    ) -> list[Path]:
        """Files of the planes of probabilities and, behind them, of uncertainties and of validity."""
        probabilities, entropies, valid = planes[:classes], planes[classes:-1], planes[-1].astype(np.uint8)
        masks = decided(probabilities, self.threshold, self.activation) * valid * np.uint8(foreground)
        written: list[Path] = []
        for kind, arrays in (("mask", masks), ("probability", probabilities), ("uncertainty", entropies)):
            for number, array in enumerate(arrays, start=1):
                path = self.folder / name(f"{kind}_{number}" if len(arrays) > 1 else kind)
                with writing(path, "a prediction"):
                    write(array, path)
                written += [path] if kind == "mask" else []
        return written
