"""Pages without scripts, which every content policy allows: what the interface is, and the server's log."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response

_LOOKS = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}"
    "pre{overflow:auto;font-size:.85rem}code{font-weight:600}table{border-collapse:collapse;margin:.5rem 0}"
    "td,th{text-align:left;padding:.1rem 1rem .1rem 0;vertical-align:top}:root{color-scheme:light dark}"
)
_LEAST_SECONDS = 3


def interface_page(schema: Mapping[str, Any]) -> str:
    """An OpenAPI schema as HTML: every endpoint with what it says of itself and its parameters.

    Example:
        >>> told = {"get": {"summary": "Tell <b>", "parameters": [{"name": "image", "in": "query", "required": True}]}}
        >>> page = interface_page({"info": {"title": "label"}, "paths": {"/info/": told}})
        >>> "GET /info/" in page, "Tell &lt;b&gt;" in page, "<script" in page
        (True, True, False)
    """
    title = escape(f"{schema['info']['title']} {schema['info'].get('version', '')}".strip())
    parts = [part for path, told in schema["paths"].items() for part in _endpoints(path, told)]
    intro = '<p>All of it for programs: <a href="/openapi.json">openapi.json</a></p>'
    return _page(title, f"<h1>{title}</h1>{intro}{''.join(parts)}")


def log_page(logger_file: str, lines: int, html: bool, text: bool, refresh: int) -> Response:
    """In the place of MONAI Label's: the last lines of a file as a page that loads nothing from elsewhere, or as text.

    Without ``lines`` it is the whole file; ``refresh`` are the seconds after which the page is loaded again.
    """
    path = Path(logger_file)
    if not path.is_file():
        raise HTTPException(404, "there is no log yet")
    if lines <= 0:
        return FileResponse(path, media_type="text/plain")
    with path.open(encoding="utf-8", errors="replace") as stream:
        found = "".join(deque(stream, lines))
    if text or not html:
        return PlainTextResponse(found)
    again = f'<meta http-equiv="refresh" content="{max(refresh, _LEAST_SECONDS)}">' if refresh else ""
    return HTMLResponse(_page("Log", f"<h1>Log</h1><pre>{escape(found)}</pre>", again))


def _endpoints(path: str, told: Mapping[str, Any]) -> Iterator[str]:
    for method, entry in told.items():
        about = entry.get("description") or entry.get("summary") or ""
        yield f"<h2><code>{escape(f'{method.upper()} {path}')}</code></h2><p>{escape(about)}</p>"
        body = ", ".join(entry.get("requestBody", {}).get("content", {}))
        rows = [(each["name"], each["in"], bool(each.get("required"))) for each in entry.get("parameters", [])]
        rows += [(body, "body", bool(entry["requestBody"].get("required")))] if body else []
        if rows:
            cells = "".join(
                f"<tr><td><code>{escape(name)}</code></td><td>{place}</td><td>{'needed' * needed}</td></tr>"
                for name, place, needed in rows
            )
            yield f"<table>{cells}</table>"


def _page(title: str, body: str, head: str = "") -> str:
    start = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>{head}'
    return f"{start}<style>{_LOOKS}</style></head><body>{body}</body></html>"
