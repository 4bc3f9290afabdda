"""Segmentation of scenes, tile by tile."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.networks.utils import eval_mode
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from topolora_monai.errors import ConfigError
from topolora_monai.io.places import prepare_output
from topolora_monai.io.rasters import open_raster
from topolora_monai.metrics import check_threshold
from topolora_monai.model.inferers import check_finite
from topolora_monai.model.scenes.files import SceneParts, raster_digest, stored_probabilities, write_geotiffs
from topolora_monai.model.scenes.polygons import layer_digest, require_polygon_packages, scene_placing, write_polygons
from topolora_monai.model.scenes.reading import Prepare, Scene, TileReader, open_scene
from topolora_monai.model.tiling import BandBlend, TileInferer, blended_logits
from topolora_monai.model.writing import decided
from topolora_monai.networks.activation import Activation, check_activation
from topolora_monai.transforms.intensity import IntensityScaling

if TYPE_CHECKING:
    from topolora_monai.data import Item

_logger = logging.getLogger(__name__)

_GDAL_CACHE_BYTES = 256 * 2**20  # GDAL's own choice is a share of the machine's memory


@dataclasses.dataclass(eq=False)
class SceneSegmenter:
    """Segment rasters larger than memory and write GeoTIFF with the source's georeference.

    Logits are bit for bit those that a :class:`~topolora_monai.model.tiling.TileInferer` gives on the whole image.
    Only one band of tiles is in memory at a time. Pixels that are nodata, masked or not finite are 0 in the image and
    nodata in the output; tiles without a valid pixel are not run, but with others of their batch.

    Values are scaled as :func:`~topolora_monai.io.read_image` and its users do: pictures by their bit depth,
    measurements by ``scaling``, with limits taken once per scene from about a million of its pixels, so that all
    tiles agree.

    What training did to whole images after scaling them, such as despeckling, is done to each tile by ``prepare``.
    A tile is read with a margin for it, which is cut off afterwards, and ends where the scene does. So a filter
    whose result depends on pixels at most ``margin`` away, and which draws nothing at random, gives what it gives
    on the whole scene, at its border too.

    Written for each item, ``_K`` standing for the class, from 1, only where there are several:

    * ``NAME_mask_K.tif``: uint8, 0 and 1, nodata 255; where classes exclude one another, ``NAME_mask.tif`` with the
      number of the most probable class, 0 for the background;
    * ``NAME_probability_K.tif``: uint16 as :func:`~topolora_monai.metrics.to_16_bit`, at most 65534, nodata
      65535, with the band scale 1/65536;
    * ``NAME.gpkg``: layer ``mask_K`` of 4-connected foreground regions, with ``id`` from 1 and ``area`` in
      squared units of the CRS, or in pixels where the scene has no georeference; placed by the affine transform, else
      by the ground control points.

    Finished rows are kept in ``.NAME.parts`` until a scene is done. After an interruption, the same call
    continues with the band of tiles that was under way; if the source or a setting has changed, it starts over.
    A scene whose outputs exist already, of the same source and settings, is passed over.

    Args:
        network: maps images (B, C, h, w) in [0, 1] to logits (B, K, h, w).
        tiles: how they lie and are run.
        channels: C, see :func:`~topolora_monai.io.read_bands` for the bands that are taken.
        scaling: of measurements.
        output_dir: where to; created.
        fingerprint: any text that changes with the weights and with whatever else decides the logits, such as
            precision, mirrored copies or ``prepare`` and its settings; results of another one are never continued.
        threshold: foreground is ``probability >= threshold``.
        temperature: that the blended logits are divided by.
        device: the network's.
        probabilities: whether to write them.
        polygons: likewise.
        prepare: MONAI dictionary transform, or several in a ``Compose``, that takes ``image``, float32 (C, h, w)
            in [0, 1]; ``fov``, float32 (1, h, w), 1 where valid; and ``limits``, float64 (C, 2), what the scene
            was scaled between, 0 and 1 for pictures. Its ``image``, of the same shape, goes to the network. Tiles
            at the scene's border are smaller than others. None leaves tiles as they are.
        activation: what makes probabilities of logits; ``"softmax"`` makes several classes exclude one another, and
            then there is no threshold.
        margin: pixels around a tile that ``prepare`` gets, too; no less than the reach of its filters, which is
            half the window of :class:`~topolora_monai.transforms.RefinedLeed`. None has it prepare whole scenes, in
            memory, as filters need whose result depends on all of an image. Not used without ``prepare``.

    Raises:
        ConfigError: for an impossible setting, or if the packages for polygons are not installed.

    Example:
        >>> import tempfile, rasterio
        >>> from monai.inferers import SimpleInferer
        >>> from topolora_monai.model.tiling import TileInferer
        >>> folder = Path(tempfile.mkdtemp())
        >>> profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "height": 40, "width": 50}
        >>> grid = rasterio.Affine(10, 0, 500000, 0, -10, 4649000)
        >>> with rasterio.open(folder / "scene.tif", "w", **profile, crs="EPSG:32633", transform=grid) as scene:
        ...     scene.write(np.tile(np.uint8([0, 255]), (1, 40, 25)))
        >>> segmenter = SceneSegmenter(
        ...     lambda image: 8 * image - 4, TileInferer(SimpleInferer(), 32), 1, IntensityScaling(), folder, "none"
        ... )
        >>> (mask,) = segmenter.run([{"name": "scene", "image": str(folder / "scene.tif")}])
        >>> with rasterio.open(mask) as written:
        ...     mask.name, written.crs.to_epsg(), written.transform == grid, written.read(1)[0, :4].tolist()
        ('scene_mask.tif', 32633, True, [0, 1, 0, 1])
    """

    network: Callable[[Tensor], Tensor]
    tiles: TileInferer
    channels: int
    scaling: IntensityScaling
    output_dir: str | Path
    fingerprint: str
    threshold: float = 0.5
    temperature: float = 1.0
    device: str | torch.device = "cpu"
    probabilities: bool = True
    polygons: bool = False
    prepare: Prepare | None = None
    margin: int | None = 0
    activation: Activation = "sigmoid"

    def __post_init__(self) -> None:
        if self.margin is not None and self.margin < 0:
            raise ConfigError("margin must not be negative", found=self.margin)
        check_activation(self.activation)
        self.threshold = check_threshold(self.threshold)
        if self.polygons:
            require_polygon_packages()
        self.margin = 0 if self.prepare is None else self.margin
        self._folder = Path(self.output_dir)

    def run(self, items: Sequence[Item]) -> list[Path]:
        """Segment scenes, one after the other: items of a ``name`` and an ``image`` that rasterio reads.

        Returns:
            The mask files, in the order of the items.

        Raises:
            ConfigError: if rasterio is not installed, the network changes the size of an image, or ``prepare`` its
                shape.
            DataError: if a scene cannot be read, has other bands than the network needs, or no place for polygons
                that are asked for; scenes are opened before the first is segmented.
            OutputError: if results cannot be written; what was finished is kept.
        """
        scenes = [self._opened(item["name"], Path(item["image"]).absolute()) for item in items]
        prepare_output(self._folder)
        import rasterio  # noqa: PLC0415 - an optional dependency, there since the scenes could be opened

        with (
            rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE_BYTES),
            eval_mode(self.network),
            tqdm(
                desc="tiles",
                total=sum(scene.grid.tiles for scene in scenes),
                mininterval=0.5 if sys.stderr.isatty() else 30.0,
                dynamic_ncols=True,
            ) as bar,
        ):
            side = self.tiles.crop_size
            probe = torch.zeros(1, self.channels, side, side, device=self.device)
            classes = int(self.tiles.inferer(probe, self.network).shape[1]) if scenes else 0
            return [path for scene in scenes for path in self._segment(scene, classes, bar)]

    def _opened(self, name: str, path: Path) -> Scene:
        if self.polygons:
            with open_raster(path) as source:
                scene_placing(source)  # or an error
        return open_scene(name, path, self.channels, self.tiles.crop_size, self.tiles.overlap)

    def _segment(self, scene: Scene, classes: int, bar: tqdm[Any]) -> list[Path]:
        """Make whatever output of a scene is missing."""
        limits = scene.limits(self.scaling)
        settings = self._settings(scene, classes, limits)
        digest = hashlib.sha256(f"{settings}{self.threshold!r}".encode()).hexdigest()
        exclusive = classes > 1 and self.activation == "softmax"
        suffixes = [f"_{number}" for number in range(1, classes + 1)] if classes > 1 else [""]
        masks = [self._folder / f"{scene.name}_mask{suffix}.tif" for suffix in ([""] if exclusive else suffixes)]
        probabilities = [self._folder / f"{scene.name}_probability{suffix}.tif" for suffix in suffixes]
        parts = SceneParts(self._folder / f".{scene.name}.parts")
        if all(raster_digest(path) == digest for path in [*masks, *(probabilities if self.probabilities else [])]):
            _logger.info("%s is segmented already", scene.name)
            _pass_over(bar, scene.grid.tiles)
        else:
            parts.open(settings)
            self._run_bands(scene, classes, limits, parts, bar)
            if self.probabilities:
                write_geotiffs(scene.path, parts.rows(), probabilities, digest)
            decide = partial(decided, threshold=self.threshold, activation=self.activation)
            write_geotiffs(scene.path, parts.rows(), masks, digest, decide)
        parts.remove()
        if self.polygons:
            vectors = self._folder / f"{scene.name}.gpkg"
            layers = {
                f"mask{suffix}": (masks[0], number) if exclusive else (masks[number - 1], 1)
                for number, suffix in enumerate(suffixes, start=1)
            }
            if any(layer_digest(vectors, layer) != digest for layer in layers):
                write_polygons(layers, vectors, digest)
        return masks

    def _settings(self, scene: Scene, classes: int, limits: NDArray[np.float64]) -> str:
        """What finished rows depend on; they hold probabilities, so the threshold is not among it."""
        status = scene.path.stat()
        content = {
            "source": str(scene.path),
            "bytes": status.st_size,
            "modified_ns": status.st_mtime_ns,
            "fingerprint": self.fingerprint,
            "channels": self.channels,
            "scaling": self.scaling.to_dict(),
            "classes": classes,
            "limits": limits.tolist(),
            "crop_size": self.tiles.crop_size,
            "overlap": self.tiles.overlap,
            "temperature": self.temperature,
            "prepared": self.prepare is not None,
            "margin": self.margin,
            "activation": self.activation,
        }
        return json.dumps(content, indent=2)

    def _run_bands(
        self, scene: Scene, classes: int, limits: NDArray[np.float64], parts: SceneParts, bar: tqdm[Any]
    ) -> None:
        """Fill ``parts`` with the bands that are not there yet."""
        grid = scene.grid
        first = parts.finished(len(grid.rows))
        if first:
            _logger.info("%s continues after %d of %d bands of tiles", scene.name, first, len(grid.rows))
            _pass_over(bar, first * len(grid.columns))
        if first == len(grid.rows):
            return
        carry = torch.from_numpy(parts.carry(first)).to(self.device) if first else None

        def infer(tiles: Tensor) -> Tensor:
            logits: Tensor = self.tiles.inferer(tiles.to(self.device), self.network)
            check_finite(logits, [scene.name])
            return logits

        blend = BandBlend(grid, infer, self.tiles.batch_size, self.device, carry)
        with open_raster(scene.path) as source:
            reader = TileReader(scene, source, self.scaling, limits, self.prepare, self.margin)
            for index in range(first, len(grid.rows)):
                band = reader.read(index)
                sums = blend.band(
                    index, partial(reader.tile, band), wanted=partial(reader.has_data, band), classes=classes
                )
                logits = blended_logits(sums) / self.temperature
                valid = band.valid[band.own][: sums.shape[1]]
                assert blend.carry is not None  # there was a band
                parts.save(index, stored_probabilities(logits, valid, self.activation), blend.carry.cpu().numpy())
                bar.update(len(grid.columns))


def _pass_over(bar: tqdm[Any], tiles: int) -> None:
    """Advance by tiles of an earlier run, which say nothing about the speed of this one."""
    bar.initial += tiles
    bar.n += tiles
    bar.last_print_n += tiles
    bar.refresh()
