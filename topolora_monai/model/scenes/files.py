"""Outputs that are either whole or not there, and that say what they were made with."""

from __future__ import annotations

from functools import partial

from topolora_monai.io import atomic

__all__ = ["DIGEST_TAG", "writing", "written_whole"]

DIGEST_TAG = "SETTINGS_SHA256"
"""Metadata item of an output that tells its source and settings."""

_RESUME = "start again to continue"

written_whole = partial(atomic.atomic_write, what="a prediction", instead=_RESUME)
"""A place beside a path, as :func:`~topolora_monai.io.atomic.atomic_write` gives."""

writing = partial(atomic.writing, what="a prediction", instead=_RESUME)
"""Turn what goes wrong while something is written to a path into an ``OutputError``."""
