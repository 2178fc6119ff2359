"""Limits of requests: body and head."""

import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest

from tests.support.chat import new_id, visit
from tests.support.gateway import Gateway
from tests.support.http import assert_sentence
from tests.support.waiting import PATIENCE_SECONDS
from tests.support.world import NewGateway, NewWorld, World, unique

pytestmark = pytest.mark.anyio

BODY_BYTES = 512


@pytest.fixture(scope="module")
def world(new_world: NewWorld) -> World:
    return new_world()


@pytest.fixture(scope="module")
def gateway(world: World) -> Iterator[Gateway]:
    """A gateway with small limits."""
    with Gateway(world.settings | {"MAX_BODY_BYTES": str(BODY_BYTES)}) as gateway:
        yield gateway


def body_of(size: int) -> bytes:
    """A good body of so many bytes, about a session that is not there."""
    body = {"session_id": new_id(), "persona_id": 1, "extra": ""}
    body["extra"] = "x" * (size - len(json.dumps(body)))
    data = json.dumps(body).encode()
    assert len(data) == size
    return data


PATHS = ["/api/login", "/api/login/persona_id", "/api/chat/feedback"]


@pytest.mark.parametrize("path", PATHS)
def test_a_body_of_the_largest_size_is_read_and_one_byte_more_is_413(gateway: Gateway, path: str) -> None:
    """At the edge the body is judged by what it says; beyond it, by its size alone."""
    headers = {"content-type": "application/json"}
    assert gateway.http.post(path, content=body_of(BODY_BYTES), headers=headers).status_code in (404, 422)
    assert_sentence(gateway.http.post(path, content=body_of(BODY_BYTES + 1), headers=headers), 413)
    assert gateway.http.get("/api/health").status_code == 200


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_without_a_length_is_counted_as_it_comes(gateway: Gateway, path: str) -> None:
    """Sent in chunks, with no content-length: the same edge."""

    async def chunks(data: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(data), 100):
            yield data[start : start + 100]

    async with gateway.async_http() as client:
        assert (await client.post(path, content=chunks(body_of(BODY_BYTES)))).status_code in (404, 422)
        assert_sentence(await client.post(path, content=chunks(body_of(BODY_BYTES + 1))), 413)


@pytest.mark.parametrize("header", [b"content-length: 1000000000\r\n", b"transfer-encoding: chunked\r\n"])
def test_a_body_beyond_the_limit_is_not_read_to_its_end(gateway: Gateway, header: bytes) -> None:
    """The answer comes before the body has, and then the connection is closed."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_SECONDS) as client:
        client.sendall(b"POST /api/login HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n" + header)
        client.sendall(b"\r\n")
        if header.startswith(b"transfer"):
            client.sendall(f"{BODY_BYTES + 1:x}\r\n".encode() + b"x" * (BODY_BYTES + 1) + b"\r\n")
        answer = b""
        while data := client.recv(65536):
            answer += data
        assert answer.startswith(b"HTTP/1.1 413 ")


def test_the_usual_limit_of_a_body_is_64_kib(default_gateway: Gateway) -> None:
    """The default, at its edge and beyond."""
    assert default_gateway.http.post("/api/login", content=body_of(65536)).status_code == 404
    assert_sentence(default_gateway.http.post("/api/login", content=body_of(65537)), 413)


def test_a_head_is_at_most_16_kib(default_gateway: Gateway) -> None:
    """Beyond it the answer is a 400 and the end of the connection, whatever is still to come."""
    short, long = ({"x-padding": "x" * size} for size in (15_000, 17_000))
    assert default_gateway.http.get("/api/health", headers=short).status_code == 200
    assert default_gateway.http.get("/api/health", headers=long).status_code == 400
    with socket.create_connection(("127.0.0.1", default_gateway.port), timeout=PATIENCE_SECONDS) as client:
        client.sendall(b"GET /api/health HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 2800)  # and no end
        assert client.recv(65536).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("length", [b"-1", b"abc", b"99999999999999999999999999", b"1, 2", b"0" * 5000 + b"2"])
def test_a_content_length_without_sense_is_refused(gateway: Gateway, length: bytes) -> None:
    """With some 4xx, and the gateway lives."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_SECONDS) as client:
        client.sendall(b"POST /api/login HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: " + length + b"\r\n\r\n{}")
        assert client.recv(65536).startswith(b"HTTP/1.1 4")
    assert gateway.http.get("/api/health").status_code == 200


async def test_the_limits_do_not_depend_on_the_protocols_that_uvicorn_is_told_to_use(
    world: World, new_gateway: NewGateway
) -> None:
    """Neither parser of `--http h11 --ws none` comes into play."""
    gateway = new_gateway(world, arguments=("--http", "h11", "--ws", "none"))
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_SECONDS) as client:
        client.sendall(b"GET /api/health HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 2800)
        assert b"headers are too large" in client.recv(65536)
    async with visit(gateway) as visitor:
        assert (await visitor.ask(unique("질문")))["sender"] == "bot"


CHUNKED = b"POST %b HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
LOGIN = CHUNKED % b"/api/login" + b"2\r\n{}\r\n"
UNWANTED = {
    "trailers": (LOGIN + b"0\r\n", b"x: y\r\n" * 10_000),
    "a trailer": (LOGIN + b"0\r\nx: ", b"y" * 65536),
    "many chunks' extensions": (LOGIN, (b"1;" + b"y" * 1000 + b"\r\n \r\n") * 60),
    "a chunk's extension": (LOGIN + b"2;", b"y" * 65536),
    "a body": (b"POST /api/health HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999\r\n\r\n", b"y" * 65536),
    "chunks": (CHUNKED % b"/api/health", b"10000\r\n" + b"y" * 65536 + b"\r\n"),
    "blank lines": (b"GET /api/health HTTP/1.1\r\nhost: a\r\n\r\n", b"\r\n" * 32768),
}


@pytest.mark.parametrize("name", UNWANTED)
def test_what_nobody_takes_costs_its_sender_the_connection(default_gateway: Gateway, name: str) -> None:
    """Trailers and the like without end, or a body that the path does not read: some KiB, and no more."""
    first, again = UNWANTED[name]
    with socket.create_connection(("127.0.0.1", default_gateway.port), timeout=PATIENCE_SECONDS) as client:
        client.sendall(first)
        with pytest.raises(ConnectionError):
            for _ in range(500):
                client.sendall(again)
    assert default_gateway.http.get("/api/health").status_code == 200


def test_chunks_of_a_byte_are_no_way_to_send_a_large_body(default_gateway: Gateway) -> None:
    """Three hundred are taken; who sends ten thousand, which is little of a body, loses the connection."""
    data = body_of(300)
    for count, wanted in ((300, b"HTTP/1.1 404 "), (10_000, b"")):
        body = data + b" " * (count - len(data))
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        answer = b""
        with suppress(ConnectionError), socket.create_connection(("127.0.0.1", default_gateway.port)) as client:
            client.settimeout(PATIENCE_SECONDS)
            client.sendall(CHUNKED % b"/api/login" + chunks + b"0\r\n\r\n")
            answer = client.recv(65536)
        assert answer[:13] == wanted


def test_a_body_that_its_path_does_not_read_does_no_harm(default_gateway: Gateway) -> None:
    """Of up to 64 KiB: the answer arrives, and the connection can be used again."""
    for _ in range(3):
        assert default_gateway.http.post("/api/health", content=b"x" * 65536).status_code == 405
    assert default_gateway.http.get("/api/health").status_code == 200
