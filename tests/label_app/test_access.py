"""Signing in with OpenID Connect: a server of its own, and an issuer on this machine."""

import base64
import json
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("monailabel", reason="needs MONAI Label: run `make label-test`")

import jwt
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT = "monailabel-app"
USER, ANNOTATOR, ADMIN = "monailabel-user", "monailabel-annotator", "monailabel-admin"


class Issuer:
    """Publishes a configuration and keys, and gives tokens for one password."""

    def __init__(self):
        self.key = rsa.generate_private_key(65537, 2048)
        self.signed_out = []
        self.stranger = rsa.generate_private_key(65537, 2048)
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def do_GET(self):
                if self.path.endswith("/openid-configuration"):
                    self.answer(
                        {
                            "issuer": issuer.url,
                            "jwks_uri": f"{issuer.url}/keys",
                            "token_endpoint": f"{issuer.url}/token",
                            "end_session_endpoint": f"{issuer.url}/logout",
                        }
                    )
                else:
                    self.answer({"keys": [issuer.public_key()], "public_key": issuer.public_der()})

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                if self.path.endswith("/logout"):
                    issuer.signed_out.append(body)
                    return self.answer({})
                renewed = "grant_type=refresh_token" in body and "refresh_token=again" in body
                right = renewed or ("password=right" in body and "grant_type=password" in body)
                token = {"access_token": issuer.token(USER), "token_type": "Bearer", "refresh_token": "again"}
                self.answer(token if right else {"error": "invalid_grant"}, 200 if right else 401)

            def answer(self, content, status=200):
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/realms/clinic"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def public_key(self):
        numbers = self.key.public_key().public_numbers()

        def encoded(number):
            data = number.to_bytes((number.bit_length() + 7) // 8, "big")
            return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

        return {
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": "1",
            "n": encoded(numbers.n),
            "e": encoded(numbers.e),
        }

    def public_der(self):
        """As Keycloak's own page has it, where upstream looks for it."""
        kind, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        return base64.b64encode(self.key.public_key().public_bytes(kind, form)).decode()

    def claims(self, *roles, **changed):
        claims = {
            "iss": self.url, "exp": int(time.time()) + 600, "azp": CLIENT, "aud": "account",
            "preferred_username": "ann", "realm_access": {"roles": list(roles)},
        } | changed  # fmt: skip
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, *roles, key=None, algorithm="RS256", kid="1", **changed):
        return jwt.encode(self.claims(*roles, **changed), key or self.key, algorithm, headers={"kid": kid})


@pytest.fixture(scope="module")
def issuer():
    made = Issuer()
    yield made
    made.server.shutdown()


@pytest.fixture(scope="module")
def guarded(issuer, bundle, tmp_path_factory):
    """A server that wants tokens."""
    from tests.label_app.conftest import Server, draw_studies

    root = tmp_path_factory.mktemp("guarded")
    command = [sys.executable, "-m", "topolora_monai.cli", "label", "--studies", str(draw_studies(root / "studies"))]
    command += ["--bundle", f"vessels={bundle}", "--auth", issuer.url]
    server = Server(command, root / "log").wait()
    yield server
    server.kill()


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


PATHS = (
    ("GET", "/info/"), ("GET", "/"), ("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/static/favicon.ico"),
    ("GET", "/datastore/"), ("GET", "/datastore/image?image=im0"), ("PUT", "/datastore/label?image=im0"),
    ("PUT", "/datastore/"), ("POST", "/infer/vessels?image=im0"), ("POST", "/train/vessels"), ("GET", "/train/"),
    ("POST", "/batch/infer/vessels"), ("POST", "/scoring/topology"), ("POST", "/activelearning/random"),
    ("GET", "/logs/"), ("GET", "/ohif/"), ("GET", "/proxy/dicom/wado/x"), ("PUT", "/session/"),
    ("GET", "/model/vessels"), ("POST", "/reload"),
    ("GET", "/auth/token/valid"), ("GET", "/nothing"), ("GET", "/topolora/api/images"),
    ("GET", "/topolora/api/picture?image=im0"), ("POST", "/infer/wsi_v2/vessels"), ("GET", "/topolora/../info/"),
    ("OPTIONS", "/info/"), ("HEAD", "/datastore/image?image=im0"), ("GET", "//info/"),
    ("GET", "/topolora/%2e%2e/info/"),
)  # fmt: skip


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_nothing_without_a_token(guarded, method, path):
    response = requests.request(method, guarded.url + path, allow_redirects=False, timeout=30)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


def test_only_being_there_and_how_to_sign_in(guarded, issuer):
    assert requests.get(f"{guarded.url}/health", timeout=30).json()["status"] == "ok"
    told = requests.get(f"{guarded.url}/auth/", timeout=30).json()
    assert told == {"enabled": True, "client_id": CLIENT, "realm": issuer.url}


def test_valid_token(guarded, issuer):
    headers = bearer(issuer.token(USER))
    assert requests.get(f"{guarded.url}/info/", headers=headers, timeout=30).json()["name"] == "topolora_monai"
    user = requests.get(f"{guarded.url}/auth/token/valid", headers=headers, timeout=30).json()
    assert user["username"] == "ann"
    assert user["roles"] == [USER]
    response = requests.post(f"{guarded.url}/infer/vessels?image=im0", headers=headers, timeout=120)
    assert response.status_code == 200
    audience = bearer(issuer.token(USER, azp=None, aud=[CLIENT]))
    assert requests.get(f"{guarded.url}/info/", headers=audience, timeout=30).status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"exp": int(time.time()) - 60}, {"exp": None}, {"iss": "http://127.0.0.1/other"}, {"iss": None},
        {"azp": "another", "aud": "another"}, {"azp": None, "aud": None}, {"preferred_username": None}, {"kid": "2"},
        {"key": "stranger"}, {"algorithm": "HS256", "key": "x" * 64}, {"algorithm": "none"},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_tokens(guarded, issuer, wrong):
    wrong = dict(wrong)
    if wrong.get("key") == "stranger":
        wrong["key"] = issuer.stranger
    if wrong.get("algorithm") == "none":
        token = jwt.encode(issuer.claims(USER, ADMIN), None, "none", headers={"kid": "1"})
    else:
        token = issuer.token(USER, ADMIN, **wrong)
    for path in ("/info/", "/topolora/api/images", "/openapi.json"):
        assert requests.get(guarded.url + path, headers=bearer(token), timeout=30).status_code == 401
    for header in ("Basic YTpi", "Bearer", "Bearer ", "bearer x.y.z", f"Token {issuer.token(USER)}"):
        response = requests.get(f"{guarded.url}/info/", headers={"Authorization": header}, timeout=30)
        assert response.status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "role", "weaker"),
    [
        ("GET", "/info/", USER, "stranger"),
        ("GET", "/topolora/api/images", USER, "stranger"),
        ("DELETE", "/datastore/label?id=im3&tag=final", ADMIN, ANNOTATOR),
        ("POST", "/topolora/api/labels/restore", ANNOTATOR, USER),
        ("PUT", "/datastore/image/info?image=im3", ANNOTATOR, USER),
        ("GET", "/logs/?html=false", ADMIN, ANNOTATOR),
    ],
)
def test_roles(guarded, issuer, method, path, role, weaker):
    refused = requests.request(method, guarded.url + path, headers=bearer(issuer.token(weaker)), timeout=30)
    assert refused.status_code in (403, 422) if "restore" in path else refused.status_code == 403
    allowed = requests.request(method, guarded.url + path, headers=bearer(issuer.token(role)), timeout=30)
    assert allowed.status_code not in (401, 403)


def test_user_is_recorded(guarded, issuer, mask_file):
    headers = bearer(issuer.token(ANNOTATOR, USER))
    files, data = {"label": ("mask.png", mask_file.read_bytes())}, {"params": json.dumps({"user": "somebody else"})}
    url = f"{guarded.url}/datastore/label?image=im1"
    response = requests.put(url, files=files, data=data, headers=headers, timeout=30)
    assert response.json()["user"] == "ann"


def test_signing_in(guarded):
    url = f"{guarded.url}/auth/token"
    form = {"username": "ann", "password": "right", "grant_type": "password"}
    token = requests.post(url, data=form, timeout=30).json()
    headers = {"Authorization": f"{token['token_type']} {token['access_token']}"}
    assert requests.get(f"{guarded.url}/info/", headers=headers, timeout=30).status_code == 200
    assert requests.post(url, data=form | {"password": "wrong"}, timeout=30).status_code == 401


def test_renewing_a_token_and_signing_out(guarded, issuer):
    def post(path, **more):
        return requests.post(f"{guarded.url}{path}", timeout=30, **more)

    form = {"grant_type": "refresh_token", "refresh_token": "again"}
    headers = bearer(post("/auth/token", data=form).json()["access_token"])
    refused = post("/auth/token", data=form | {"refresh_token": "stolen"})
    assert (refused.status_code, refused.json()) == (401, {"detail": "sign in again"})
    may = requests.get(f"{guarded.url}/auth/token/valid", headers=headers, timeout=30).json()["may"]
    assert may == {"submit": False, "score": False, "review": False, "train": False}
    assert post("/auth/sign_out", data={"refresh_token": "again"}).status_code == 401
    assert post("/auth/sign_out", data={"refresh_token": "again"}, headers=headers).status_code == 200
    assert "refresh_token=again" in issuer.signed_out[0] and CLIENT in issuer.signed_out[0]


@pytest.fixture
def with_tokens(issuer, monkeypatch):
    """Tokens switched on in the test's own process, after MONAI Label has read its settings."""
    from monailabel.config import settings

    import topolora_monai.label_app.server  # noqa: F401

    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_ENABLE", True)
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_REALM_URI", issuer.url)
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_CLIENT_ID", CLIENT)


def test_upstream_refuses_a_valid_token(issuer, with_tokens, without):
    from monailabel.endpoints.user import auth

    token = issuer.token(USER)
    assert auth.from_token(token).username == "ann"
    without("tokens")
    with pytest.raises(jwt.DecodeError, match="algorithms"):
        auth.from_token(token)


class TestEveryRoute:
    """Of the application itself, so that one that is new is covered."""

    METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
    PUBLIC = ("/health", "/auth/", "/auth/token")

    def paths(self, client):
        """Of every route, its parameters filled in, as it is and with a further slash."""
        paths = {re.sub(r"{(\w+)(:path)?}", "im0", route.path) for route in client.app.routes}
        assert {
            "/info/",
            "/infer/im0",
            "/infer/wsi/im0",
            "/openapi.json",
            "/topolora",
            "/proxy/dicom/wado/im0",
        } <= paths
        assert len(paths) > 40
        return sorted(paths | {f"{path}/" for path in paths} | {f"/{path}" for path in paths} | {"/docs", "/nothing"})

    def test_none_answers_without_a_token(self, make_client, with_tokens):
        client = make_client()
        open_to_all = {
            path
            for path in self.paths(client)
            for method in self.METHODS
            if client.request(method, path, follow_redirects=False).status_code != 401
        }
        assert open_to_all == {*self.PUBLIC, "/topolora/"}

    def test_the_public_folder_holds_files_alone(self, make_client, with_tokens):
        client = make_client()
        for path in (
            "/topolora//api/images",
            "/topolora/./api/images",
            "/topolora/%2e/api/images",
            "/topolora/API/images",
        ):
            for method in self.METHODS:
                assert client.request(method, path).status_code in (401, 404, 405), (method, path)

    def test_no_connection_of_another_kind(self, make_client, with_tokens):
        from starlette.testclient import WebSocketDenialResponse

        client = make_client()
        for path in self.paths(client):
            if path in self.PUBLIC or (path.startswith("/topolora/") and not path.startswith("/topolora/api")):
                continue
            with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect(path):
                pass
            assert refused.value.status_code == 401

    def test_all_answer_without_the_rule(self, make_client, with_tokens):
        """What upstream guards itself stays so; the rest does not."""
        client = make_client(without=["access"])
        assert client.get("/openapi.json").status_code == 200
        assert client.get("/proxy/dicom/wado/x").status_code != 200
