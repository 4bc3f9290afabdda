"""Where the package keeps what it can make again."""

from __future__ import annotations

from topolora_monai.io.places import user_cache

__all__ = ["user_cache"]
