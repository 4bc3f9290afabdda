"""Who may do what: OpenID Connect tokens of an issuer, and the roles in them."""

from collections.abc import Collection
from functools import lru_cache
from typing import Any

import jwt
import requests
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.endpoints.user import auth
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import JSONResponse

PUBLIC_PATHS = ("/health", "/auth/", "/auth/token")
"""What is answered without a token: whether the server is there, and how to get one."""


@lru_cache(maxsize=4)
def issuer_configuration(realm: str) -> dict[str, Any]:
    """The issuer's OpenID Connect configuration.

    Raises:
        HTTPException: status 503 if the issuer cannot be asked.
    """
    try:
        response = requests.get(
            f"{realm.rstrip('/')}/.well-known/openid-configuration", timeout=settings.MONAI_LABEL_AUTH_TIMEOUT
        )
        response.raise_for_status()
        configuration: dict[str, Any] = response.json()
        if not isinstance(configuration.get("jwks_uri"), str) or not isinstance(configuration.get("issuer"), str):
            raise ValueError("it names no keys or no issuer")
    except (requests.RequestException, ValueError) as error:
        raise HTTPException(503, f"the issuer of tokens cannot be asked: {error}") from error
    return configuration


@lru_cache(maxsize=4)
def _keys(uri: str) -> jwt.PyJWKClient:
    return jwt.PyJWKClient(uri, cache_keys=True, lifespan=300, timeout=settings.MONAI_LABEL_AUTH_TIMEOUT)


def user_from_token(token: str) -> auth.User:
    """The user that a token speaks for.

    Signature (RS256, by the issuer's published keys), issuer, expiry, and that the token was made for this
    application's client id are checked.

    Raises:
        jwt.InvalidTokenError: if one of these is wrong.
        HTTPException: status 503 if the issuer cannot be asked for its keys.
    """
    if not settings.MONAI_LABEL_AUTH_ENABLE:
        return auth.DEFAULT_USER
    configuration = issuer_configuration(settings.MONAI_LABEL_AUTH_REALM_URI)
    try:
        key = _keys(configuration["jwks_uri"]).get_signing_key_from_jwt(token)
    except jwt.PyJWKClientConnectionError as error:
        raise HTTPException(503, f"the issuer's keys cannot be fetched: {error}") from error
    except jwt.PyJWKClientError as error:
        raise jwt.InvalidTokenError(str(error)) from error
    options = {"require": ["exp", "iss"], "verify_aud": False}
    issuer = configuration["issuer"]
    claims: dict[str, Any] = jwt.decode(token, key.key, algorithms=["RS256"], issuer=issuer, options=options)
    audience = claims.get("aud", [])
    made_for = [audience] if isinstance(audience, str) else list(audience)
    if settings.MONAI_LABEL_AUTH_CLIENT_ID not in [*made_for, claims.get("azp")]:
        raise jwt.InvalidAudienceError("the token was made for another client")
    username = claims.get(settings.MONAI_LABEL_AUTH_TOKEN_USERNAME)
    if not isinstance(username, str) or not username:
        raise jwt.InvalidTokenError("the token names no user")
    email, name = (
        claims.get(key) for key in (settings.MONAI_LABEL_AUTH_TOKEN_EMAIL, settings.MONAI_LABEL_AUTH_TOKEN_NAME)
    )
    return auth.User(username=username, email=email, name=name, roles=_roles(claims))


def _roles(claims: dict[str, Any]) -> list[str]:
    found: Any = claims
    for part in settings.MONAI_LABEL_AUTH_TOKEN_ROLES.split("#"):
        found = found.get(part) if isinstance(found, dict) else None
    return [role for role in found if isinstance(role, str)] if isinstance(found, list) else []


def fetch_token(grant_type: str, **grant: str) -> dict[str, Any]:
    """Ask the issuer for a token, for ``username`` and ``password`` or for a ``refresh_token``.

    Returns:
        ``access_token``, ``token_type`` and, where the issuer gives one, ``refresh_token``.

    Raises:
        HTTPException: 401 if the issuer refuses, 503 if it cannot be asked.
    """
    response = _asked("token_endpoint", {"grant_type": grant_type, **grant})
    try:
        answer: dict[str, Any] = response.json()
    except ValueError as error:
        raise HTTPException(503, "the issuer of tokens does not answer") from error
    if response.status_code != 200 or "access_token" not in answer:
        raise HTTPException(401, "name or password is wrong" if grant_type == "password" else "sign in again")
    told = {name: answer[name] for name in ("access_token", "refresh_token") if name in answer}
    return told | {"token_type": answer.get("token_type", "Bearer")}


def end_session(refresh_token: str) -> None:
    """Tell the issuer that a person has signed out, so that the refresh token is of no more use.

    Raises:
        HTTPException: 503 if the issuer cannot be asked.
    """
    if refresh_token and "end_session_endpoint" in issuer_configuration(settings.MONAI_LABEL_AUTH_REALM_URI):
        _asked("end_session_endpoint", {"refresh_token": refresh_token})


def what_may_be_done(roles: Collection[str]) -> dict[str, bool]:
    """What the roles allow: to ``submit`` labels, to ``score`` images, to ``review``, and to ``train`` and alike.

    Example:
        >>> what_may_be_done([])  # where nobody has to sign in
        {'submit': True, 'score': True, 'review': True, 'train': True}
    """
    annotator, reviewer, admin = (
        not settings.MONAI_LABEL_AUTH_ENABLE or role in roles
        for role in (
            settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR,
            settings.MONAI_LABEL_AUTH_ROLE_REVIEWER,
            settings.MONAI_LABEL_AUTH_ROLE_ADMIN,
        )
    )
    return {"submit": annotator, "score": annotator, "review": reviewer, "train": admin}


def _asked(endpoint: str, form: dict[str, str]) -> requests.Response:
    configuration = issuer_configuration(settings.MONAI_LABEL_AUTH_REALM_URI)
    form = {"client_id": settings.MONAI_LABEL_AUTH_CLIENT_ID, **form}
    try:
        return requests.post(configuration[endpoint], data=form, timeout=settings.MONAI_LABEL_AUTH_TIMEOUT)
    except (requests.RequestException, KeyError) as error:
        raise HTTPException(503, "the issuer of tokens does not answer") from error


class RequireToken:
    """Answers 401 to every request without a valid token, whatever the path; an ASGI middleware.

    Upstream guards single endpoints and leaves its pages, its interface's description and ``/reload`` open. Paths that
    begin with ``public_folder`` need no token, but for those among them that begin with ``private_folder``.
    """

    def __init__(self, app: Any, public_folder: str, private_folder: str) -> None:
        self._app = app
        self._public_folder = public_folder
        self._private_folder = private_folder

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan" or not settings.MONAI_LABEL_AUTH_ENABLE or self._is_public(scope["path"]):
            return await self._app(scope, receive, send)
        kind, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        refusal = JSONResponse({"detail": "sign in first"}, 401, headers={"WWW-Authenticate": "Bearer"})
        if kind.lower() != "bearer" or not token:
            return await refusal(scope, receive, send)
        try:
            await run_in_threadpool(user_from_token, token.strip())
        except jwt.InvalidTokenError:
            return await refusal(scope, receive, send)
        except HTTPException as error:
            return await JSONResponse({"detail": error.detail}, error.status_code)(scope, receive, send)
        return await self._app(scope, receive, send)

    def _is_public(self, path: str) -> bool:
        if path in PUBLIC_PATHS:
            return True
        in_folder = path.startswith(self._public_folder) and not path.startswith(self._private_folder)
        return in_folder and ".." not in path
