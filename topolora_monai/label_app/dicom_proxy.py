"""The way of OHIF to the DICOM server, for DICOMweb alone."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import requests
from fastapi import HTTPException
from monailabel.config import settings
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

__all__ = ["forward"]


async def forward(request: Any, op: str, path: str) -> Response:
    """Pass a request on to the DICOM server and its answer back.

    Args:
        request: with its method, query and body; of its headers only those that describe the body go on.
        op: ``wado``, ``qido``, ``stow`` or nothing, which names the prefix to use.
        path: below that prefix.

    Raises:
        HTTPException: 404 without a DICOM server, 400 for a path that leads out, 502 if the server does not answer.
    """
    server = settings.MONAI_LABEL_STUDIES.rstrip("/")
    if not server.startswith(("http://", "https://")):
        raise HTTPException(404, "the studies are not on a DICOM server")
    if any(part in ("..", ".") for part in unquote(unquote(path)).replace("\\", "/").split("/")):
        raise HTTPException(400, "the path leads out of DICOMweb")
    op = "wado" if op == "qido" and path.endswith("metadata") else op  # as some releases of OHIF ask
    prefix = getattr(settings, f"MONAI_LABEL_{op.upper()}_PREFIX", None) if op else None
    address = "/".join(part for part in (server, prefix, path) if part)
    headers = {name: value for name, value in request.headers.items() if name in ("accept", "content-type")}
    body = await request.body()
    answer = await run_in_threadpool(_ask, request.method, address, request.url.query, headers, body)
    return Response(
        answer.content,
        answer.status_code,
        {name: value for name, value in answer.headers.items() if name.lower() == "content-type"},
    )


def _ask(method: str, address: str, query: str, headers: dict[str, str], body: bytes) -> requests.Response:
    name, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
    try:
        return requests.request(
            "POST" if method == "POST" else "GET",
            f"{address}?{query}" if query else address,
            auth=(name, password) if name and password else None,
            headers=headers,
            data=body or None,
            timeout=settings.MONAI_LABEL_DICOMWEB_PROXY_TIMEOUT,
        )
    except requests.RequestException as error:
        raise HTTPException(502, "the DICOM server does not answer") from error
