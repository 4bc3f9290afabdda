"""What is too large to be held in memory, and what to do with it."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

from topolora_monai.errors import DataError

__all__ = ["CUT_HINT", "SCENE_HINT", "memory_bytes", "require_memory"]

SCENE_HINT = (
    "to segment it, make it a scene, which is read piece by piece: "
    "gdal_translate -a_ullr 0 0 WIDTH -HEIGHT -co TILED=YES -co COMPRESS=DEFLATE -co BIGTIFF=IF_SAFER IMAGE scene.tif"
)
CUT_HINT = (
    "cut it and its mask into tiles of the same names, for example with "
    "gdal_retile.py -ps 4096 4096 -targetDir TILES IMAGE; only inference reads scenes piece by piece"
)

_MOST_PIXELS = 2**31
_ELSEWHERE = 8 * 2**30
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def memory_bytes() -> int:
    """Memory of this machine, or of the container where that has less; 8 GiB where the system does not say."""
    if sys.platform == "win32":
        return _ELSEWHERE
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(_CGROUP.read_text()))
    except (OSError, ValueError):  # not there, or "max"
        return total


def require_memory(path: str | Path, shape: tuple[int, ...], bytes_per_pixel: int, hint: str) -> None:
    """Refuse what cannot be held in memory while it is read, before anything of it is.

    Args:
        path: the file.
        shape: in pixels, the columns last.
        bytes_per_pixel: needed at the peak.
        hint: what to do with a larger one.

    Raises:
        DataError: if it needs more than this machine has, or has more than 2^31 pixels.
    """
    pixels, there = math.prod(shape), memory_bytes()
    if pixels * bytes_per_pixel > there or pixels > _MOST_PIXELS:
        raise DataError(
            "image is too large",
            path=path,
            expected=f"at most {min(there // bytes_per_pixel, _MOST_PIXELS) / 1e6:,.0f} megapixels, "
            f"which is what {there / 1e9:.1f} GB of memory hold",
            found=f"{' x '.join(f'{length:,}' for length in reversed(shape))} pixels, the width first, "
            f"which need {pixels * bytes_per_pixel / 1e9:.1f} GB",
            hint=hint,
        )
