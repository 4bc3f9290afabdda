"""Image in, mask out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.inferers import Inferer, SimpleInferer
from monai.networks.utils import eval_mode
from monai.transforms import Compose
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from topolora_monai.adapters import read_spec
from topolora_monai.data import Item, check_items, find_images
from topolora_monai.errors import DataError
from topolora_monai.io import image_kind, is_volume
from topolora_monai.io.places import check_apart, prepare_output
from topolora_monai.io.regular import FILE, path_kind
from topolora_monai.model.inferers import (
    AutocastInferer,
    FlipInferer,
    Precision,
    TemperatureInferer,
    check_finite,
    default_precision,
)
from topolora_monai.model.network import WEIGHTS_FILE, adapted_network, bundle_spec, load_model, merged_network
from topolora_monai.model.scale import MatchScale, ScaleMatch
from topolora_monai.model.scenes import SceneSegmenter
from topolora_monai.model.tiling import TileInferer
from topolora_monai.model.uncertainty import UncertaintyInferer
from topolora_monai.model.writing import MaskWriter, mask_of, write_classes
from topolora_monai.networks.activation import probabilities
from topolora_monai.spec import ModelSpec
from topolora_monai.weights import fingerprint

__all__ = ["Prediction", "Predictor"]

_FILTER_MARGIN = 16  # pixels around a scene's tiles that filters of its values see
_ADAPTER_OF_RUN = "adapter.safetensors"


class Prediction(NamedTuple):
    """What a model says of an image, or of a volume, which has a further axis of slices behind that of classes.

    Attributes:
        probabilities: of the K classes but the background, float32 (K, H, W).
        mask: class numbers, 0 for the background, uint8 (H, W); of classes that may overlap 0 and 1, (K, H, W).
        classes: their names, the background first.
        valid: where the image holds data, bool (H, W); elsewhere the others are 0.
        uncertainty: in [0, 1], (1, H, W), or (K, H, W) for classes that may overlap; None if it was not asked for.
    """

    probabilities: NDArray[np.float32]
    mask: NDArray[np.uint8]
    classes: tuple[str, ...]
    valid: NDArray[np.bool_]
    uncertainty: NDArray[np.float32] | None = None


class Predictor:
    """A trained model, from images of any kind and size to masks.

    Bundles, the command line and the annotation server segment with this, and so get the same mask.

    Args:
        spec: what the model is.
        network: its network; moved to the device, frozen, and put into evaluation mode.
        device: that it runs on; None takes a GPU if there is one.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``; None takes what the device is fast in.
        overlap: of neighbouring tiles, in [0, 1), less is faster; None takes that of the model's validation.
        flip_axes: average over mirror images, along 0, 1 or 2 axes.
        quarter_turns: average over these and each of them turned by a quarter.
        dropout_passes: average over answers with dropout in the adapters, for each mirror image.
        uncertainty: tell how unsure it is, from these answers and mirror images; by default if there are passes. Scenes
            are left to the mirror images alone.
        tile_batch: most tiles at once.
        seed: of the dropout.
        match_scale: cut tiles so that structures have the size that they had in training, see
            :class:`~topolora_monai.model.scale.ScaleMatch`.

    Raises:
        ConfigError: for a setting that is not possible, or if the model does not know its own pixel scale.

    Example:
        >>> import tempfile
        >>> from topolora_monai.adapters import adapt, preset_config, save_adapter
        >>> from topolora_monai.networks import build_network
        >>> path = Path(tempfile.mkdtemp()) / "vessels.safetensors"
        >>> adaptation = adapt(build_network("vit_tiny_test", image_size=64), preset_config("lora"))
        >>> save_adapter(adaptation, path, labels=["background", "vessel"], crop_size=32)
        >>> predictor = Predictor.from_adapter(path)
        >>> prediction = predictor(np.zeros((50, 70, 3), np.uint8).transpose(2, 0, 1))
        >>> prediction.probabilities.shape, prediction.mask.shape, prediction.classes
        ((1, 50, 70), (50, 70), ('background', 'vessel'))
    """

    def __init__(
        self,
        spec: ModelSpec,
        network: nn.Module,
        *,
        device: str | torch.device | None = None,
        precision: Precision | None = None,
        overlap: float | None = None,
        flip_axes: int = 0,
        quarter_turns: bool = False,
        dropout_passes: int = 0,
        uncertainty: bool | None = None,
        tile_batch: int = 4,
        seed: int = 0,
        match_scale: MatchScale = False,
    ) -> None:
        self.spec = spec
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        # What could be trained is computed in another way, with other last bits.
        self.network = network.to(self.device).requires_grad_(False).eval()
        self.precision: Precision = precision or default_precision(self.device)
        self.overlap = spec.overlap if overlap is None else overlap
        self.flip_axes = flip_axes
        self.quarter_turns = quarter_turns
        self.load: Compose = spec.loading_transforms()
        """From an item to ``image``, ``fov`` and what :class:`~topolora_monai.transforms.LoadItem` gives besides."""
        once = AutocastInferer(SimpleInferer(), self.precision)
        self.scale = ScaleMatch(spec, match_scale)
        tiled = (self.scale.crop_size, self.overlap, tile_batch, self.scale.crop_of if self.scale.by_view else None)
        self.tiles = TileInferer(FlipInferer(once, flip_axes, quarter_turns), *tiled)
        self.uncertainty: UncertaintyInferer | None = None
        if dropout_passes > 0 if uncertainty is None else uncertainty:
            self.uncertainty = UncertaintyInferer(
                TileInferer(once, *tiled), dropout_passes, flip_axes, spec.activation, seed, quarter_turns
            )
        self.inferer: Inferer = TemperatureInferer(self.uncertainty or self.tiles, spec.temperature)
        """From a batch of images to logits."""

    @classmethod
    def from_adapter(
        cls, file: str | Path, weights: str | Path | None = None, *, dropout_passes: int = 0, **options: Any
    ) -> Predictor:
        """The model of an adapter file.

        Args:
            file: the adapter.
            weights: the base checkpoint it was trained on, a path or the name of a fetched one; None takes
                :func:`~topolora_monai.adapters.base_weights`.
            dropout_passes: as of the class, as are further options.
            **options: see there.

        Raises:
            AdapterFileError: if the adapter is damaged or does not belong to ``weights``.
            CheckpointError: if ``weights`` cannot be used.
            ConfigError: as the class.
        """
        network = adapted_network(file, weights, merged=not dropout_passes)
        return cls(read_spec(file), network, dropout_passes=dropout_passes, **options)

    @classmethod
    def from_run(cls, folder: str | Path, weights: str | Path | None = None, **options: Any) -> Predictor:
        """The model of a finished run, of which ``folder`` is the ``output_dir``; else as :meth:`from_adapter`."""
        return cls.from_adapter(Path(folder) / _ADAPTER_OF_RUN, weights, **options)

    @classmethod
    def from_bundle(cls, folder: str | Path, **options: Any) -> Predictor:
        """The model of a bundle that ``topolora release`` wrote, which needs no base; options are those of the class.

        Raises:
            ConfigError: if the folder holds no released bundle, and as the class.
            AdapterFileError: if its description is damaged.
            CheckpointError: if its weights are.
        """
        spec = bundle_spec(folder)
        return cls(spec, load_model(merged_network(spec), Path(folder) / WEIGHTS_FILE), **options)

    def __call__(self, source: ArrayLike | Tensor | str | Path) -> Prediction | dict[str, Prediction]:
        """Segment one image, or all of a folder or glob.

        Args:
            source: an image in memory, (C, H, W) or (H, W), floating point in [0, 1] or uint8, where NaN is no data;
                or a path: of a picture, a volume, or a scene that fits in memory; or a folder or glob of them.

        Returns:
            The prediction; of a folder or glob one for each file, by its name, all in memory.

        Raises:
            DataError: for an image that cannot be used.
            TopoLoRAError: if the network's answer is not a number.
        """
        if not isinstance(source, str | Path):
            return self._predicted([self._prepared(source)])
        items = find_images(source)
        check_items(items)
        self.find_scale(items)
        files = itertools.groupby(items, key=_file_name)  # in which the slices of a volume follow one another
        found = {name: self._predicted([self.load(item) for item in of]) for name, of in files}
        return next(iter(found.values())) if path_kind(source) == FILE or is_volume(source) else found

    def find_scale(self, items: Sequence[Item]) -> None:
        """Find the scale of images that are to be segmented, and say it; without ``match_scale`` nothing is done.

        Raises:
            DataError: if it is found in none of them; or one cannot be read.
            ConfigError: for a scene, whose scale has to be given.
        """
        self.scale.survey(items, self.load)

    def predict_item(self, item: Mapping[str, Any]) -> Prediction:
        """Segment the ``image`` of an item: a picture, the ``slice`` along ``axis`` of a volume, or a scene in memory.

        Raises:
            DataError, TopoLoRAError: as a call.
        """
        loaded = self.load(item)
        return self._predicted([{key: value for key, value in loaded.items() if key != "axis"}])

    def write(
        self,
        source: str | Path,
        output_dir: str | Path,
        *,
        probabilities: bool = True,
        polygons: bool = False,
        slice_axis: int | None = None,
    ) -> list[Path]:
        """Segment images and write masks and probabilities, as the bundles' ``inference.yaml`` does.

        Args:
            source: a file, a folder or a glob of pictures, volumes, and scenes of any size.
            output_dir: where to; created. See :class:`~topolora_monai.model.writing.MaskWriter` and
                :class:`~topolora_monai.model.scenes.SceneSegmenter` for the files.
            probabilities: of scenes: write them beside the masks.
            polygons: of scenes: also write a GeoPackage.
            slice_axis: that volumes are sliced along; by default the coarsest.

        Returns:
            The masks.

        Raises:
            DataError, TopoLoRAError: as a call; for an image that cannot be used before the first is segmented.
            OutputError: if results cannot be written; those written before are whole.
            ConfigError: if a package that is needed is not installed.
        """
        items = find_images(source, slice_axis)
        check_apart(output_dir, source, items)
        prepare_output(output_dir)
        write_classes(output_dir, self.spec.labels)
        check_items(items)
        self.find_scale(items)
        writer = MaskWriter(output_dir, self.spec.threshold, self.spec.activation)
        written: list[Path] = []
        scenes: list[Item] = []
        for item in items:
            if image_kind(item["image"]) == "raster":
                scenes.append(item)
                continue
            loaded = self.load(item)
            written += writer.add(loaded, *self._answer(loaded))
        if scenes:
            written += self.scene_segmenter(output_dir, probabilities, polygons).run(scenes)
        return written

    def scene_segmenter(
        self,
        output_dir: str | Path,
        probabilities: bool = True,
        polygons: bool = False,
        margin: int = _FILTER_MARGIN,
    ) -> SceneSegmenter:
        """What segments scenes of any size with this model; see there for what is written, and for the margin."""
        filters = self.load.transforms[1:]
        spec = self.spec
        looks = (self.flip_axes, self.quarter_turns)
        settings = (self.precision, spec.temperature, *looks, spec.clahe, spec.despeckle_looks)
        return SceneSegmenter(
            self.network,
            self.tiles,
            channels=spec.in_channels,
            scaling=spec.scaling,
            output_dir=output_dir,
            fingerprint=" ".join(map(str, (fingerprint(self.network.state_dict()), *settings))),
            threshold=spec.threshold,
            activation=spec.activation,
            temperature=spec.temperature,
            device=self.device,
            probabilities=probabilities,
            polygons=polygons,
            prepare=Compose(filters) if filters else None,
            margin=None if spec.clahe else margin,  # contrast is equalised by the whole image's
        )

    @torch.no_grad()
    def _answer(self, loaded: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Probabilities (K, H, W) of a loaded image, and entropies if asked for."""
        with eval_mode(self.network):
            logits = self.inferer(loaded["image"][None].to(self.device), self.network)[0]
        check_finite(logits, [str(loaded["name"])])
        latest = self.uncertainty.latest if self.uncertainty is not None else None
        return probabilities(logits, self.spec.activation), None if latest is None else latest.entropy[0]

    def _predicted(self, loaded: list[dict[str, Any]]) -> Prediction:
        """Of an image, or of the slices of a volume."""
        answers = [self._answer(one) for one in loaded]
        axis = loaded[0].get("axis")
        valid = _joined([one["fov"][0] > 0 for one in loaded], axis)
        probability = _joined([answer for answer, _ in answers], axis) * valid
        mask = mask_of(torch.from_numpy(probability), self.spec.threshold, self.spec.activation)
        unsure = [entropy for _, entropy in answers if entropy is not None]
        entropy = _joined(unsure, axis) * valid if unsure else None
        return Prediction(probability, mask * valid, self.spec.labels, valid, entropy)

    def _prepared(self, image: ArrayLike | Tensor) -> dict[str, Any]:
        """An image in memory as one that was loaded."""
        values = np.asarray(image.cpu() if isinstance(image, Tensor) else image)
        planes = values[None] if values.ndim == 2 else values
        channels = self.spec.in_channels
        if planes.ndim != 3 or len(planes) not in (channels, 1) or (len(planes) != channels and channels != 3):
            raise DataError(
                "image does not fit the network",
                expected=f"shape ({channels}, H, W)" + (" or (H, W)" if channels in (1, 3) else ""),
                found=values.shape,
                hint="channels come first",
            )
        if planes.dtype == np.uint8:
            planes = planes.astype(np.float32) / 255
        finite = np.isfinite(planes)
        if planes.dtype.kind != "f" or planes[finite].min(initial=0) < 0 or planes[finite].max(initial=0) > 1:
            raise DataError(
                "image holds other values than the network takes",
                expected="floating point in [0, 1], or uint8",
                found=f"{planes.dtype} up to {planes[finite].max(initial=0)}",
                hint="scale it as the training images were",
            )
        valid = finite.all(axis=0)
        ready = np.where(valid, planes, 0).astype(np.float32)
        item = {
            "image": torch.from_numpy(np.repeat(ready, channels // len(ready), axis=0)),
            "fov": torch.from_numpy(valid[None]).float(),
            "limits": torch.tensor([[0.0, 1.0]] * channels, dtype=torch.float64),
            "name": "in memory",
        }
        prepared: dict[str, Any] = Compose(self.load.transforms[1:])(item)
        return prepared


def _joined(planes: list[Tensor], axis: int | None) -> NDArray[Any]:
    """Slices (..., H, W) of a volume, in the place of their axis; the only plane of a picture as it is."""
    arrays = [plane.cpu().numpy() for plane in planes]
    return arrays[0] if axis is None else np.stack(arrays, axis - 3 if axis else -3)


def _file_name(item: Item) -> str:
    name = str(item["name"])
    return name.rpartition("_s")[0] if "slice" in item else name
