"""Answers to an annotator: a first mask of an image, and what becomes of it click by click."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from torch import Tensor, nn

import topolora_monai
from topolora_monai.adapters import AdapterLibrary, merge, read_spec
from topolora_monai.annotation.correction import apply_click, local_contrast
from topolora_monai.annotation.embeddings import (
    EmbeddingCache,
    EncoderRecorder,
    ImageEmbedding,
    content_digest,
    plain_tensor,
)
from topolora_monai.annotation.prompts import Click, Point, Prompts, pixel_of
from topolora_monai.annotation.tracing import Path as Way
from topolora_monai.annotation.tracing import bridge, half_width, paint, stroke_path, trace
from topolora_monai.data import Item, file_sha256
from topolora_monai.data.depth import bits_for, item_maximum
from topolora_monai.data.fields_of_view import field_of_view
from topolora_monai.errors import ConfigError, DataError, unknown_choice
from topolora_monai.io import read_image
from topolora_monai.metrics import class_masks, predicted_masks
from topolora_monai.model.inferers import Precision, check_finite, default_precision
from topolora_monai.model.predictor import Predictor
from topolora_monai.model.tiling import TileBlend, TileGrid
from topolora_monai.model.uncertainty import Uncertainty, UncertaintyInferer
from topolora_monai.networks import build_network, probabilities
from topolora_monai.spec import ModelSpec
from topolora_monai.weights import fingerprint

_logger = logging.getLogger(__name__)

_SURE = 5.0
"""Logit of what an annotator has changed, as it is told to the network."""
_RANDOM_NUMBERS = threading.Lock()  # dropout draws from torch's global generator

ImageSource = str | Path | Mapping[str, Any]
"""Path of a picture, or an item with ``image`` and, for volumes, ``axis`` and ``slice``."""


class AnnotationSegmenter:
    """One base in memory, adapters by name, and an annotator's questions to any of them.

    An image is loaded, tiled and judged as by a :class:`~topolora_monai.model.predictor.Predictor`, whose answer is
    the same in every bit. What the encoder saw is kept, so that later clicks on an image cost neither reading nor
    encoding. Any number of threads may ask at once: each works on network objects of its own, which share all weights.
    Adapters share the base's weights but for those that they change. Every question takes an image, a path or an item
    with ``axis`` and ``slice`` of a volume, and an adapter's name or ``"base"``, by default the first adapter; unknown
    names raise ``ConfigError``, images that cannot be used ``DataError``.

    Args:
        adapters: adapter files by name, all for one base.
        weights: base checkpoint, as a path or the name of a fetched one; None keeps seeded random weights.
        base: what a header would say of the base without adapter: ``network_name``, ``image_size``, ``crop_size``,
            ``in_channels``, ...; by default what the first adapter's says, with one class and threshold 0.5.
        device: that networks run on.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``; None takes what the device is fast in.
        overlap: of the tiles, in [0, 1), less is faster; None takes that of each model's validation.
        cache_bytes: memory for embeddings.
        field_of_view: look for structures only in the lit disc of fundus photographs, which
            :func:`~topolora_monai.data.fields_of_view.field_of_view` finds in each picture; networks taught inside it
            alone make up vessels along its rim.

    Raises:
        ConfigError: if nothing says which base to build, or a setting is not possible.
        AdapterFileError: for a damaged adapter, or one for another base.
        CheckpointError: for weights that cannot be used.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> path = Path(tempfile.mkdtemp()) / "image.png"
        >>> Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(path)
        >>> settings = {"network_name": "vit_tiny_test", "image_size": 64, "crop_size": 32}
        >>> segmenter = AnnotationSegmenter(base=settings, precision="fp32")
        >>> segmenter.automatic(path).shape
        torch.Size([1, 40, 50])
        >>> answer = segmenter.interactive(path, Prompts.from_lists([[20, 10]], [[40, 30]]))
        >>> bool(answer[0, 10, 20] > 0.5 > answer[0, 30, 40])
        True
    """

    def __init__(
        self,
        adapters: Mapping[str, str | Path] | None = None,
        *,
        weights: str | Path | None = None,
        base: Mapping[str, Any] | None = None,
        device: str | torch.device = "cpu",
        precision: Precision | None = None,
        overlap: float | None = None,
        cache_bytes: int = 1_000_000_000,
        field_of_view: bool = False,
    ) -> None:
        self.device = torch.device(device)
        self.precision: Precision = precision or default_precision(self.device)
        self.overlap = overlap
        self.field_of_view = field_of_view
        self.cache = EmbeddingCache(cache_bytes)
        spec = _base_spec(base, adapters or {})
        network = build_network(**spec.network_settings, weights=weights).requires_grad_(False)
        spec = dataclasses.replace(spec, base_sha256=fingerprint(network.state_dict()))
        self._library = AdapterLibrary(network.to(self.device))
        self._models = {AdapterLibrary.BASE: self._model(AdapterLibrary.BASE, spec, repr(spec))}
        for name, path in (adapters or {}).items():
            self.load(name, path)

    @property
    def names(self) -> tuple[str, ...]:
        """What can be asked, ``"base"`` first."""
        return tuple(self._models)

    def spec(self, name: str | None = None) -> ModelSpec:
        """What the adapter's file says."""
        return self._named(name).spec

    def load(self, name: str, path: str | Path) -> None:
        """Load an adapter, or replace the one of that name; requests under way finish on the old one.

        Raises:
            ConfigError: if the name is that of the base.
            AdapterFileError: if the file is damaged or belongs to another base; what was loaded stays.
        """
        self._library.load(name, path)
        spec = self._library.spec(name)
        assert spec is not None  # as of any adapter
        self._models[name] = self._model(name, spec, file_sha256(path))

    def automatic(self, image: ImageSource, adapter: str | None = None) -> Tensor:
        """Probabilities without any prompt.

        Returns:
            Of the K foreground classes, float32 (K, H, W), at the image's size, on the CPU; 0 where the image holds
            no data.
        """
        return self._embedding(image, self._named(adapter)).probability.clone()

    def interactive(
        self, image: ImageSource, prompts: Prompts, previous: ArrayLike | None = None, adapter: str | None = None
    ) -> Tensor:
        """Probabilities that agree with an annotator.

        Every click's pixel is on its side of the threshold afterwards. A model that was trained with prompts is asked,
        in the tile that a click is most inside of, for all clicks there and told the mask so far; it may change that
        tile, but not what the previous mask has other than the automatic one, unless it is the piece around a click.
        Of other models the missed or wrongly added piece around a click follows by a rule (see
        :func:`~topolora_monai.annotation.correction.apply_click`). What is far from clicks, or outside of the box,
        stays exactly as it was. A click that the mask agrees with already changes nothing, so that clients may send all
        clicks each time, with or without the previous mask. A box without clicks takes the network's answer to that box
        inside it. Strokes are painted, and some of their points are clicks for a network that hears them; then wires
        are traced and breaks bridged, each painted as wide as the structure that it continues. Prompts are in pixels of
        the image. The previous mask is what to go on from, (H, W) with class numbers, or (K, H, W), foreground where
        not 0; by default the automatic one.

        Returns:
            Float32 (K, H, W); the automatic probabilities wherever the mask is the automatic one.

        Raises:
            ConfigError: for prompts outside of the image, an unknown class, or a bridge where there is no break.
            DataError: for a previous mask of another size.
        """
        model = self._named(adapter)
        embedding = self._embedding(image, model)
        classes, height, width = embedding.probability.shape
        prompts.check_inside((height, width))
        if prompts.label > classes:
            raise ConfigError("no such class", expected=f"label 1 to {classes}", found=prompts.label)
        automatic = model.masks(embedding.probability)
        masks = automatic.copy() if previous is None else _as_masks(previous, classes, (height, width))
        index, allowed = prompts.label - 1, prompts.allowed((height, width))
        target = masks[index].copy()
        if prompts.box is not None and not prompts.told:
            seen = self._answer(model, embedding, _asked_of_tiles(embedding.grid, box=prompts.box))[index]
            target = np.where(allowed, seen & embedding.valid, target)
        if model.spec.prompts:
            target = self._answered(model, embedding, prompts.told, target, automatic[index], allowed)
        else:
            evidence = np.stack([embedding.logits[index].numpy(), embedding.contrast])
            for click in prompts.clicks:
                near = allowed & prompts.nearer(click, allowed)
                target = apply_click(target, evidence, click.pixel, click.positive, near)
        for click in prompts.clicks:  # a later piece may have run over an earlier click
            target[click.pixel] = click.positive
        _draw(prompts, target, embedding.probability[index].numpy(), model.spec.threshold)
        if model.spec.exclusive:
            masks &= ~(target & ~masks[index])
        masks[index] = target
        return model.agreeing(embedding.probability, automatic, masks)

    def masks(self, probability: Tensor, adapter: str | None = None) -> NDArray[np.bool_]:
        """Masks of the K foreground classes, (K, H, W), at the adapter's threshold, or the most probable class."""
        return self._named(adapter).masks(probability)

    def valid(self, image: ImageSource, adapter: str | None = None) -> NDArray[np.bool_]:
        """Validity mask: where the image holds data, (H, W)."""
        return np.array(self._embedding(image, self._named(adapter)).valid)

    def uncertainty(
        self, image: ImageSource, adapter: str | None = None, passes: int = 0, axes: int = 2, seed: int = 0
    ) -> Uncertainty:
        """What answers with dropout in the adapter and to mirror images say together.

        There are so many ``passes`` with seeded dropout for each copy of the image, of which 0 leaves dropout off; 0 to
        2 spatial axes are mirrored.

        Returns:
            Maps with a batch axis of 1, on the CPU.

        Raises:
            ConfigError: for settings that leave one answer, or passes of an adapter without dropout.
        """
        model = self._named(adapter)
        tensor = model.predictor.load(_item(image))["image"][None].to(self.device)
        inferer = UncertaintyInferer(model.predictor.inferer, passes, axes, model.spec.activation, seed)
        # Dropout is in adapters that are not merged.
        with _RANDOM_NUMBERS, self._library.use(model.name) if passes else model.borrow() as network:
            maps = torch.inference_mode()(inferer.estimate)(tensor, network)
        check_finite(maps.probability, [str(_item(image)["image"])])
        return Uncertainty(*(part.cpu() for part in maps))

    def mirrored(self, image: ImageSource, adapter: str | None = None) -> list[NDArray[np.float32]]:
        """Probabilities of the image and of its three mirror images, mirrored back; each of shape (K, H, W)."""
        model = self._named(adapter)
        embedding = self._embedding(image, model)
        answers = [embedding.probability.numpy()]
        tensor = model.predictor.load(_item(image))["image"][None].to(self.device)
        with model.borrow() as network, torch.inference_mode():
            for axes in ((-1,), (-2,), (-2, -1)):
                logits = model.predictor.inferer(tensor.flip(axes), network).flip(axes)[0].cpu()
                check_finite(logits, [str(_item(image)["image"])])
                answers.append(plain_tensor(probabilities(logits, model.spec.activation)).numpy() * embedding.valid)
        return answers

    def _named(self, name: str | None) -> _Model:
        names = list(self._models)
        chosen = name if name is not None else names[min(1, len(names) - 1)]
        if chosen not in self._models:
            raise unknown_choice("adapter", chosen, names)
        return self._models[chosen]

    def _model(self, name: str, spec: ModelSpec, digest: str) -> _Model:
        with self._library.use(name) as network:
            merged = merge(_sharing_copy(network))
        predictor = Predictor(spec, merged, device=self.device, precision=self.precision, overlap=self.overlap)
        return _Model(name, predictor, digest)

    def _embedding(self, image: ImageSource, model: _Model) -> ImageEmbedding:
        item = _item(image)
        try:
            content = content_digest(item)
        except OSError as error:
            raise DataError("image cannot be read", path=item["image"], found=error.strerror or error) from error
        key = (content, model.digest, model.spec.crop_size, model.predictor.overlap)
        embedding: ImageEmbedding = self.cache.get(key, lambda: self._embed(item, model))
        return embedding

    @torch.inference_mode()
    def _embed(self, item: Mapping[str, Any], model: _Model) -> ImageEmbedding:
        loaded = model.predictor.load(item)
        _tell_depth(item, model.spec.bits)
        tensor = loaded["image"][None].to(self.device)
        with model.borrow() as network:
            recorder = EncoderRecorder(network)
            logits = model.predictor.inferer(tensor, recorder)[0].float().cpu()
        check_finite(logits, [str(item["image"])])
        valid = np.asarray(loaded["fov"][0] > 0)
        if self.field_of_view:
            valid &= field_of_view(read_image(item["image"], 3, item.get("axis"), item.get("slice")).values)
        probability = probabilities(logits, model.spec.activation) * torch.from_numpy(valid)
        guess = np.asarray(model.masks(probability).any(axis=0))
        contrast = local_contrast(np.asarray(loaded["image"], np.float32), guess)
        height, width = valid.shape
        grid = TileGrid(height, width, model.spec.crop_size, model.predictor.overlap)
        return ImageEmbedding(
            plain_tensor(probability), plain_tensor(logits), contrast, valid, grid, recorder.features()
        )

    def _answered(
        self,
        model: _Model,
        embedding: ImageEmbedding,
        clicks: tuple[Click, ...],
        before: NDArray[np.bool_],
        automatic: NDArray[np.bool_],
        allowed: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """The mask (H, W) of one class that a network trained with prompts makes of a mask and clicks."""
        asked = _asked_of_tiles(embedding.grid, [click for click in clicks if before[click.pixel] != click.positive])
        if not asked or not embedding.features:
            return before
        asked = {number: _in_tile(embedding.grid, number, clicks) for number in asked}
        edited = torch.from_numpy(before != automatic)
        state = torch.where(edited, torch.from_numpy(before).float() * 2 * _SURE - _SURE, embedding.logits)
        seen = self._answer(model, embedding, asked, state)[0] & embedding.valid
        after = np.where(allowed & ~edited.numpy(), seen, before)
        for click in clicks:
            wrong = (after != click.positive) & (seen == click.positive) & allowed
            if wrong[click.pixel]:
                parts, _ = ndimage.label(wrong, np.ones((3, 3)))
                after[parts == parts[click.pixel]] = click.positive
        return after

    @torch.inference_mode()
    def _answer(
        self, model: _Model, embedding: ImageEmbedding, asked: Mapping[int, _Asked], state: Tensor | None = None
    ) -> NDArray[np.bool_]:
        """Masks (K, H, W) after some tiles were asked, each told the logits so far (K, H, W) that are given."""
        grid, size = embedding.grid, embedding.grid.crop
        if not embedding.features:
            return model.masks(embedding.probability)
        told = None if state is None else F.pad(state * model.spec.temperature, grid.padding)
        kept, blended = F.pad(embedding.logits, grid.padding), TileBlend(embedding.logits.shape, size)
        corners = grid.corners
        with model.borrow() as network:
            for number, (row, column) in enumerate(corners):
                if not any(max(abs(row - corners[n][0]), abs(column - corners[n][1])) < size for n in asked):
                    continue  # nothing near was asked
                window = np.s_[
                    ..., row + grid.top : row + grid.top + size, column + grid.left : column + grid.left + size
                ]
                answer = kept[window]
                if number in asked:
                    features = tuple(part[number : number + 1].float().to(self.device) for part in embedding.features)
                    prompts = {name: torch.tensor([given], device=self.device) for name, given in asked[number].items()}
                    if told is not None:
                        prompts["mask_prompt"] = told[window][None].to(self.device)
                    decoded = network.decode(features, (size, size), **prompts)
                    answer = decoded[0].float().cpu() / model.spec.temperature
                blended.add(answer, row, column)
        logits = torch.where(blended.answered, blended.logits(), embedding.logits)
        return model.masks(probabilities(logits, model.spec.activation))

    def trace(
        self, image: ImageSource, points: Sequence[Point], adapter: str | None = None, label: int = 1
    ) -> tuple[Way, float]:
        """Live-wire through points (x, y), see :func:`~topolora_monai.annotation.trace`, for a look before it is drawn.

        Returns:
            Pixels (N, 2) as (row, column), and the half-width in pixels that it would be painted with.

        Raises:
            ConfigError: for less than two points, a point outside of the image, or an unknown class.
        """
        model = self._named(adapter)
        embedding = self._embedding(image, model)
        Prompts.from_lists(wires=[points], label=label)
        if label > len(embedding.probability):
            raise ConfigError("no such class", expected=f"label 1 to {len(embedding.probability)}", found=label)
        way = trace(embedding.probability[label - 1].numpy(), [pixel_of(point) for point in points])
        return way, half_width(model.masks(embedding.probability)[label - 1], way)


_Asked = Mapping[str, Any]
"""Prompts of a tile by the names of the network's, as lists, in pixels of the tile."""


def _asked_of_tiles(
    grid: TileGrid, clicks: Sequence[Click] = (), box: tuple[float, float, float, float] | None = None
) -> dict[int, _Asked]:
    """Tiles to ask, by number: of each click the one that it is most inside of; all that a box reaches into."""
    asked: dict[int, _Asked] = {}
    middle = (grid.crop - 1) / 2
    for click in clicks:
        away = [max(abs(click.y - row - middle), abs(click.x - column - middle)) for row, column in grid.corners]
        asked[int(np.argmin(away))] = {}
    if box is not None:
        parts = {number: _clipped(box, *corner, grid.crop) for number, corner in enumerate(grid.corners)}
        asked |= {number: {"boxes": part} for number, part in parts.items() if part is not None}
    return asked


def _in_tile(grid: TileGrid, number: int, clicks: Sequence[Click]) -> _Asked:
    """All clicks that lie in a tile."""
    row, column = grid.corners[number]
    near = [click for click in clicks if 0 <= click.y - row < grid.crop and 0 <= click.x - column < grid.crop]
    places = [(click.x - column, click.y - row) for click in near]
    return {"points": places, "point_labels": [float(click.positive) for click in near]}


def _draw(prompts: Prompts, mask: NDArray[np.bool_], probability: NDArray[np.float32], threshold: float) -> None:
    """Put an annotator's lines into a mask (H, W)."""
    for stroke in prompts.strokes:
        way = stroke_path([pixel_of(point) for point in stroke.points])
        mask[paint(way, mask.shape, stroke.width / 2)] = stroke.positive
    for wire in prompts.wires:
        way = trace(probability, [pixel_of(point) for point in wire])
        mask |= paint(way, mask.shape, half_width(mask, way))
    for point in prompts.bridges:
        way = bridge(mask, probability, pixel_of(point), threshold)
        mask |= paint(way, mask.shape, half_width(mask, way))


class _Model:
    """A model, and copies of its network for threads to work on."""

    def __init__(self, name: str, predictor: Predictor, digest: str) -> None:
        self.name = name
        self.predictor = predictor
        self.spec = predictor.spec
        self.digest = digest
        self._lock = threading.Lock()
        self._idle: list[Any] = []

    @contextlib.contextmanager
    def borrow(self) -> Iterator[Any]:
        """A network object that nobody else uses meanwhile: networks keep results between their layers."""
        with self._lock:
            network = self._idle.pop() if self._idle else None
        network = network if network is not None else _sharing_copy(self.predictor.network)
        try:
            yield network
        finally:
            with self._lock:
                self._idle.append(network)

    def masks(self, probability: Tensor) -> NDArray[np.bool_]:
        return predicted_masks(probability, None if self.spec.exclusive else self.spec.threshold)

    def agreeing(self, probability: Tensor, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Tensor:
        """Probabilities whose masks are ``after``, unchanged where they are already."""
        changed, wanted = torch.from_numpy(before != after), torch.from_numpy(after)
        if self.spec.exclusive:
            told = 0.25 * probability + 0.75 * wanted
            return torch.where(changed.any(dim=0), told, probability)
        above, below = (1 + self.spec.threshold) / 2, self.spec.threshold / 2
        return torch.where(changed, torch.where(wanted, above, below), probability)


def _base_spec(base: Mapping[str, Any] | None, adapters: Mapping[str, str | Path]) -> ModelSpec:
    """What the base is before its weights are known."""
    untrained: dict[str, Any] = {"base_sha256": 64 * "0", "adaptation": {}}
    untrained["package_version"] = topolora_monai.__version__
    if base is not None:
        return ModelSpec(**{**base, **untrained})
    if not adapters:
        raise ConfigError(
            "nothing says which base to build", expected="an adapter, or base settings", hint="give network_name"
        )
    first = read_spec(next(iter(adapters.values())))
    loading = ("in_channels", "pixel_values", "percentiles", "value_range", "bits", "clahe", "despeckle_looks")
    shared = ("network_name", "image_size", "crop_size", "fit", *loading)
    return ModelSpec(**untrained, **{name: getattr(first, name) for name in shared})


def _sharing_copy(network: nn.Module) -> nn.Module:
    """A network of its own modules and the other's parameters and buffers."""
    shared = {id(tensor): tensor for tensor in [*network.parameters(), *network.buffers()]}
    return copy.deepcopy(network, shared)


def _tell_depth(item: Mapping[str, Any], bits: int) -> None:
    """Say so where a picture of 16 bit is darker than the adapter's images were."""
    largest = item_maximum(Item(image=item["image"]))
    if largest is not None and bits_for([largest]) < bits:
        _logger.warning(
            "%s is dark: largest value %s of %s; an adapter that was trained on such pictures says so by its bits",
            item["image"],
            f"{largest:,}",
            f"{2**bits - 1:,}",
        )


def _item(image: ImageSource) -> dict[str, Any]:
    return dict(image) if isinstance(image, Mapping) else {"image": str(image)}


def _clipped(
    box: tuple[float, float, float, float], row: int, column: int, size: int
) -> tuple[float, float, float, float] | None:
    """The part of a box inside a tile, in its pixels; None if there is none."""
    x0, y0 = max(0.0, box[0] - column), max(0.0, box[1] - row)
    x1, y1 = min(size - 1.0, box[2] - column), min(size - 1.0, box[3] - row)
    return (x0, y0, x1, y1) if x0 <= x1 and y0 <= y1 else None


def _as_masks(mask: ArrayLike, classes: int, size: tuple[int, int]) -> NDArray[np.bool_]:
    values = np.asarray(mask)
    if values.shape == (classes, *size):
        return np.asarray(values != 0)
    if values.shape != size:
        raise DataError(
            "previous mask and image differ in size",
            expected=f"{size[1]}x{size[0]} (width x height)",
            found=values.shape,
            hint="send the mask at the image's own size",
        )
    return class_masks(values.astype(np.uint8), classes) if classes > 1 else np.asarray(values[None] != 0)
