"""Automatic segmentation, and correction by clicks."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from numpy.typing import NDArray

from topolora_monai.annotation.prompts import Prompts
from topolora_monai.annotation.uncertainty import rated_breaks
from topolora_monai.data.items import Item, expand_slices
from topolora_monai.errors import ConfigError, DataError
from topolora_monai.io.volumes import is_volume, volume_shape
from topolora_monai.label_app.names import RESULT_SUFFIXES, checked_suffix
from topolora_monai.label_app.rim import rim_of
from topolora_monai.label_app.tasks.masks import class_numbers, read_label, write_label
from topolora_monai.label_app.tasks.polygons import annotation


class Segmentation(InferTask):
    """A mask of an image, or of all slices of a volume, without prompts.

    Args:
        model: see :mod:`~topolora_monai.label_app.models`.
        labels: names of its classes, the background first.
        description: for the client.
        kind: for the client, which decides by it what tools to show.
    """

    def __init__(
        self, model: Any, labels: Sequence[str], description: str, kind: InferType = InferType.SEGMENTATION
    ) -> None:
        numbers = {name: number for number, name in enumerate(labels) if number}
        super().__init__(kind, numbers, 2, description, {"result_extension": list(RESULT_SUFFIXES)})
        self.model = model

    def is_valid(self) -> bool:
        """Always."""
        return True

    def __call__(self, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Segment ``request["image"]``, a path.

        ``result_extension`` names the kind of the label file; ``hints`` asks for probable breaks of structures, and
        an ``output`` of ``json`` for polygons, of pictures: of the region at ``location``, of ``size``, of at least
        ``min_poly_area`` pixels.

        Returns:
            Path of a temporary label file, and what the client is told: ``label_names``; ``threshold``; ``pixels``,
            their number by class; ``latencies`` in seconds; ``adapter`` and ``version``, or ``bundle``; with
            ``hints``, ``breaks`` as :meth:`breaks` has them; with polygons, ``annotations``, a list of one
            :func:`~topolora_monai.label_app.tasks.polygons.annotation`.

        Raises:
            DataError: for an image or a previous mask that cannot be used.
            ConfigError: for prompts that cannot be.
        """
        started = time.perf_counter()
        items = expand_slices(Item(name="image", image=str(request["image"])), None)
        hints: dict[str, Any] = {}
        if "slice" in items[0]:
            numbers = np.zeros(volume_shape(items[0]["image"]), np.uint8)
            for item in items:
                np.moveaxis(numbers, item["axis"], 0)[item["slice"]] = self._slice(item, request)
        else:
            probability = self._answer(items[0], request)
            numbers = self._numbers(probability)
            if request.get("hints"):
                hints["breaks"] = self._breaks(items[0]["image"], probability, numbers)
            if request.get("output") == "json":
                hints["annotations"] = [annotation(numbers, self.labels, **_region(request))]
        segmented = time.perf_counter()
        wanted = request.get("result_extension")
        suffix = checked_suffix(wanted, RESULT_SUFFIXES, "result") if isinstance(wanted, str) and wanted else None
        label = write_label(numbers, items[0]["image"], suffix)
        ended = time.perf_counter()
        seconds = {"infer": segmented - started, "write": ended - segmented, "total": ended - started}
        return str(label), {
            "label_names": self.labels,
            "threshold": self.model.spec.threshold,
            "pixels": {name: int((numbers == number).sum()) for name, number in self.labels.items()},
            "latencies": {name: round(value, 3) for name, value in seconds.items()},
            **self.model.told(),
            **hints,
        }

    def _slice(self, item: Mapping[str, Any], request: Mapping[str, Any]) -> NDArray[np.uint8]:
        return self._numbers(self._answer(item, request))

    def _answer(self, item: Mapping[str, Any], request: Mapping[str, Any]) -> NDArray[np.float32]:
        return np.asarray(self.model.automatic(item))

    def _numbers(self, probability: NDArray[np.float32]) -> NDArray[np.uint8]:
        return class_numbers(probability, self.model.spec.threshold, self.model.spec.exclusive)

    def probability(self, image: str | Path) -> NDArray[np.float32]:
        """What the model thinks of each pixel of a picture, of classes 1 to K, (K, H, W).

        Raises:
            ConfigError: for a volume.
        """
        item = expand_slices(Item(name="image", image=str(image)), None)[0]
        if "slice" in item:
            raise ConfigError("probabilities are given of pictures, not of volumes")
        return np.asarray(self.model.automatic(item))

    def breaks(self, image: str | Path, numbers: NDArray[np.uint8]) -> list[list[float]]:
        """Places where a mask (H, W) of a picture breaks what may be one structure, [x, y, probability] each.

        The probability is that something is there, the highest comes first. What lies at the rim of a fundus
        photograph is left out: networks see lines along it.
        """
        return self._breaks(image, self.probability(image), numbers)

    def _breaks(
        self, image: str | Path, probability: NDArray[np.float32], numbers: NDArray[np.uint8]
    ) -> list[list[float]]:
        found = [
            [gap.col, gap.row, round(rate, 4)]
            for number, plane in enumerate(probability, start=1)
            for gap, rate in rated_breaks(numbers == number, plane, self.model.spec.threshold)
        ]
        rim = rim_of(image) if found else None
        inner = [gap for gap in found if rim is None or not rim.is_near(gap[1], gap[0])]
        return sorted(inner, key=lambda gap: -gap[2])


class Clicks(Segmentation):
    """A mask that agrees with an annotator's clicks, box and previous mask.

    The request has ``foreground`` and ``background``, lists of [x, y] or, in volumes, [x, y, z] in voxels of the
    file; ``roi``, a box [x0, y0, x1, y1] (also as [[x0, y0], [x1, y1]], as CVAT has it) or [x0, x1, y0, y1, z0, z1]
    (as 3D Slicer has it, and needed in volumes); ``label``, a previous mask as an uploaded file; ``class``, the name
    or number of the class that is meant, by default the first; of pictures ``strokes``, objects with ``points``,
    ``positive`` and ``width``, ``wires``, lists of points to trace a structure through, and ``bridges``, points at
    breaks to join; and of volumes ``slice``, which 3D Slicer sends when it will add the answer to its mask: then slices
    without click or box are left empty.
    """

    def __init__(self, model: Any, labels: Sequence[str], description: str) -> None:
        super().__init__(model, labels, description, InferType.DEEPGROW)

    def __call__(self, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """As of :class:`Segmentation`."""
        image, path = request["image"], request.get("label")
        previous = None
        if isinstance(path, str) and path.startswith("/"):  # some clients send the name of a class under this key
            previous = read_label(path, image)
            if is_volume(image) and previous.shape != volume_shape(image):
                raise DataError(
                    "previous mask and image differ in size", expected=volume_shape(image), found=previous.shape
                )
        return super().__call__({**request, "previous": previous})

    def _slice(self, item: Mapping[str, Any], request: Mapping[str, Any]) -> NDArray[np.uint8]:
        previous, axis, index = request["previous"], item["axis"], item["slice"]
        before = None if previous is None else np.moveaxis(previous, axis, 0)[index]
        told = _of_slice(request, axis, index)
        asked = told["foreground"] or told["background"] or told["roi"]
        if not asked and isinstance(request.get("slice"), int):
            return np.zeros((), np.uint8)  # everywhere
        if before is not None and not asked:
            return np.asarray(before)
        return super()._slice(item, {**request, **told, "previous": before})

    def _answer(self, item: Mapping[str, Any], request: Mapping[str, Any]) -> NDArray[np.float32]:
        foreground, background = _points(request, "foreground"), _points(request, "background")
        box = _box(request)
        wanted = request.get("class", 1)
        number = self.labels.get(wanted) if isinstance(wanted, str) else wanted
        if not isinstance(number, int) or number not in self.labels.values():
            raise ConfigError("no such class", expected=", ".join(self.labels), found=repr(wanted))
        lines = _lines(request)
        if lines and "slice" in item:
            raise ConfigError("lines are drawn in pictures", expected="clicks and boxes", found=", ".join(lines))
        prompts = Prompts.from_lists(foreground, background, box=box[:4] if box else None, label=number, **lines)
        return np.asarray(self.model.interactive(item, prompts, request["previous"]))


def _points(request: Mapping[str, Any], name: str) -> list[list[float]]:
    points = request.get(name) or []
    if not isinstance(points, list) or not _all_numbers(points) or any(len(point) < 2 for point in points):
        raise ConfigError(f"{name} is no list of points", expected="[[x, y], ...]", found=repr(points)[:80])
    return [point[:2] for point in points]


def _lines(request: Mapping[str, Any]) -> dict[str, Any]:
    """Strokes, wires and bridges of a request, by these names."""
    lines = {name: request[name] for name in ("strokes", "wires", "bridges") if request.get(name)}
    for name, found in lines.items():
        points = found if name == "wires" else [found] if name == "bridges" else []
        if not isinstance(found, list) or not all(map(_all_numbers, points)):
            raise ConfigError(f"{name} is no list of them", found=repr(found)[:80])
    return lines


def _all_numbers(lists: Any) -> bool:
    return isinstance(lists, list) and all(
        isinstance(entry, list) and all(isinstance(number, int | float) for number in entry) for entry in lists
    )


def _of_slice(request: Mapping[str, Any], axis: int, index: int) -> dict[str, Any]:
    """Prompts in voxels (x, y, z) of the file that lie in one slice, in its pixels (column, row)."""
    normal = 2 - axis
    column, row = (place for place in range(3) if place != normal)
    told: dict[str, Any] = {"roi": None}
    for name in ("foreground", "background"):
        points = request.get(name) or []
        if not _all_numbers(points) or any(len(point) != 3 for point in points):
            raise ConfigError(f"{name} of a volume needs points of three numbers", found=repr(points)[:80])
        told[name] = [[point[column], point[row]] for point in points if round(point[normal]) == index]
    box = _box(request)
    if box is not None:
        if len(box) != 6:
            raise ConfigError("roi of a volume needs six numbers", expected="x0, x1, y0, y1, z0, z1", found=box)
        low, high = (box[0], box[1], box[4]), (box[2], box[3], box[5])
        if low[normal] <= index <= high[normal]:
            told["roi"] = [low[column], low[row], high[column], high[row]]
    return told


def _box(request: Mapping[str, Any]) -> list[float] | None:
    """The box of a request, (x0, y0, x1, y1) and where it has them (z0, z1)."""
    roi = request.get("roi") or None
    if roi is None:
        return None
    flat = [*roi[0], *roi[1]] if _all_numbers(roi) and [len(corner) for corner in roi] == [2, 2] else roi
    if not _all_numbers([flat]) or len(flat) not in (4, 6):
        raise ConfigError("roi is no box", expected="[x0, y0, x1, y1] or [x0, x1, y0, y1, z0, z1]", found=roi)
    return [flat[place] for place in (0, 2, 1, 3, 4, 5)] if len(flat) == 6 else list(flat)


def _region(request: Mapping[str, Any]) -> dict[str, Any]:
    """What part of an image polygons are asked of."""
    region: dict[str, Any] = {}
    for name in ("location", "size"):
        place = request.get(name) or [0, 0]
        if not _all_numbers([place]) or len(place) != 2 or min(place) < 0:
            raise ConfigError(f"{name} is no pair of numbers", found=repr(place)[:80])
        region[name] = tuple(int(number) for number in place)
    area = request.get("min_poly_area") or 0
    if not isinstance(area, int | float):
        raise ConfigError("min_poly_area is no number", found=repr(area)[:80])
    return region | {"min_area": area}
