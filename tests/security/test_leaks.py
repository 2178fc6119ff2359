"""What the program is made of, and what was said, stays inside: in answers, headers, frames, settings and logs."""

import re
import socket
import struct
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from settings import InvalidSettings, Settings, read_settings
from tests.support.backends import Drop, Json, Raw, Reply, answer, recommendation, tool_answer
from tests.support.chat import Visitor, new_id, receive, visit
from tests.support.cluster import kill_backends
from tests.support.gateway import UNUSED_SETTINGS, Gateway, Start
from tests.support.http import assert_sentence
from tests.support.keys import bearer, key_of, protocols
from tests.support.raw import TEXT, RawSocket
from tests.support.waiting import PATIENCE_SECONDS, become, eventually
from tests.support.world import NewWorld, World, add_personas

pytestmark = pytest.mark.anyio

PASSWORD = "not-checked"  # in the databases' addresses
INTERNALS = re.compile(
    r"traceback|\.py\b|asyncpg|postgres|sqlalchemy|starlette|uvicorn|uvloop|httptools|websockets/|httpx|aiohttp|orjson"
    r"|python|select .* from|insert into|relation \"|127\.0\.0\.1|localhost|errno|/work|site-packages|not-checked",
    re.IGNORECASE,
)


# Answers and headers

UPGRADE = "GET {} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{}\r\n"
KEY = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
REQUESTS = {
    "no HTTP": "garbage\r\n\r\n",
    "unknown version": "GET / HTTP/9.9\r\n\r\n",
    "no path": "GET nothing HTTP/1.1\r\n\r\n",
    "health": "GET /api/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "ready": "GET /api/health/ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "docs": "GET /openapi.json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "unknown path": "GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "method": "TRACE /api/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "length": "POST /api/login HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\nConnection: close\r\n\r\n",
    "preflight": "OPTIONS /api/login HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\nAccess-Control-Request-Method: POST\r\n"
    "Connection: close\r\n\r\n",
    "range": "GET /docs HTTP/1.1\r\nHost: a\r\nRange: bytes=x\r\nConnection: close\r\n\r\n",
    "web file": "GET /web/..%2fsettings.py HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "handshake without key": UPGRADE.format("/api/chat/ws", "Sec-WebSocket-Version: 13\r\n"),
    "old handshake": UPGRADE.format("/api/chat/ws", KEY + "Sec-WebSocket-Version: 8\r\n"),
    "foreign handshake": UPGRADE.format("/api/chat/ws", KEY + "Sec-WebSocket-Version: 13\r\nOrigin: http://b\r\n"),
    "handshake elsewhere": UPGRADE.format("/nothing", KEY + "Sec-WebSocket-Version: 13\r\n"),
}


def answer_to(gateway: Gateway, request: str) -> str:
    """All that comes back until the gateway closes the connection."""
    data = b""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(request.encode())
        while piece := connection.recv(65536):
            data += piece
    return data.decode("latin-1")


@pytest.fixture(scope="module")
def world(new_world: NewWorld) -> World:
    return new_world()


@pytest.fixture(scope="module", params=["uvicorn", "python"])
def started(world: World, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """A gateway, started in either way."""
    start: Start = request.param
    with Gateway(world.settings, start=start) as gateway:
        yield gateway


def test_no_answer_says_what_the_program_is_made_of(started: Gateway) -> None:
    for name, request in REQUESTS.items():
        reply = answer_to(started, request)
        assert reply.startswith("HTTP/1.1 "), name
        head, _, body = reply.partition("\r\n\r\n")
        names = [line.split(":")[0].lower() for line in head.splitlines()[1:]]
        assert not {"server", "x-powered-by", "via"} & set(names), f"{name}: {head}"
        assert not INTERNALS.search(head), f"{name}: {head}"
        if name != "docs":
            assert not INTERNALS.search(body), f"{name}: {body}"


async def test_no_handshake_says_what_the_program_is_made_of(started: Gateway) -> None:
    """Nor is compression agreed on, which costs memory and can give secrets away."""
    async with started.connect(compression="deflate") as connection:
        assert connection.response is not None
        names = {name.lower() for name in connection.response.headers}
        assert names <= {"upgrade", "connection", "sec-websocket-accept", "date", "x-request-id"}


# A close frame's reason is the server's own text only where it says what was wrong with the client's frame.
@pytest.mark.parametrize("data", [b"\x83\x80abcd", b"\x81\x01a", b"\x80\x80abcd", b"\x09\x80abcd"], ids=repr)
def test_no_close_says_what_the_program_is_made_of(started: Gateway, data: bytes) -> None:
    with RawSocket(started) as stranger:
        stranger.handshake()
        stranger.socket.sendall(data)
        ((_, payload),) = stranger.read_until_cut()
        assert struct.unpack("!H", payload[:2]) == (1002,)
        assert not INTERNALS.search(payload[2:].decode())


def test_bytes_that_are_no_text_leave_no_stack_in_the_log(started: Gateway) -> None:
    with RawSocket(started) as stranger:
        stranger.handshake()
        stranger.send_frame(TEXT, b"\xff\xfe")
        ((_, payload),) = stranger.read_until_cut()
        assert struct.unpack("!H", payload[:2]) == (1007,)
    assert "Traceback" not in started.output()


STACK = 'Traceback (most recent call last): File "/srv/llm/secret_model.py" password=hunter2 at llm-7.internal'


@pytest.mark.parametrize(
    "reply",
    [
        Raw(STACK.encode(), status=500, content_type="text/plain"),
        Json({"detail": STACK}, status=503),
        Json({"answer": None, "error": STACK}),
        Raw(STACK.encode()),
        Drop(),
        Drop(STACK.encode()),
        Json({"answer": "", "tool_response": {"tool_name": "query_faq_database", "tool_response_content": STACK}}),
        Json({"answer": {"error": STACK}, "tool_response": [STACK]}),
        Raw(b"", status=302, headers={"location": f"http://llm-7.internal/{STACK}"}),
    ],
    ids=range(9),
)
async def test_what_an_upstream_says_of_its_failure_is_never_shown_or_logged(
    started: Gateway, world: World, reply: Reply
) -> None:
    (persona_id,) = add_personas(world.chatdb, f"누구 {new_id()}")
    async with visit(started) as visitor:
        world.llm.on_session(visitor.session_id, reply)
        world.mcp.on_session(visitor.session_id, reply)
        frame = await visitor.ask(f"질문 {new_id()}")
        login = {"session_id": visitor.session_id, "persona_id": persona_id}
        async with started.async_http() as http:
            response = await http.post("/api/login", json=login)
        assert_sentence(response, 502)
        await visitor.nothing_pending()
    assert frame["message"].startswith("LLM 서버 ")
    for text in (str(frame), response.text, started.output()):
        assert "secret_model" not in text
        assert "hunter2" not in text
        assert "llm-7" not in text


# Settings


def assert_masked(text: str) -> None:
    assert "hunter2" not in text
    assert "someone" not in text


def test_no_representation_of_the_settings_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in UNUSED_SETTINGS.items():
        monkeypatch.setenv(name, value.replace("postgres@", "someone:hunter2@"))
    monkeypatch.setenv("LISTEN_DATABASE_URL", "postgresql://someone:hunter2@127.0.0.1:9/chatdb")
    settings = read_settings()
    assert "hunter2" in settings.database_url
    for text in (repr(settings), str(settings), f"{settings}", f"{settings!r:}", f"{settings!s}", repr([settings])):
        assert "frontend_host" in text
        assert_masked(text)


def test_every_setting_that_is_an_address_with_a_password_is_masked() -> None:
    shown = {field.name for field in fields(Settings) if field.repr}
    assert {name for name in shown if name.endswith("database_url")} == set()


@pytest.mark.parametrize("name", ["LLMSERVER_URL", "MCP_SERVER_URL"])
def test_a_password_in_an_upstream_address_is_refused_or_masked(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for other, value in UNUSED_SETTINGS.items():
        monkeypatch.setenv(other, value)
    monkeypatch.setenv(name, "http://someone:hunter2@127.0.0.1:9")
    try:
        assert_masked(repr(read_settings()))
    except InvalidSettings as invalid:
        assert_masked(str(invalid) + repr(invalid.problems))


def test_no_report_of_wrong_settings_shows_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in fields(Settings):
        monkeypatch.setenv(field.name.upper(), "someone:hunter2@ \x1b[31m")
    with pytest.raises(InvalidSettings) as invalid:
        read_settings()
    assert len(invalid.value.problems) > 30
    assert_masked(f"{invalid.value}{invalid.value!r}{invalid.value.problems}")


# The log of a whole run

MARK = "은밀한말"


def said(what: str) -> str:
    """A text that must not be found in a log."""
    return f"{MARK} {what} {uuid.uuid4().hex}"


async def talk(world: World, visitor: Visitor) -> list[str]:
    """Turns, good and bad; returns the sessions' ids."""
    replies: list[Reply] = [
        answer(said("answer")),
        tool_answer({"answer": said("tool"), "card_list": [said("card")], "relatedQuestions": [said("question")]}),
        Json({"detail": said("failure")}, status=500),
        Raw(said("no JSON").encode()),
        Drop(),
        Drop(said("half").encode()),
        tool_answer(said("text of a tool")),
    ]
    for reply in replies:
        text = said("prompt")
        world.llm.on(text, reply)
        await visitor.ask(text)
    for frame in (MARK, f'{{"{MARK}', f'["{MARK}"]', MARK.encode(), {"message_id": MARK, "message": MARK}):
        await visitor.send(frame)
        assert "error" in await visitor.receive()
    for message in (MARK + "\0", MARK * 1001, [MARK], {MARK: MARK}):
        await visitor.send({"message_id": new_id(), "message": message})
        assert "error" in await visitor.receive()
    message_id = new_id()
    for _ in range(2):
        await visitor.prompt(said("twice"), message_id)
        await visitor.receive()
    async with visit(visitor.gateway) as other:
        await other.prompt(said("the same id elsewhere"), message_id)
        assert "error" in await other.receive()
        await other.socket.close(1000, MARK)
    return [visitor.session_id, other.session_id]


async def call(world: World, gateway: Gateway, session_id: str, persona_ids: list[int]) -> None:
    """Every REST path with the session, well and badly."""
    replies: list[Reply] = [recommendation(said("push"), [said("card")]), Json({"detail": said("stack")}, status=500)]
    world.mcp.on_session(session_id, *replies)
    async with gateway.async_http() as http:
        for persona_id in (*persona_ids, 999_999):
            await http.post("/api/login", json={"session_id": session_id, "persona_id": persona_id})
        for path in ("/api/login", "/api/login/persona_id", "/api/chat/feedback"):
            for body in (
                {"session_id": session_id, "message_id": session_id, "is_helpful": True, "x": MARK},
                {MARK: 1},
            ):
                await http.post(path, json=body)
            await http.post(path, content=f'{{"session_id": "{session_id}", "{MARK}'.encode())
        for path in (f"/api/chat/history/{session_id}", f"/api/chat/history/{session_id}x", f"/nothing/{session_id}"):
            await http.get(path, params={"limit": MARK, "session_id": session_id})
            await http.get(path, headers=bearer(session_id))
            await http.put(path, content=MARK.encode())
        await http.get(f"/api/chat/ws?session_id={session_id}")


async def resume(gateway: Gateway, session_id: str) -> None:
    """Go on with a session, refused and granted, and leave in unfriendly ways."""
    for origin, query in (("http://example.com", ""), (None, "&since=nonsense"), (None, f"&since={MARK}"), (None, "")):
        with suppress(InvalidStatus, ConnectionClosed):
            async with gateway.connect(
                query=f"session_id={session_id}{query}", origin=origin, subprotocols=protocols(key_of(session_id))
            ) as connection:
                await receive(connection)
                await connection.send(MARK)
    for data in (b"\x83\x80abcd", b"\x81\x84\0\0\0\0\xff\xfe" + MARK.encode()[:2], MARK.encode()):
        with RawSocket(gateway) as stranger:
            stranger.handshake(f"session_id={session_id}")
            stranger.socket.sendall(data)
            stranger.socket.shutdown(socket.SHUT_WR)
            stranger.read_until_cut()


async def break_databases(world: World, visitor: Visitor) -> None:
    """Prompts and calls while ChatDB fails in several ways, among them constraints whose errors quote the row."""
    world.mcp.on_session(visitor.session_id, recommendation(said("push that is refused")))
    constraint = f"ADD CONSTRAINT refusing CHECK (content NOT LIKE '%{MARK}%') NOT VALID"
    for harm, repair in (
        ('ALTER TABLE "Chat" RENAME TO "Elsewhere"', 'ALTER TABLE "Elsewhere" RENAME TO "Chat"'),
        (f'ALTER TABLE "Chat" {constraint}', 'ALTER TABLE "Chat" DROP CONSTRAINT refusing'),
        ('ALTER TABLE "ChatSession" RENAME TO "Elsewhere"', 'ALTER TABLE "Elsewhere" RENAME TO "ChatSession"'),
    ):
        world.chatdb.execute(harm)
        await visitor.prompt(said("into a broken database"))
        assert "error" in await visitor.receive()
        async with visitor.gateway.async_http() as http:
            await http.get(f"/api/chat/history/{visitor.session_id}", headers=bearer(visitor.session_id))
            await http.post("/api/login", json={"session_id": visitor.session_id, "persona_id": 1})
        world.chatdb.execute(repair)
    kill_backends(world.chatdb)

    async def works() -> bool:
        return "error" not in await visitor.ask(said("prompt"))

    await become(works)


@pytest.mark.parametrize(("start", "environment"), [("uvicorn", "development"), ("python", "production")])
async def test_the_log_of_a_whole_run_holds_nothing_that_was_said(
    new_world: NewWorld, start: Start, environment: str
) -> None:
    world = new_world()
    more = {
        "LOG_LEVEL": "debug",
        "ENVIRONMENT": environment,
        "PROMPTS_PER_MINUTE": "1000",
        "QNA_REFRESH_SECONDS": "0.5",
    }
    with Gateway(world.settings | more, start=start) as gateway:
        persona_ids = add_personas(world.chatdb, MARK, MARK + "2")
        world.card_qna.execute(
            f"UPDATE faqs SET question = '{MARK} ' || question, answer = '{MARK} ' || answer WHERE views >= 0"
        )
        async with visit(gateway) as visitor:
            session_ids = await talk(world, visitor)
            await call(world, gateway, visitor.session_id, persona_ids)
        await resume(gateway, visitor.session_id)
        async with visit(gateway) as visitor:
            await break_databases(world, visitor)
            session_ids.append(visitor.session_id)
        eventually(lambda: gateway.output().count("disconnected") >= 3, what="the log is written")
        assert gateway.stop() == 0
        log = gateway.output()
    assert "connected" in log and "turn" in log, "the log was written"
    found = [line for line in log.splitlines() if MARK in line or MARK.encode("unicode_escape").decode() in line]
    assert found == [], "what was said"
    for session_id in session_ids:
        found = [line for line in log.splitlines() if session_id in line or session_id.replace("-", "") in line]
        assert found == [], "a whole session id"
        assert key_of(session_id) not in log
    assert PASSWORD not in log


def test_the_metrics_name_no_session_and_no_text(started: Gateway, world: World) -> None:
    lines: list[Any] = [line for line in started.http.get("/metrics").text.splitlines() if not line.startswith("#")]
    assert not [line for line in lines if re.search(r"[0-9a-f]{8}-[0-9a-f]{4}|127\.0\.0\.1|not-checked", line)]
    assert not [line for line in lines if line.startswith("python_info")], "the version of Python"
