"""How much one request may carry."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException
from starlette.responses import JSONResponse

__all__ = ["LimitBody"]


class LimitBody:
    """Answers 413 to a request with a larger body, whether it says so or not; an ASGI middleware.

    Args:
        app: what to guard.
        most: bytes.
    """

    def __init__(self, app: Any, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._most:
            return await JSONResponse({"detail": self._sentence()}, 413)(scope, receive, send)
        received = 0

        async def counted() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._most:
                raise HTTPException(413, self._sentence())
            return message

        return await self._app(scope, counted, send)

    def _sentence(self) -> str:
        return f"a request may carry at most {self._most:,} bytes"
