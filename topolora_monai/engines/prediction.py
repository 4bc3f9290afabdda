"""Masks and probabilities as files: pictures one by one, volumes put back together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys as Keys
from numpy.typing import NDArray

from topolora_monai.engines.batches import batch_items
from topolora_monai.engines.finite import FiniteAnswers
from topolora_monai.engines.uncertainty import UncertaintyInferer
from topolora_monai.errors import OutputError
from topolora_monai.io import volume_output_name, volume_shape, write_png, write_volume
from topolora_monai.io.json_files import write_json
from topolora_monai.metrics import check_threshold, class_indices, threshold_bin, to_16_bit
from topolora_monai.networks.activation import Activation

__all__ = ["PredictionWriter", "write_classes"]


def write_classes(folder: str | Path, classes: Sequence[str]) -> None:
    """Write ``classes.json``, the name of each number in masks of several classes; nothing for one class.

    Args:
        folder: where to.
        classes: names, the background first.

    Raises:
        OutputError: if it cannot be written.
    """
    if len(classes) <= 2:
        return
    path = Path(folder) / "classes.json"
    try:
        write_json({str(number): name for number, name in enumerate(classes)}, path)
    except OSError as error:
        raise OutputError("cannot write names of classes", path=path, found=error.strerror) from error


class PredictionWriter:
    """Write ``NAME_mask.png`` (0 and 255) and ``NAME_probability.png`` (16 bit) at the input's size.

    With several classes, ``NAME_probability_K.png`` is of class K, from 1. Where they exclude one another,
    ``NAME_mask.png`` holds the number of the most probable class, 0 for the background; where they may overlap, there
    is one ``NAME_mask_K.png`` each. Probabilities are stored as :func:`~topolora_monai.metrics.to_16_bit` gives them,
    and so is ``NAME_uncertainty.png`` when asked for, one for each class that may overlap with others.
    Where the image holds no data (``fov`` is 0, as of NaN voxels), all of them are 0.
    Slices of a volume are put back together in its geometry: ``NAME_mask.nii.gz`` (0 and 1, or class numbers), or
    ``.tif`` for pages of a TIFF, once its last slice is there.

    Args:
        folder: where to.
        threshold: foreground is ``probability >= threshold``; not used where classes exclude one another.
        activation: what made the probabilities; ``"softmax"`` makes several classes exclude one another.
        uncertainty: the inferer of the engine, whose entropies are written.
        key: of the probabilities in the engine's output.

    Raises:
        ConfigError: for a threshold that is no number from 0 to 1.
    """

    def __init__(
        self,
        folder: str | Path,
        threshold: float = 0.5,
        activation: Activation = "sigmoid",
        uncertainty: UncertaintyInferer | None = None,
        key: str = Keys.PRED,
    ) -> None:
        self.folder = Path(folder)
        self.threshold = check_threshold(threshold)
        self.key = key
        self.activation = activation
        self.uncertainty = uncertainty
        self._volumes: dict[str, _Volume] = {}

    def attach(self, engine: Engine) -> None:
        """Act after each batch, if its answers are numbers."""
        FiniteAnswers().attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the images of a batch.

        Raises:
            OutputError: if a file cannot be written; those written before are whole.
        """
        for number, (one, item) in enumerate(zip(engine.state.output, batch_items(engine.state.batch), strict=True)):
            layers = [one[self.key].float()]
            if self.uncertainty is not None and self.uncertainty.latest is not None:
                layers.append(self.uncertainty.latest.entropy[number].to(layers[0]))
            stored = to_16_bit(torch.cat(layers)).cpu().numpy().astype(np.uint16)
            valid = np.asarray(item["fov"].cpu() > 0) if "fov" in item else np.ones_like(stored[:1], bool)
            planes = np.concatenate([stored * valid, valid], dtype=np.uint16)
            if "slice" in item:
                self._collect(planes, len(layers[0]), item)
            else:
                self._write_pictures(planes, len(layers[0]), str(item["name"]))

    def _write_pictures(self, planes: NDArray[np.uint16], classes: int, name: str) -> None:
        for kind, array in self._layers(planes, classes, foreground=255):
            self._write(lambda path, array=array: write_png(array, path), f"{name}_{kind}.png")

    def _collect(self, planes: NDArray[np.uint16], classes: int, item: Mapping[str, Any]) -> None:
        path = str(item["path"])
        if path not in self._volumes:
            self._volumes[path] = _Volume(path, int(item["axis"]), len(planes))
        volume = self._volumes[path]
        volume.add(int(item["slice"]), planes)
        if volume.complete:
            del self._volumes[path]
            name = str(item["name"]).rpartition("_s")[0]
            for kind, array in self._layers(volume.planes, classes, foreground=1):
                target = volume_output_name(path, f"{name}_{kind}")
                self._write(lambda to, array=array: write_volume(array, like=path, path=to), target)

    def _layers(self, planes: NDArray[np.uint16], classes: int, foreground: int) -> Iterator[tuple[str, Any]]:
        """Files by kind, of the planes of probabilities and, behind them, of uncertainties and of validity."""
        exclusive = classes > 1 and self.activation == "softmax"
        probabilities, doubts, valid = planes[:classes], planes[classes:-1], planes[-1].astype(np.uint8)
        if exclusive:
            yield "mask", class_indices(probabilities) * valid
        for suffix, stored in _numbered(probabilities):
            if not exclusive:
                yield f"mask{suffix}", (stored >= threshold_bin(self.threshold)) * valid * np.uint8(foreground)
            yield f"probability{suffix}", stored
        for suffix, stored in _numbered(doubts):
            yield f"uncertainty{suffix}", stored

    def _write(self, write: Any, name: str) -> None:
        try:
            write(self.folder / name)
        except OSError as error:
            raise OutputError(
                "cannot write a prediction", path=self.folder / name, found=error.strerror, hint="free some space"
            ) from error


def _numbered(planes: NDArray[np.uint16]) -> Iterator[tuple[str, NDArray[np.uint16]]]:
    """Planes and what is added to their names."""
    for number, plane in enumerate(planes, start=1):
        yield (f"_{number}" if len(planes) > 1 else ""), plane


class _Volume:
    """Probabilities of a volume while its slices come in."""

    def __init__(self, path: str, axis: int, planes: int) -> None:
        shape = volume_shape(path)
        self.axis = axis
        self.planes = np.zeros((planes, *shape), np.uint16)
        self._missing = set(range(shape[axis]))

    def add(self, index: int, planes: NDArray[np.uint16]) -> None:
        """Put one slice, (P, H, W), in its place."""
        np.moveaxis(self.planes, self.axis + 1, 1)[:, index] = planes
        self._missing.discard(index)

    @property
    def complete(self) -> bool:
        return not self._missing
