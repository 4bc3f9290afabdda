"""Whether what a volume's file holds is what was written, as far as its checksums tell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO

from topolora_monai.io.streams import inflated

__all__ = ["check_stream"]

_LONGEST_HEADER = 1 << 20


def check_stream(path: Path) -> None:
    """Read the compressed part of a NIfTI, NRRD or MetaImage file to its end.

    nibabel and ITK stop reading once they have their voxels, before the checksum. Files without a compressed part,
    and folders, pass.

    Raises:
        EOFError, zlib.error: if the stream breaks off or is damaged.
    """
    name = path.name.lower()
    if not name.endswith((".nii.gz", ".nrrd", ".mha")):
        return
    with path.open("rb") as file:
        if name.endswith(".nrrd"):
            compressed = _skip_nrrd_header(file)
        elif name.endswith(".mha"):
            compressed = _skip_meta_header(file)
        else:
            compressed = True
        if compressed:
            for _ in inflated(file):
                pass


def _skip_nrrd_header(file: IO[bytes]) -> bool:
    """Move to the voxels; whether they follow as gzip. The header ends with an empty line."""
    encoding = b""
    for line in iter(lambda: file.readline(_LONGEST_HEADER).rstrip(b"\r\n"), b""):
        if match := re.fullmatch(rb"encoding:\s*(\S+)\s*", line, re.IGNORECASE):
            encoding = match[1].lower()
        elif re.match(rb"data ?file:", line, re.IGNORECASE):
            return False
    return encoding in (b"gzip", b"gz")


def _skip_meta_header(file: IO[bytes]) -> bool:
    """Move to the voxels; whether they follow as zlib. The header ends with the line that says where they are."""
    compressed = False
    for line in iter(lambda: file.readline(_LONGEST_HEADER), b""):
        name, _, value = (part.strip().lower() for part in line.partition(b"="))
        if name == b"compresseddata":
            compressed = value == b"true"
        elif name == b"elementdatafile":
            return compressed and value == b"local"
    return False
