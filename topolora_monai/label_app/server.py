"""The web application that MONAI Label's server runs: its endpoints, mended and guarded, and a few of our own."""

import logging
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import cache
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import monailabel.endpoints
from fastapi import Depends, FastAPI, Form, HTTPException, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.staticfiles import StaticFiles
from monailabel.config import settings
from monailabel.endpoints.user.auth import get_current_user
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)
from monailabel.interfaces.utils.app import app_instance
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

import topolora_monai
import topolora_monai.label_app.main
from topolora_monai.errors import ConfigError, DataError, TopoLoRAError
from topolora_monai.label_app import extra
from topolora_monai.label_app.access import RequireToken, end_session, fetch_token, what_may_be_done
from topolora_monai.label_app.dicom_server import DicomServerError
from topolora_monai.label_app.history import NewerLabelError
from topolora_monai.label_app.options import LabelOptions
from topolora_monai.label_app.pages import interface_page
from topolora_monai.label_app.patches import in_threads
from topolora_monai.label_app.rendering import ImageTooLargeError
from topolora_monai.label_app.requests_check import LimitBody, check_request

CLIENT_PATH = "/topolora"
"""Where the web client is served; our own endpoints are at ``/topolora/api``."""

RULES = ("threads", "names", "errors", "access", "sites", "sizes")
"""What the application adds to MONAI Label's endpoints; a test can leave one out."""

_ROUTERS = (
    "activelearning", "batch_infer", "datastore", "infer", "info", "logs", "model", "ohif", "proxy", "scoring",
    "session", "train", "wsi_infer",
)  # fmt: skip
_LEFT_OUT = {
    ("PUT", "/model/{model}"), ("DELETE", "/model/{model}"),  # adapters have versions instead
    ("POST", "/train/"), ("POST", "/train/{model}"),  # ours are in their place
}  # fmt: skip
_WAITS = ("proxy_wado", "proxy_qido", "proxy_stow", "proxy")  # endpoints that read the body themselves
_STATIC = Path(__file__).with_name("static")
_OHIF = "/ohif/"
_PAGE_RULES = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
_POLICY = "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
_logger = logging.getLogger(__name__)


def create_application(without: Collection[str] = ()) -> FastAPI:
    """MONAI Label's REST interface with our rules.

    - ``threads``: endpoints run side by side;
    - ``names``: see :func:`~topolora_monai.label_app.requests_check.check_request`;
    - ``errors``: what a client did wrong is a status from 400 to 499 with a sentence in ``detail``;
    - ``access``: with tokens switched on, nothing is reachable without one but whether the server is there, how to
      get a token, and the files of the web client, which hold no data;
    - ``sites``: pages of other sites cannot use the server, unless their origin is allowed;
    - ``sizes``: limits to uploads.

    ``/reload``, which upstream leaves open to anybody, and replacing model files are not there. A test of the need of
    a rule is made ``without`` it.
    """
    options = LabelOptions.from_conf(settings.MONAI_LABEL_APP_CONF)
    rules = [rule for rule in RULES if rule not in without]
    application = FastAPI(
        title="topolora_monai label",
        version=topolora_monai.__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        strict_content_type=False,  # QuPath does not say that it sends JSON; other sites are kept out by their origin
        dependencies=[Depends(check_request)] if "names" in rules else [],
    )
    _add_monai_label(application, threads="threads" in rules)
    _add_own(application)
    if "errors" in rules:
        for error, handler in _HANDLERS.items():
            application.add_exception_handler(error, handler)
    if "sizes" in rules:
        application.add_middleware(LimitBody, most=options.max_upload_bytes)
    if "access" in rules:
        application.add_middleware(RequireToken, public_folder=f"{CLIENT_PATH}/", private_folder=extra.PATH)
    if "sites" in rules:
        _add_site_rules(application, options)
    return application


@asynccontextmanager
async def _lifespan(application: FastAPI) -> AsyncIterator[None]:
    instance = app_instance()
    instance.server_mode(True)
    instance.on_init_complete()
    yield


def _add_monai_label(application: FastAPI, threads: bool) -> None:
    for name in _ROUTERS:
        for route in import_module(f"monailabel.endpoints.{name}").router.routes:
            methods = [method for method in route.methods if (method, route.path) not in _LEFT_OUT]
            if not methods:
                continue
            plain = threads and route.endpoint.__name__ not in _WAITS
            application.add_api_route(
                route.path,
                in_threads(route.endpoint) if plain else route.endpoint,
                methods=methods,
                tags=route.tags,
                summary=route.summary,
                include_in_schema=route.include_in_schema,
            )
    if threads:
        application.dependency_overrides[get_current_user] = in_threads(get_current_user)


def _add_own(application: FastAPI) -> None:
    for path, endpoint in (("/health", _health), ("/auth/", _auth), ("/auth/token/valid", _valid)):
        application.add_api_route(path, endpoint)
    application.add_api_route("/auth/token", _token, methods=["POST"])
    application.add_api_route("/auth/sign_out", _sign_out, methods=["POST"])
    application.add_api_route("/docs", lambda: _interface(application), include_in_schema=False)
    application.add_api_route("/", lambda: RedirectResponse(f"{CLIENT_PATH}/"), include_in_schema=False)
    extra.add_routes(application)
    if (_STATIC / "index.html").is_file():
        application.mount(CLIENT_PATH, StaticFiles(directory=_STATIC, html=True), name="client")


def _interface(application: FastAPI) -> Response:
    return HTMLResponse(interface_page(application.openapi()))


def _health() -> dict[str, str]:
    return {"status": "ok", "version": topolora_monai.__version__}


def _auth() -> dict[str, Any]:
    return {
        "enabled": settings.MONAI_LABEL_AUTH_ENABLE,
        "client_id": settings.MONAI_LABEL_AUTH_CLIENT_ID,
        "realm": settings.MONAI_LABEL_AUTH_REALM_URI,
    }


def _token(
    username: str = Form(""),
    password: str = Form(""),
    refresh_token: str = Form(""),
    grant_type: str = Form("password"),
) -> dict[str, Any]:
    if not settings.MONAI_LABEL_AUTH_ENABLE:
        raise HTTPException(404, "signing in is switched off")
    if grant_type == "refresh_token":
        return fetch_token(grant_type, refresh_token=refresh_token)
    return fetch_token("password", username=username, password=password)


def _sign_out(refresh_token: str = Form("")) -> dict[str, str]:
    end_session(refresh_token)
    return {"status": "signed out"}


def _valid(user: Any = Depends(get_current_user)) -> dict[str, Any]:  # noqa: B008 - FastAPI's way
    return {**user.model_dump(), "may": what_may_be_done(user.roles)}


def _add_site_rules(application: FastAPI, options: LabelOptions) -> None:
    application.add_middleware(_Origins, allowed=options.cors_origins)
    if options.cors_origins:
        application.add_middleware(
            CORSMiddleware,
            allow_origins=options.cors_origins,
            allow_methods=["GET", "PUT", "POST", "DELETE", "HEAD"],
            allow_headers=["authorization", "content-type"],
        )
    application.add_middleware(TrustedHostMiddleware, allowed_hosts=options.allowed_hosts or ["*"])


class _Origins:
    """Refuses what pages of other sites send without asking, and says what pages of ours may load."""

    def __init__(self, app: Any, allowed: list[str]) -> None:
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin not in (None, *self._allowed) and urlsplit(str(origin)).netloc != headers.get("host"):
            refusal = JSONResponse({"detail": "pages of other sites may not use this server"}, 403)
            return await refusal(scope, receive, send)

        async def send_guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"]
                policy = _ohif_policy(path.endswith(".js")) if path.startswith(_OHIF) else _POLICY
                MutableHeaders(scope=message).update({**_PAGE_RULES, "content-security-policy": policy})
            await send(message)

        return await self._app(scope, receive, send_guarded)


@cache
def _ohif_policy(worker: bool) -> str:
    """What OHIF needs beside: WebAssembly in workers, some made of blobs, and the scripts that its page came with.

    Its decoders, which run in a ``worker`` under the policy of their script, make functions of texts.
    """
    page = Path(monailabel.endpoints.__file__).parent / "static/ohif/index.html"
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page.read_text() if page.is_file() else "", re.DOTALL)
    digests = [f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts if script]
    further = "'unsafe-eval'" if worker else " ".join(digests)
    return (
        f"{_POLICY}; script-src 'self' 'wasm-unsafe-eval' {further}; "
        "worker-src 'self' blob:; connect-src 'self' blob: data:; font-src 'self' data:"
    )


def _monai_label_error(request: Request, error: Any) -> Response:
    missing = isinstance(error, (ImageNotFoundException, LabelNotFoundException)) or error.msg.startswith("there is no")
    if missing or error.error in (MONAILabelError.INVALID_INPUT, MONAILabelError.APP_INIT_ERROR):
        return JSONResponse({"detail": error.msg}, 404 if missing else 400)
    _logger.error("request failed: %s", error.msg, exc_info=error)
    return JSONResponse({"detail": error.msg}, 500)


def _own_error(request: Request, error: BaseException) -> Response:
    statuses = {
        ImageTooLargeError: 413, NewerLabelError: 409, DataError: 422, ConfigError: 400, DicomServerError: 502,
    }  # fmt: skip
    status = next((status for kind, status in statuses.items() if isinstance(error, kind)), 500)
    return JSONResponse({"detail": str(error)}, status)


def _unforeseen(request: Request, error: Exception) -> Response:
    cause = error.__cause__
    while cause is not None and not isinstance(cause, TopoLoRAError):  # MONAI wraps what its transforms raise
        cause = cause.__cause__
    if cause is not None:
        return _own_error(request, cause)
    _logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"detail": f"the server failed ({type(error).__name__}); its log says more"}, 500)


_HANDLERS: dict[type[Exception], Any] = {
    MONAILabelException: _monai_label_error,
    TopoLoRAError: _own_error,
    RuntimeError: _unforeseen,  # Starlette raises again what only the next line handles
    Exception: _unforeseen,
}
