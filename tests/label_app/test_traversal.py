"""Names that lead out of their folders, sent in every place of every endpoint that takes a name."""

import json
from urllib.parse import quote

import pytest

pytest.importorskip("monailabel", reason="needs MONAI Label: run `make label-test`")

from fastapi.routing import APIRoute

from tests.label_app.test_names import HARMFUL

SHAPES = sorted({name for name in HARMFUL if name})
NO_NAMES = {"check_sum", "check_only", "output", "images", "html", "text", "lines", "refresh", "username", "password",
            "grant_type", "scope", "client_id", "client_secret", "note", "refresh_token", "window", "form"}  # fmt: skip
"""Texts of requests that become no part of a path: numbers, choices, and words for people."""
JSON_TYPES = (
    "application/json",
    "application/json; charset=utf-8",
    "APPLICATION/JSON",
    "application/vnd.api+json",
    None,
)


def fields(parameters):
    return {field.alias for field in parameters} - NO_NAMES


def routes(client):
    """Method, path, names in the path, in the query, and in the form of each, and whether it takes JSON."""
    for route in client.app.routes:
        if isinstance(route, APIRoute):
            found = route.dependant
            in_form = {field.alias for field in found.body_params if type(field.field_info).__name__ == "Form"}
            takes_json = bool(found.body_params) and not any(
                type(field.field_info).__name__ in ("Form", "File") for field in found.body_params
            )
            for method in sorted(route.methods):
                queries = {
                    field.alias for field in found.query_params
                    if not any(kind in str(field.field_info.annotation) for kind in ("int", "float", "bool"))
                } - NO_NAMES  # fmt: skip
                yield method, route.path, fields(found.path_params), queries, in_form - NO_NAMES, takes_json


def everything(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def around(client, studies, tmp_path):
    """The client; at the end, nothing has changed anywhere and nothing came out."""
    (tmp_path / "secret").write_text("treasure")
    (studies.parent / "secret.png").write_text("treasure")
    assert client.get("/info/").status_code == 200
    before = everything(tmp_path)
    answers = []

    def send(method, path, **told):
        response = client.request(method, path, **told)
        answers.append(response)
        return response

    yield send
    assert everything(tmp_path) == before
    assert all(response.status_code < 500 for response in answers)
    assert all(b"treasure" not in response.content and b"root:" not in response.content for response in answers)


def filled(path, name="vessels"):
    return path.replace("{path:path}", "x").replace("{model}", name).replace("{method}", name).replace(
        "{strategy}", name
    ).replace("{session_id}", name)  # fmt: skip


def test_there_are_more_than_twenty_shapes():
    assert len(SHAPES) >= 40
    for kind in ("%2e", "%252e", "\\", "/etc", "C:", "\0", "\uff0e", "\u2215", "..;", "file:", "%c0%af"):
        assert any(kind in shape for shape in SHAPES), kind
    assert max(map(len, SHAPES)) > 255


def test_endpoints_are_those_of_the_interface(client):
    """What is enumerated here holds all that the description lists."""
    listed = {
        (method.upper(), path) for path, told in client.get("/openapi.json").json()["paths"].items() for method in told
    }
    found = {(method, path) for method, path, *_ in routes(client)}
    assert listed <= found
    assert ("POST", "/infer/wsi/{model}") in found - listed
    names = {name for _, _, in_path, in_query, *_ in routes(client) for name in in_path | in_query}
    assert (
        names
        == {"image", "id", "tag", "label", "model", "session_id", "strategy", "method", "path", "op", "adapter"} & names
    )
    assert {"image", "id", "tag", "label", "model", "session_id", "strategy", "method", "path"} <= names


def test_in_every_query(client, around):
    count = 0
    for method, path, _, in_query, _, _ in routes(client):
        for name in in_query:
            others = dict.fromkeys(in_query - {name}, "im0")
            for shape in SHAPES:
                response = around(method, filled(path), params=others | {name: shape})
                assert response.status_code == 400, (method, path, name, shape, response.text)
            for twice in (["im0", "../x"], ["../x", "im0"]):
                assert around(method, filled(path), params=others | {name: twice}).status_code == 400
            count += 1
    assert count > 20


def test_in_every_path(client, around):
    count = 0
    for method, path, in_path, *_ in routes(client):
        for name in in_path:
            place = "{path:path}" if name == "path" else f"{{{name}}}"
            for shape in SHAPES:
                for written in (quote(shape, safe=""), quote(quote(shape, safe=""), safe="")):
                    response = around(method, filled(path.replace(place, written)), follow_redirects=False)
                    refused = 400 <= response.status_code < 500 or response.status_code == 307
                    # OHIF's pages are one, whose own code looks at the path.
                    page = path.startswith("/ohif/") and response.content.startswith(b"<!doctype html>")
                    assert refused or page, (method, path, shape, response.text)
            count += 1
    assert count > 15


@pytest.mark.parametrize("kind", JSON_TYPES)
def test_in_every_json(kind, client, around):
    headers = {} if kind is None else {"content-type": kind}
    count = 0
    for method, path, _, _, _, takes_json in routes(client):
        if takes_json:
            known = filled(path, "topology" if "scoring" in path else "random" if "learning" in path else "tuned")
            for shape in SHAPES[::3]:
                for body in ({"image": shape}, {"params": {"image": shape}}, {"tuned": [{"label_tag": shape}]}):
                    response = around(method, known, content=json.dumps(body), headers=headers, params={"image": "im0"})
                    assert response.status_code == 400, (method, path, body, response.text)
            count += 1
    assert count > 6


@pytest.mark.parametrize("kind", ["multipart/form-data", "MultiPart/Form-Data"])
def test_in_every_form(kind, client, around):
    count = 0
    for method, path, _, in_query, in_form, _ in routes(client):
        for name in in_form:
            query = dict.fromkeys(in_query - {"session_id"}, "im0")
            for shape in SHAPES[::3]:
                told = {"headers": {"content-type": f"{kind}; boundary=xyz"}, "params": query}
                sent = multipart(name, json.dumps({"image": shape}))
                response = around(method, filled(path, "tuned"), content=sent, **told)
                assert response.status_code == 400, (method, path, name, response.text)
            count += 1
    assert count >= 6


def multipart(name, text):
    return f'--xyz\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{text}\r\n--xyz--\r\n'.encode()


def test_in_names_of_uploaded_files(client, studies, mask_file, tmp_path):
    """Of such names nothing but the ending is used: some clients send the whole path."""
    client.get("/info/")
    before = everything(tmp_path)
    for shape in SHAPES:
        name = f"{shape}/../../x.png"
        for method, path, field in (("PUT", "/datastore/label?image=im1", "label"), ("PUT", "/session/", "files")):
            answer = client.request(method, path, files={field: (name, mask_file.read_bytes())})
            assert answer.status_code in (200, 400), (path, name, answer.text)
    changed = {path for path, content in everything(tmp_path).items() if before.get(path) != content}
    places = (studies / "labels/final", studies / ".topolora/labels", tmp_path / "sessions")
    assert all(any(path.is_relative_to(place) for place in places) for path in changed), changed
    assert (studies / "labels/final/im1.png").is_file()


def test_below_files_of_the_web_client(around):
    for shape in SHAPES:
        for written in (quote(shape, safe="/"), quote(shape, safe=""), quote(quote(shape, safe=""), safe="")):
            for start in ("/topolora/", "/topolora/assets/", "/topolora/../"):
                response = around("GET", f"{start}{written}", follow_redirects=False)
                assert response.status_code in (307, 400, 404, 405), (start, written, response.text)
