"""Where tiles lie in a scene."""

from __future__ import annotations

import dataclasses

from monai.data.utils import dense_patch_slices

__all__ = ["TileGrid"]


@dataclasses.dataclass(frozen=True)
class TileGrid:
    """Bands of square tiles at the positions of MONAI's sliding window.

    A scene smaller than a tile is padded on both sides to the size of one. Places are those in the padded scene
    unless they are called the source's.

    Args:
        height: of the scene in pixels.
        width: of the scene in pixels.
        crop: side of a tile in pixels.
        overlap: of neighbouring tiles, as a share of their side, at least 0 and less than 1.

    Example:
        >>> grid = TileGrid(height=20, width=70, crop=32, overlap=0.5)
        >>> grid.rows, grid.columns, grid.tiles, grid.top
        ([0], [0, 16, 32, 38], 4, 6)
        >>> grid.source_rows(0), grid.source_columns(16), grid.source_columns(38, margin=3)
        ((0, 20), (16, 48), (35, 70))
    """

    height: int
    width: int
    crop: int
    overlap: float

    @property
    def rows(self) -> list[int]:
        """First rows of the bands of tiles."""
        return self._starts(max(self.height, self.crop))

    @property
    def columns(self) -> list[int]:
        """First columns of the tiles of a band."""
        return self._starts(self.padded_width)

    @property
    def padded_width(self) -> int:
        """Columns of the padded scene."""
        return max(self.width, self.crop)

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return len(self.rows) * len(self.columns)

    @property
    def top(self) -> int:
        """Rows of padding above the scene."""
        return max(self.crop - self.height, 0) // 2

    @property
    def left(self) -> int:
        """Columns of padding left of the scene."""
        return max(self.crop - self.width, 0) // 2

    def step(self, band: int) -> int:
        """Rows of a band that no later band reaches."""
        rows = self.rows
        return rows[band + 1] - rows[band] if band + 1 < len(rows) else self.crop

    def source_rows(self, band: int, margin: int = 0) -> tuple[int, int]:
        """First and last + 1 row of the source under a band, and up to ``margin`` more on either side."""
        return self._under(self.rows[band], self.height, margin)

    def source_columns(self, start: int, margin: int = 0) -> tuple[int, int]:
        """As :meth:`source_rows`, the columns under a tile that starts at column ``start``."""
        return self._under(start, self.width, margin)

    def finished(self, band: int) -> tuple[slice, slice]:
        """Rows and columns of a band that are in the scene and that no later band reaches."""
        rows = slice(self.top, self.top + min(self.step(band), self.height))
        return rows, slice(self.left, self.left + self.width)

    def _under(self, start: int, size: int, margin: int) -> tuple[int, int]:
        # Only what is smaller than a tile is padded, and then its one tile starts at 0.
        return max(start - margin, 0), min(start + self.crop + margin, size)

    def _starts(self, size: int) -> list[int]:
        step = max(int(self.crop * (1 - self.overlap)), 1)
        return [int(place.start) for (place,) in dense_patch_slices((size,), (self.crop,), (step,))]
