"""The log: one JSON object a line in production, readable lines in development, one line for each turn."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.observability import provoke
from tests.observability.conftest import Cuttable, Pair, TakenOver
from tests.observability.scrape import scrape
from tests.support.backends import Hang, Held, answer
from tests.support.chat import new_id, visit
from tests.support.cluster import resume, until_closed
from tests.support.gateway import Gateway, environment
from tests.support.processes import ROOT
from tests.support.waiting import become
from tests.support.world import NewGateway, NewWorld, World, unique

pytestmark = pytest.mark.anyio

Line = dict[str, Any]

LEVELS = ("debug", "info", "warning", "error", "critical")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?\+00:00")
COLOUR = "\x1b["
PARTS = {"store_answer", "send"}  # what is known is stored with its prompt


def parsed(output: str) -> list[Line]:
    """Every line, each of which must be one JSON object with what every line has."""
    lines = []
    for text in output.splitlines():
        assert text.startswith("{"), f"no JSON object: {text!r}"
        line = json.loads(text)
        assert {"time", "level", "event", "instance"} <= set(line), line
        assert TIME.fullmatch(line["time"]), line
        assert datetime.fromisoformat(line["time"])
        assert line["level"] in LEVELS, line
        assert isinstance(line["event"], str) and line["event"], line
        lines.append(line)
    return lines


def new_lines(gateway: Gateway, before: str, **fields: Any) -> list[Line]:
    """What was logged since, with these values."""
    return [line for line in parsed(gateway.output()[len(before) :]) if fields.items() <= line.items()]


async def logged(gateway: Gateway, before: str, **fields: Any) -> Line:
    """The one line with these values, as soon as it is there."""
    await become(lambda: new_lines(gateway, before, **fields), what=f"a line with {fields}")
    (line,) = new_lines(gateway, before, **fields)
    return line


@pytest.mark.parametrize("outcome", ["llm", "faq", "term"])
async def test_a_turn_is_one_line_with_its_parts_in_milliseconds(pair: Pair, outcome: str) -> None:
    """Who asked (a hash), what (its id), how it was answered, and how long each part took."""
    before = pair.here.output()
    ask = {"llm": provoke.ask_llm, "faq": provoke.ask_faq, "term": provoke.ask_term}[outcome]
    await ask(pair)
    line = await logged(pair.here, before, event="turn")
    assert (line["level"], line["outcome"]) == ("info", outcome)
    assert isinstance(line["instance"], int)
    assert re.fullmatch(r"[0-9a-f]{8,16}", line["session"])
    assert re.fullmatch(r"[0-9a-f-]{36}", line["message_id"])
    parts = line["milliseconds"]
    assert set(parts) == PARTS | ({"store_prompt", "wait", "upstream"} if outcome == "llm" else set())
    assert all(isinstance(part, float) and 0 <= part < 10_000 for part in parts.values()), parts


async def test_a_slow_part_is_seen(pair: Pair) -> None:
    """While the LLM server holds its answer back, the time goes to `upstream`, which becomes the largest part."""
    message = unique("느린 질문")
    held = Held(answer("드디어"))
    pair.cluster.world.llm.on(message, held)
    before = pair.here.output()
    async with visit(pair.here) as visitor:
        await visitor.prompt(message)
        await pair.cluster.world.llm.called(query=message)
        called_at = time.monotonic()
        await become(lambda: scrape(pair.here).value("gateway_oldest_turn_seconds") > 0, what="it takes a while")
        held_milliseconds = (time.monotonic() - called_at) * 1000
        held.release()
        await visitor.receive()
    parts = (await logged(pair.here, before, event="turn"))["milliseconds"]
    assert parts["upstream"] >= held_milliseconds
    assert parts["upstream"] == max(parts.values())


async def test_a_streamed_turn_says_when_its_first_delta_came_and_how_many_there_were(pair: Pair) -> None:
    """Whether it was finished or stopped."""
    for ask, outcome, pieces in ((provoke.ask_for_a_stream, "llm", 2), (provoke.stop, "stopped", 1)):
        before = pair.here.output()
        await ask(pair)
        line = await logged(pair.here, before, event="turn", outcome=outcome)
        assert line["pieces"] == pieces
        assert 0 < line["milliseconds"]["first_delta"] <= sum(line["milliseconds"].values())


async def test_connects_and_disconnects_are_logged_with_code_and_reason(pair: Pair) -> None:
    before = pair.here.output()
    async with visit(pair.here) as visitor:
        connected = await logged(pair.here, before, event="connected")
        await visitor.socket.close(1001, "going away")
    line = await logged(pair.here, before, event="disconnected", code=1001)
    # The reason is the gateway's own; a visitor's would be a text of theirs.
    assert (line["code"], line["reason"], line["session"]) == (1001, None, connected["session"])


async def test_whoever_was_connected_is_disconnected_in_the_log(pair: Pair) -> None:
    """Also who was taken over elsewhere (4001), sent too much (1008), or just vanished."""
    before = pair.here.output()
    async with visit(pair.here) as visitor, resume(pair.here, visitor.session_id):
        assert (await until_closed(visitor.socket))[1] == 4001
        line = await logged(pair.here, before, event="disconnected", code=4001)
        assert (line["reason"], line["connection_no"]) == ("The session was opened elsewhere", 0)
    async with visit(pair.here) as visitor:
        for _ in range(40):
            await visitor.prompt("너무 많은 질문")
        assert (await until_closed(visitor.socket))[1] == 1008
        await logged(pair.here, before, event="disconnected", code=1008)
    async with visit(pair.here) as visitor:
        visitor.socket.transport.abort()
    await become(lambda: len(new_lines(pair.here, before, event="disconnected")) == 4, what="four have left")
    assert len(new_lines(pair.here, before, event="connected")) == 4


async def test_a_handshake_that_fails_because_of_the_database_is_logged(cuttable: Cuttable) -> None:
    """Like any other refusal: that a statement failed does not say that a visitor was turned away."""
    cuttable.chatdb.cut()
    before = cuttable.gateway.output()
    try:
        async with cuttable.gateway.connect() as socket:
            assert "DB operation failed" in str(await socket.recv())
            with suppress(ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 1011
    finally:
        cuttable.chatdb.mend()
    events = {line["event"] for line in new_lines(cuttable.gateway, before)}
    assert events & {"handshake refused", "session refused", "session failed"}, events


async def test_refused_handshakes_are_logged_with_the_reason(pair: Pair) -> None:
    before = pair.here.output()
    await provoke.come_from_a_foreign_origin(pair)
    line = await logged(pair.here, before, event="handshake refused")
    assert line["reason"] == "origin"
    before = pair.here.output()
    await provoke.come_when_it_is_full(pair)
    line = await logged(pair.here, before, event="handshake refused")
    assert line["reason"] == "full"


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (provoke.send_no_json, "refused_invalid_json"),
        (provoke.send_an_invalid_message, "refused_invalid_message"),
        (provoke.send_too_many_at_once, "refused_pending"),
        (provoke.send_too_many_in_a_minute, "refused_rate"),
        (provoke.take_an_id_of_another_session, "refused_invalid_message"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_refused_prompts_are_logged_with_the_reason(pair: Pair, what: Any, reason: str) -> None:
    """With the session, so that one visitor who sends too much is told from all of them."""
    before = pair.here.output()
    await what(pair)
    line = await logged(pair.here, before, event="prompt refused")
    assert (line["reason"], len(line["session"])) == (reason, 10)


async def test_failures_of_the_servers_behind_are_warnings(pair: Pair) -> None:
    before = pair.here.output()
    await provoke.answer_with_a_status(pair)
    line = await logged(pair.here, before, event="LLM server failed")
    assert (line["level"], line["error"], line["server"]) == ("warning", "HTTP 503", pair.cluster.world.llm.url)
    turn = await logged(pair.here, before, event="turn", message_id=line["message_id"])
    assert turn["outcome"] == "llm_failed"
    await provoke.fail_to_log_in(pair)
    line = await logged(pair.here, before, event="MCP server failed")
    assert (line["level"], line["error"]) == ("warning", "HTTP 500")
    assert "request_id" in line, "which login it was"


async def test_a_takeover_is_logged_by_who_takes_over(taken_over: TakenOver) -> None:
    lines = parsed(taken_over.output)
    (lost,) = [line for line in lines if line["event"] == "instance lost"]
    (taken,) = [line for line in lines if line["event"] == "turns taken over"]
    assert (lost["level"], lost["other"]) == ("warning", taken_over.lost_id)
    assert (taken["level"], taken["turns"]) == ("warning", 1)
    assert len([line for line in lines if line["event"] == "turn"]) == 1


async def test_nothing_that_was_said_and_no_whole_id_is_in_any_line(pair: Pair) -> None:
    before = pair.here.output()
    secret = unique("비밀번호는 하나둘셋넷")
    async with visit(pair.here) as visitor:
        await visitor.ask(secret)
        await provoke.log_in(pair, pair.here, visitor.session_id)
        await visitor.receive()
    await logged(pair.here, before, event="disconnected")
    assert "비밀번호" not in pair.here.output()
    assert visitor.session_id not in pair.here.output()


# From the start to the end

STARTS: dict[str, dict[str, Any]] = {
    "python gateway.py, 2 workers": {"start": "python", "WEB_CONCURRENCY": "2"},
    "uvicorn": {},
    # Not `uvicorn --workers 2`: its supervisor never loads our program, and has lines of its own.
}


@pytest.mark.parametrize("way", STARTS)
async def test_every_line_is_json_from_the_start_to_the_end(
    new_world: NewWorld, new_gateway: NewGateway, way: str
) -> None:
    """Draining says how many sessions and turns there were; the socket's end is logged with 1012."""
    world = new_world()
    gateway = new_gateway(world, ENVIRONMENT="production", DRAIN_SECONDS="0.2", **STARTS[way])
    expected = 2 if "2" in way else 1
    await become(lambda: gateway.output().count('"event":"started"') == expected, what="all have started")
    message = unique("못 끝낸 질문")
    world.llm.on(message, Hang())
    async with visit(gateway) as visitor:
        await visitor.prompt(message)
        await world.llm.called(query=message)
        gateway.process.send_signal(signal.SIGTERM)
        await until_closed(visitor.socket)
    await become(lambda: not gateway.process.running())
    gateway.wait()
    lines = parsed(gateway.output())
    of = {event: [line for line in lines if line["event"] == event] for event in ("started", "stopping", "stopped")}
    assert [len(found) for found in of.values()] == [expected] * 3
    assert sorted(line["turns"] for line in of["stopping"])[-1] == 1
    assert sorted(line["sessions"] for line in of["stopping"])[-1] == 1
    assert [line["turns"] for line in lines if line["event"] == "turns handed over"] == [1]
    (left,) = [line for line in lines if line["event"] == "disconnected"]
    assert left["code"] == 1012
    assert not [line for line in lines if "exception" in line]
    assert all(line["instance"] for line in lines if line["event"] in (*of, "connected", "turn", "disconnected"))


def test_also_a_start_that_fails_is_json(new_world: NewWorld) -> None:
    """A setting that is wrong is named in lines that the log's reader can read."""
    settings = new_world().settings | {"ENVIRONMENT": "production", "PORT": "99999"}
    gateway = Gateway(settings, start="python").launch()
    assert gateway.wait() == 2
    assert "PORT" in gateway.output()
    gateway.close()


@pytest.fixture(scope="module")
def world(new_world: NewWorld) -> World:
    return new_world()


async def test_in_development_lines_are_readable_and_without_colours_when_nobody_looks(
    world: World, new_gateway: NewGateway
) -> None:
    """And nothing of the visitor's: neither a prompt nor the reason in a close frame."""
    gateway = new_gateway(world)
    async with visit(gateway) as visitor:
        await visitor.ask(unique("질문"))
        # With line breaks it could pass for lines of the log.
        await visitor.socket.close(3000, "bye\n12:00:00.000 ERROR   statement failed \x1b[31m")
    await become(lambda: "disconnected" in gateway.output())
    lines = gateway.output().splitlines()
    assert "bye" not in gateway.output() and "statement failed" not in gateway.output()
    assert COLOUR not in gateway.output()
    assert not any(line.startswith("{") for line in lines)
    (turn,) = [line for line in lines if " turn " in line]
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} INFO +turn session=[0-9a-f]+ message_id=\S+ outcome=llm ", turn), turn


def test_on_a_terminal_warnings_have_a_colour(world: World) -> None:
    master, slave = pty.openpty()
    program = (
        "from common import logs; logs.set_up('info', 'development'); logs.logging.getLogger('x').warning('careful')"
    )
    subprocess.run([sys.executable, "-c", program], stderr=slave, cwd=ROOT, env=environment({}), check=True)
    os.close(slave)
    shown = os.read(master, 4096).decode()
    os.close(master)
    assert "careful" in shown and COLOUR in shown


async def test_the_level_is_a_setting(world: World, new_gateway: NewGateway) -> None:
    """A turn is information, a dangerous combination is a warning."""
    settings = {"FRONTEND_HOST": "https://chat.example", "PING_SECONDS": "90", "LOG_LEVEL": "warning"}
    gateway = new_gateway(world, start="python", ENVIRONMENT="production", **settings)
    async with visit(gateway) as visitor:
        await visitor.ask(unique("질문"))
    gateway.stop()
    (line,) = parsed(gateway.output())
    assert line["level"] == "warning"
    assert "PING_SECONDS" in line["event"]


# The request's id


def made(headers: Mapping[str, str]) -> str:
    request_id = headers["x-request-id"]
    assert re.fullmatch(r"[A-Za-z0-9-]{16,64}", request_id), request_id
    return request_id


def test_a_request_id_is_taken_over_or_made_and_returned(pair: Pair) -> None:
    """On every answer, errors as well; one that is not fit for a log is replaced."""
    http = pair.here.http
    for path in ("/api/health", "/api/nowhere", "/api/chat/history/x"):
        assert http.get(path, headers={"X-Request-ID": "req-1.a"}).headers["x-request-id"] == "req-1.a"
        assert made(http.get(path).headers) != made(http.get(path).headers)
    for bad in ("a b", "x" * 200, "<script>", "a;b"):
        assert made(http.get("/api/health", headers={"X-Request-ID": bad}).headers) != bad
    assert http.post("/api/login", json={}, headers={"X-Request-ID": "req-2"}).headers["x-request-id"] == "req-2"


async def test_a_logins_id_goes_to_the_mcp_server_and_into_the_log(pair: Pair) -> None:
    before = pair.here.output()
    async with visit(pair.here) as visitor, pair.here.async_http() as http:
        body = {"session_id": visitor.session_id, "persona_id": pair.persona}
        response = await http.post("/api/login", json=body, headers={"X-Request-ID": "login-7"})
        assert (response.status_code, response.headers["x-request-id"]) == (200, "login-7")
        (call,) = await pair.cluster.world.mcp.called(session_id=visitor.session_id)
        assert call.headers["x-request-id"] == "login-7"
        await visitor.receive()
    line = await logged(pair.here, before, event="login")
    assert line["request_id"] == "login-7"


async def test_a_prompts_id_goes_to_the_llm_server_and_into_the_log(pair: Pair) -> None:
    """The prompt's own message_id is the id of its call."""
    before = pair.here.output()
    message, message_id = unique("어디까지 갔나요"), new_id()
    async with visit(pair.here) as visitor:
        await visitor.ask(message, message_id=message_id)
    (call,) = await pair.cluster.world.llm.called(query=message)
    assert call.headers["x-request-id"] == message_id
    await logged(pair.here, before, event="turn", message_id=message_id)


async def test_a_refused_handshake_returns_an_id(pair: Pair) -> None:
    """So that who reports a refusal can name it."""
    with pytest.raises(InvalidStatus) as refused:
        async with pair.here.connect(origin="https://elsewhere.example", additional_headers={"X-Request-ID": "ws-1"}):
            pass
    assert refused.value.response.headers.get("x-request-id") == "ws-1"
