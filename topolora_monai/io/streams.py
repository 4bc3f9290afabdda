"""Compressed streams read to their end, where their checksums are."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import IO

from topolora_monai.io.memory import memory_bytes

__all__ = ["inflated"]

_GZIP_OR_ZLIB = 47
"""zlib's name for: whichever of the two the first bytes say, with the largest window."""
_CHUNK = 1 << 20


def inflated(file: IO[bytes]) -> Iterator[bytes]:
    """Decompress gzip members or one zlib stream, some of it at a time.

    Readers that stop where they have as much as they need never reach the checksum behind it, and take damaged
    content for sound. Zeros behind the last member are padding.

    Args:
        file: at the start of the stream.

    Raises:
        EOFError: if the stream breaks off.
        ValueError: if it holds more than half of what fits in memory.
        zlib.error: if it is damaged, its checksum is another, or something else follows it.

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
