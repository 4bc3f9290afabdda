"""Images of any size in overlapping tiles: where these lie, and what a network says of them put together."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import Inferer
from monai.utils import convert_to_dst_type, convert_to_tensor
from torch import Tensor

from topolora_monai.errors import ConfigError

__all__ = ["BandBlend", "TileBlend", "TileGrid", "TileInferer", "blended_logits"]

Infer = Callable[[Tensor], Tensor]
"""Logits (N, K, crop, crop) of tiles (N, C, crop, crop)."""


@dataclasses.dataclass(frozen=True)
class TileGrid:
    """Bands of square tiles at the positions of MONAI's sliding window.

    An image smaller than a tile is padded on both sides to the size of one. Places are those in the padded image
    unless they are called the source's. Sizes are in pixels, the overlap is a share of the tiles' side.

    Raises:
        ConfigError: for a ``crop`` below 1, or an ``overlap`` that is not at least 0 and less than 1.

    Example:
        >>> grid = TileGrid(height=20, width=70, crop=32, overlap=0.5)
        >>> grid.rows, grid.columns, grid.tiles, grid.top
        ([0], [0, 16, 32, 38], 4, 6)
        >>> grid.source_rows(0), grid.source_columns(16), grid.source_columns(38, margin=3)
        ((0, 20), (16, 48), (35, 70))
        >>> grid.batches(3)
        [[0, 16], [32, 38]]
    """

    height: int
    width: int
    crop: int
    overlap: float

    def __post_init__(self) -> None:
        if self.crop < 1:
            raise ConfigError("crop_size must be at least 1", found=self.crop)
        if not 0 <= self.overlap < 1:
            raise ConfigError(
                "overlap is a share of the tile", expected="at least 0 and less than 1", found=self.overlap
            )

    @property
    def rows(self) -> list[int]:
        """First rows of the bands of tiles."""
        return self._starts(max(self.height, self.crop))

    @property
    def columns(self) -> list[int]:
        """First columns of the tiles of a band."""
        return self._starts(self.padded_width)

    def batches(self, most: int) -> list[list[int]]:
        """Columns of a band's tiles in parts of about equal size, of at most so many.

        What a network says of a tile depends on how many it is asked about at once, in the last bits, so all ask alike.
        """
        columns = self.columns
        count = -(-len(columns) // most)
        ends = [len(columns) * part // count for part in range(count + 1)]
        return [columns[start:end] for start, end in itertools.pairwise(ends)]

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Row and column of each tile's first pixel in the image, in order; negative where it is larger than that."""
        return [(row - self.top, column - self.left) for row in self.rows for column in self.columns]

    @property
    def padded_width(self) -> int:
        """Columns of the padded image."""
        return max(self.width, self.crop)

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return len(self.rows) * len(self.columns)

    @property
    def padding(self) -> tuple[int, int, int, int]:
        """Columns of padding left and right of the image, rows above and below; in torch's order."""
        across, down = max(self.crop - self.width, 0), max(self.crop - self.height, 0)
        return across // 2, across - across // 2, down // 2, down - down // 2

    @property
    def top(self) -> int:
        """Rows of padding above the image."""
        return self.padding[2]

    @property
    def left(self) -> int:
        """Columns of padding left of the image."""
        return self.padding[0]

    def step(self, band: int) -> int:
        """Rows of a band that no later band reaches."""
        start, *later = self.rows[band : band + 2]
        return later[0] - start if later else self.crop

    def source_rows(self, band: int, margin: int = 0) -> tuple[int, int]:
        """First and last + 1 row of the source under a band, and up to ``margin`` more on either side."""
        return self._under(self.rows[band], self.height, margin)

    def source_columns(self, start: int, margin: int = 0) -> tuple[int, int]:
        """As :meth:`source_rows`, the columns under a tile that starts at column ``start``."""
        return self._under(start, self.width, margin)

    def finished(self, band: int) -> tuple[slice, slice]:
        """Rows and columns of a band that are in the image and that no later band reaches."""
        rows = slice(self.top, self.top + min(self.step(band), self.height))
        return rows, slice(self.left, self.left + self.width)

    def _under(self, start: int, size: int, margin: int) -> tuple[int, int]:
        # Only what is smaller than a tile is padded, and then its one tile starts at 0.
        return max(start - margin, 0), min(start + self.crop + margin, size)

    def _starts(self, size: int) -> list[int]:
        step = max(int(self.crop * (1 - self.overlap)), 1)
        return [int(place.start) for (place,) in dense_patch_slices((size,), (self.crop,), (step,))]


class TileBlend:
    """Logits (K, H, W), by ``shape``, of overlapping tiles of a side, and the sum of their weights, MONAI's Gaussian.

    Example:
        >>> blend = TileBlend((1, 4, 6), 4)
        >>> for answer, column in ((1.0, 0), (3.0, 4)):
        ...     blend.add(torch.full((1, 4, 4), answer), 0, column)
        >>> blend.logits()[0, 0].tolist()
        [1.0, 1.0, 1.0, 1.0, 3.0, 3.0]
    """

    def __init__(self, shape: Sequence[int], size: int, device: str | torch.device = "cpu") -> None:
        classes, height, width = shape
        self.sums = torch.zeros(classes + 1, height, width, device=device)
        self._window = compute_importance_map((size, size), mode="gaussian", device=device)

    def add(self, answer: Tensor, row: int, column: int) -> None:
        """Take the answer (K, size, size) of the tile whose first pixel is there, be it outside."""
        (height, width), size = self.sums.shape[1:], len(self._window)
        top, left, bottom, right = max(0, row), max(0, column), min(height, row + size), min(width, column + size)
        part = (..., slice(top - row, bottom - row), slice(left - column, right - column))
        sums, window = self.sums[:, top:bottom, left:right], self._window[part]
        sums[:-1] += answer[part] * window
        sums[-1] += window

    def logits(self) -> Tensor:
        """Weighted means (K, H, W); 0 where there is no answer."""
        return blended_logits(self.sums)

    @property
    def answered(self) -> Tensor:
        """Where there is an answer, (H, W)."""
        return self.sums[-1] > 0


def blended_logits(sums: Tensor) -> Tensor:
    """Logits (K, ...) of the sums (K + 1, ...) of weighted ones and, last, of the weights; 0 where these are."""
    return sums[:-1] / sums[-1].clamp(min=torch.finfo(sums.dtype).tiny)


@dataclasses.dataclass
class BandBlend:
    """What a network says of an image, band by band of tiles, from the first row to the last.

    Only one band is in memory. Whole images in memory and scenes of any size get the same sums, in every bit.

    Args:
        grid: of the tiles.
        infer: the network.
        batch_size: most tiles at once, at least 1.
        device: of the sums.
        carry: sums (K + 1, rows, padded width) that the first band starts from; then those of the last band's rows
            that the next one reaches.
    """

    grid: TileGrid
    infer: Infer
    batch_size: int = 4
    device: str | torch.device = "cpu"
    carry: Tensor | None = None

    def band(
        self,
        index: int,
        tile: Callable[[int], Tensor],
        wanted: Callable[[int], bool] = lambda column: True,
        classes: int | None = None,
    ) -> Tensor:
        """Add a band's tiles.

        Args:
            index: of the band; those before it were added.
            tile: gives the tile (C, crop, crop) that starts at a column.
            wanted: whether it matters; tiles are left out only with all others of their batch.
            classes: K, where no tile may be wanted.

        Returns:
            Sums (K + 1, rows, W) of weighted logits and of weights, of rows that no later band reaches.

        Raises:
            ConfigError: if the network changes the size of a tile.
        """
        grid, blend = self.grid, None if classes is None else self._start(classes)
        for columns in grid.batches(self.batch_size):
            if not any(map(wanted, columns)):
                continue
            tiles = torch.stack([tile(column) for column in columns])
            answers = self.infer(tiles)
            if answers.shape[2:] != tiles.shape[2:]:
                raise ConfigError(
                    "the network changes the size of a tile", expected=tiles.shape[2:], found=answers.shape[2:]
                )
            blend = blend or self._start(answers.shape[1])
            for answer, column in zip(answers.float().to(self.device), columns, strict=True):
                blend.add(answer, 0, column)
        assert blend is not None  # a tile was wanted, or the classes given
        self.carry = blend.sums[:, grid.step(index) :].clone()
        rows, columns_inside = grid.finished(index)
        return blend.sums[:, rows, columns_inside]

    def _start(self, classes: int) -> TileBlend:
        blend = TileBlend((classes, self.grid.crop, self.grid.padded_width), self.grid.crop, self.device)
        if self.carry is not None:
            blend.sums[:, : self.carry.shape[1]] = self.carry
        return blend


class TileInferer(Inferer):
    """Run a network on overlapping tiles of images in memory and blend its logits.

    The tiles, weights and, but for the last bits, the result are those of MONAI's
    ``SlidingWindowInferer(mode="gaussian")``. Mirror images are to be averaged inside, tile by tile. Scenes that are
    not in memory get the same, see :class:`~topolora_monai.model.scenes.SceneSegmenter`.

    Args:
        inferer: MONAI inferer that runs the network on a batch of tiles.
        crop_size: side of a tile in pixels.
        overlap: of neighbouring tiles, as a share of their side, at least 0 and less than 1.
        batch_size: most tiles at once.
        crop_of: side of the tiles of an image (C, H, W), where it is not that of all.

    Raises:
        ConfigError: for an impossible setting.

    Example:
        >>> from monai.inferers import SimpleInferer
        >>> image = torch.rand(1, 3, 50, 70)
        >>> torch.allclose(TileInferer(SimpleInferer(), 32)(image, torch.nn.Identity()), image)
        True
    """

    def __init__(
        self,
        inferer: Inferer,
        crop_size: int,
        overlap: float = 0.5,
        batch_size: int = 4,
        crop_of: Callable[[Tensor], int] | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ConfigError("batch_size must be at least 1", found=batch_size)
        TileGrid(1, 1, crop_size, overlap)
        self.inferer = inferer
        self.crop_size = crop_size
        self.overlap = overlap
        self.batch_size = batch_size
        self.crop_of = crop_of

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Logits (B, K, H, W), float32, of images (B, C, H, W)."""
        images: Tensor = convert_to_tensor(inputs, track_meta=False)  # MONAI's own kind slows every operation

        def infer(tiles: Tensor) -> Tensor:
            logits: Tensor = self.inferer(tiles, network, *args, **kwargs)
            return logits

        logits = torch.stack([self._whole(image, infer) for image in images])
        return convert_to_dst_type(logits, inputs, dtype=logits.dtype)[0]

    def _whole(self, image: Tensor, infer: Infer) -> Tensor:
        crop = self.crop_size if self.crop_of is None else self.crop_of(image)
        grid = TileGrid(image.shape[-2], image.shape[-1], crop, self.overlap)
        padded = F.pad(image, grid.padding)
        blend = BandBlend(grid, infer, self.batch_size, padded.device)

        def tile(row: int, column: int) -> Tensor:
            return padded[:, row : row + grid.crop, column : column + grid.crop]

        bands = [blend.band(index, partial(tile, row)) for index, row in enumerate(grid.rows)]
        return blended_logits(torch.cat(bands, dim=1))
