"""What is too large to be held in memory and what to do with it; compressed streams, which may be of any size."""

import math
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from topolora_monai.errors import DataError

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
_GZIP_OR_ZLIB = 47
"""zlib's name for: whichever of the two the first bytes say, with the largest window."""
_CHUNK = 1 << 20


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
    """Refuse an image, the columns last in its shape, that memory does not hold at the peak, before any of it is read.

    A ``DataError`` if it needs more than this machine has, or has more than 2^31 pixels; says ``hint``.
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


def inflated(file: IO[bytes]) -> Iterator[bytes]:
    """Decompress gzip members or one zlib stream, some of it at a time.

    Readers that stop where they have as much as they need never reach the checksum behind it, and take damaged
    content for sound. Zeros behind the last member are padding.

    Raises:
        EOFError, zlib.error: if the stream breaks off, is damaged, or something else follows it.
        ValueError: if it holds more than half of what fits in memory.

    Example:
        >>> import gzip, io
        >>> b"".join(inflated(io.BytesIO(gzip.compress(b"one ") + gzip.compress(b"two"))))
        b'one two'
    """
    left, room = file.read(_CHUNK), memory_bytes() // 2
    while True:
        stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        while not stream.eof:
            left = left or file.read(_CHUNK)
            if not left:
                raise EOFError("compressed stream breaks off")
            content = stream.decompress(left, _CHUNK)
            room -= len(content)
            if room < 0:
                raise ValueError("compressed stream holds more than fits in memory")
            yield content
            left = stream.unconsumed_tail
        left = stream.unused_data or file.read(_CHUNK)
        while left and not left.strip(b"\0"):
            left = file.read(_CHUNK)
        left = left.lstrip(b"\0")
        if not left:
            return
