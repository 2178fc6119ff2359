"""What holds for every path: slashes, errors, limits, CORS."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.gateway import ALLOWED_ORIGIN, Gateway
from tests.support.http import assert_invalid, assert_sentence

UNKNOWN = "3f1c2f0e-5d7b-4a8e-9c55-0d1a6b2e7f90"
GETS = ["/api/health", "/api/chat/personas", "/api/login/personas", "/api/qna/faq", "/api/qna/terms"]
POSTS: dict[str, dict[str, Any]] = {
    "/api/chat/feedback": {"message_id": UNKNOWN, "is_helpful": True},
    "/api/login": {"session_id": UNKNOWN, "persona_id": 1},
    "/api/login/persona_id": {"session_id": UNKNOWN},
}
SLASHES = pytest.mark.parametrize("slash", ["", "/"])
EVERY_POST = pytest.mark.parametrize("path", POSTS)


def post(gateway: Gateway, path: str, content: bytes | Iterator[bytes], **headers: str) -> httpx.Response:
    headers = {"content-type": "application/json"} | headers
    return gateway.http.post(path, content=content, headers=headers)


@pytest.mark.parametrize("path", [*GETS, "/docs", "/openapi.json"])
@SLASHES
def test_get_answers_with_and_without_a_slash_directly(default_gateway: Gateway, path: str, slash: str) -> None:
    response = default_gateway.http.get(path + slash)
    assert response.status_code == 200
    if path in GETS:
        assert response.headers["content-type"].split(";")[0] == "application/json"


@EVERY_POST
@SLASHES
def test_post_answers_with_and_without_a_slash_directly(default_gateway: Gateway, path: str, slash: str) -> None:
    assert_sentence(default_gateway.http.post(path + slash, json=POSTS[path]), 404)


@SLASHES
def test_history_answers_with_and_without_a_slash_directly(default_gateway: Gateway, slash: str) -> None:
    assert_sentence(default_gateway.http.get(f"/api/chat/history/{UNKNOWN}{slash}"), 404)


def test_health_is_exactly_ok(default_gateway: Gateway) -> None:
    assert default_gateway.http.get("/api/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/api",
        "/api/",
        "/api/chat",
        "/api/chat/history",
        "/api/chat/history/",
        "/api/health/x",
        "/api/qna/faq/1",
        "//api/health",
        "/api//health",
        "/API/HEALTH",
        "/api/health%00",
        "/..%2f..%2fetc",
    ],
)
def test_an_unknown_path_is_a_404_with_a_sentence(default_gateway: Gateway, path: str) -> None:
    assert_sentence(default_gateway.http.get(default_gateway.base_url + path), 404)


@pytest.mark.parametrize("end", ["%0a", "%0a/", "/%0a", "%0d%0a", "%20", "%00", "%3f", "%23", ";"])
def test_a_path_with_more_behind_it_is_another_path(default_gateway: Gateway, end: str) -> None:
    """A line feed, too, which a pattern's `$` passes over: a proxy's rule for the path would not see it."""
    for path in [*GETS, "/metrics", "/api/health/ready", "/docs", "/openapi.json", "/web/docs.js", "/api/chat/ws"]:
        assert default_gateway.http.get(default_gateway.base_url + path + end).status_code == 404, path
    for path, body in POSTS.items():
        assert default_gateway.http.post(default_gateway.base_url + path + end, json=body).status_code == 404, path


@pytest.mark.parametrize("path", GETS)
def test_head_is_get_without_a_body(default_gateway: Gateway, path: str) -> None:
    response = default_gateway.http.head(path)
    assert response.status_code in (200, 405)
    assert response.content == b""


@pytest.mark.parametrize("path", [*GETS, *POSTS])
def test_options_without_an_origin_is_no_server_error(default_gateway: Gateway, path: str) -> None:
    assert default_gateway.http.options(path).status_code in (200, 204, 405)


def test_a_plain_get_of_the_websocket_path_is_refused_politely(default_gateway: Gateway) -> None:
    response = default_gateway.http.get("/api/chat/ws")
    assert 400 <= response.status_code < 500
    assert "detail" in response.json()


@EVERY_POST
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"nonsense",
        b"{",
        b'{"session_id": }',
        b"[]",
        b"[1, 2]",
        b"null",
        b"true",
        b"17",
        b'"text"',
        b'{"session_id": "\xff\xfe"}',
        b"\xff\xfe{\x00}\x00",
        b"\x00",
        b"[" * 60000,
        b'{"a":' * 10000,
        b"[" * 30000 + b"]" * 30000,
        b'{"session_id": "' + b"\\ud800" + b'"}',
        b'{"persona_id": NaN}',
        b'{"persona_id": 1' + b"0" * 5000 + b"}",
        b"session_id=1",
    ],
    ids=lambda body: repr(body[:16]),
)
def test_a_body_that_is_no_json_object_of_the_kind_is_a_422(default_gateway: Gateway, path: str, body: bytes) -> None:
    assert_invalid(post(default_gateway, path, body))


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/api/login", ["session_id", "persona_id"]),
        ("/api/login/persona_id", ["session_id"]),
        ("/api/chat/feedback", ["message_id"]),
    ],
)
def test_missing_fields_are_all_reported_together(default_gateway: Gateway, path: str, fields: list[str]) -> None:
    assert_invalid(default_gateway.http.post(path, json={}), *(("body", name) for name in fields))


def test_wrong_fields_are_all_reported_together(default_gateway: Gateway) -> None:
    body = {"session_id": "nonsense", "persona_id": "1"}
    assert_invalid(default_gateway.http.post("/api/login", json=body), ("body", "session_id"), ("body", "persona_id"))


@EVERY_POST
@pytest.mark.parametrize(
    "value",
    [
        "",
        "nonsense",
        UNKNOWN[:-1],
        UNKNOWN + "0",
        UNKNOWN[:-1] + "g",
        0,
        1,
        True,
        None,
        [],
        {},
        [UNKNOWN],
        UNKNOWN + "\x00",
        "９" * 8 + "-９９９９" * 3 + "-" + "９" * 12,
        f" {UNKNOWN}",
        "' OR 1=1 --",
    ],
    ids=repr,
)
def test_an_id_must_be_a_uuid_in_a_string(default_gateway: Gateway, path: str, value: object) -> None:
    name = "message_id" if path == "/api/chat/feedback" else "session_id"
    assert_invalid(default_gateway.http.post(path, json=POSTS[path] | {name: value}), ("body", name))


@pytest.mark.parametrize("value", [True, False, "1", "", "one", None, [], [1], {}, 1.5, "1.0"], ids=repr)
def test_persona_id_must_be_an_integer(default_gateway: Gateway, value: object) -> None:
    body = {"session_id": UNKNOWN, "persona_id": value}
    assert_invalid(default_gateway.http.post("/api/login", json=body), ("body", "persona_id"))


@pytest.mark.parametrize(
    "number", ["1.0", "1e0", "0", "-1", str(2**31), str(2**63), str(2**64), "-" + "9" * 30, "1e999"]
)
def test_a_number_beyond_the_column_is_never_a_server_error(default_gateway: Gateway, number: str) -> None:
    body = f'{{"session_id": "{UNKNOWN}", "persona_id": {number}}}'
    response = post(default_gateway, "/api/login", body.encode())
    if response.status_code == 404:
        assert_sentence(response, 404)
    else:
        assert_invalid(response)


@pytest.mark.parametrize("value", [0, 1, "true", "null", "", [], {}, 1.0], ids=repr)
def test_is_helpful_must_be_a_boolean_or_null(default_gateway: Gateway, value: object) -> None:
    body = {"message_id": UNKNOWN, "is_helpful": value}
    assert_invalid(default_gateway.http.post("/api/chat/feedback", json=body), ("body", "is_helpful"))


@EVERY_POST
def test_unknown_fields_are_ignored(default_gateway: Gateway, path: str) -> None:
    more: dict[str, Any] = {"prompt_message_id": 17, "sender": None, "": [], "__proto__": {}}
    assert_sentence(default_gateway.http.post(path, json=more | POSTS[path]), 404)


@EVERY_POST
def test_a_body_in_chunks_is_one_body(default_gateway: Gateway, path: str) -> None:
    chunks = (bytes([byte]) for byte in json.dumps(POSTS[path]).encode())
    assert_sentence(post(default_gateway, path, chunks), 404)


def test_the_allowed_origin_may_read_answers_and_errors(default_gateway: Gateway) -> None:
    headers = {"origin": ALLOWED_ORIGIN}
    responses = [default_gateway.http.get(path, headers=headers) for path in [*GETS, "/nothing"]]
    responses += [default_gateway.http.post(path, json={}, headers=headers) for path in POSTS]
    responses += [default_gateway.http.get("/api/qna/faq?top_k=0", headers=headers)]
    for response in responses:
        assert response.headers["access-control-allow-origin"] == ALLOWED_ORIGIN
        assert "origin" in response.headers["vary"].lower()


@pytest.mark.parametrize(("path", "method"), [(path, "POST") for path in POSTS] + [("/api/qna/faq", "GET")])
@SLASHES
def test_a_preflight_from_the_allowed_origin_is_granted(
    default_gateway: Gateway, path: str, method: str, slash: str
) -> None:
    response = default_gateway.http.options(
        path + slash,
        headers={
            "origin": ALLOWED_ORIGIN,
            "access-control-request-method": method,
            "access-control-request-headers": "content-type",
        },
    )
    assert response.status_code in (200, 204)
    assert response.headers["access-control-allow-origin"] == ALLOWED_ORIGIN
    allowed = response.headers["access-control-allow-methods"].replace(" ", "").split(",")
    assert method in allowed
    assert "content-type" in response.headers["access-control-allow-headers"].lower()
