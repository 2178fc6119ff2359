"""Any input gets an answer of the contract, and the session goes on: hundreds of cases, with FUZZ=long thousands."""

import json
import re
import socket
import struct
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.security import measured
from tests.security.fuzzing import IS_LONG, MAX_CHARS, MAX_FRAME_BYTES, UUID, Target, cases
from tests.security.states import CHUNKED, GET, HEALTH, KEY, LOGIN, UPGRADE
from tests.support.background import background
from tests.support.chat import PLAIN_ANSWER, new_id
from tests.support.gateway import Gateway
from tests.support.http import assert_invalid, assert_sentence
from tests.support.raw import CLOSE, TEXT, RawSocket, masked
from tests.support.waiting import PATIENCE_SECONDS, eventually
from tests.support.world import NewWorld, add_personas

pytestmark = pytest.mark.timeout(1800 if IS_LONG else 120)

GROWTH_MIB = 10 if IS_LONG else 24


@pytest.fixture(scope="module")
def target(new_world: NewWorld) -> Iterator[Target]:
    """The gateway of this file; it must end as it began: one session, no more memory, no error in its log."""
    world = new_world()
    generous = {"PROMPTS_PER_MINUTE": "1000000", "PING_SECONDS": "600", "ENVIRONMENT": "production"}
    with Gateway(world.settings | generous, start="python") as gateway:
        add_personas(world.chatdb, "김하늘")
        target = Target(gateway, world)
        for _ in range(300 if IS_LONG else 100):  # caches, pools and arenas fill
            background.run(target.goes_on())
            gateway.http.post("/api/login", content=b"{}")
        before, began = target.resident_mib, time.monotonic()
        yield target
        background.run(target.goes_on())
        grown = target.resident_mib - before
        total, seconds = sum(target.tried.values()), time.monotonic() - began
        print(f"\n{total} inputs tried in {seconds:.0f} s: {dict(target.tried)}; wrong answers 0; sessions lost 0;")
        print(f"memory {before:.0f} MiB before, {grown:+.1f} MiB after")
        assert grown < GROWTH_MIB, f"{grown:.1f} MiB more"
        if IS_LONG:
            measured.record("inputs", dict(target.tried))
            measured.record("memory", (before, grown))
        background.run(target.visitor.leave())
        assert gateway.stop() == 0
        events = [json.loads(line) for line in gateway.output().splitlines() if line.startswith("{")]
        assert [event for event in events if event["level"] in ("error", "critical")] == []
        assert "never retrieved" not in gateway.output()


# Frames of the visitor

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=40)
    | st.sampled_from(
        ["", " ", "\x00", "9" * 40, "' OR 1=1 --", "<script>alert(1)</script>", "$(id)", "{{7*7}}", "%s%n"]
    )
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
ID = "@id@"  # a fresh id is put in its place, so that no two cases share one
ids = st.sampled_from([ID, ID.upper(), ID + " ", "{" + ID + "}", "", "0" * 36]) | values
messages = (
    values
    | st.text(min_size=1, max_size=200)
    | st.sampled_from(
        ["가" * MAX_CHARS, "가" * (MAX_CHARS + 1), "😀" * MAX_CHARS, "\u200b", "\u3000", "a\x00b", "\n\t"]
    )
)
objects = st.fixed_dictionaries({}, optional={"message_id": ids, "message": messages, "session_id": values, "": values})
likely = st.fixed_dictionaries({"message_id": st.just(ID), "message": messages})


@st.composite
def broken(draw: st.DrawFn) -> str:
    """A good frame in which a few characters were cut out, put in or doubled."""
    text = json.dumps(draw(likely), ensure_ascii=draw(st.booleans()))
    for _ in range(draw(st.integers(1, 3))):
        place, length = draw(st.integers(0, len(text))), draw(st.integers(0, 5))
        text = (
            text[:place]
            + draw(st.sampled_from(["", '"', "\\", "{", "}", ",", "\\ud800", "\x07", text]))
            + text[place + length :]
        )
    return text


frames: st.SearchStrategy[str | bytes] = st.one_of(
    st.text(max_size=300),
    st.binary(max_size=300),
    values.map(json.dumps),
    objects.map(json.dumps),
    likely.map(json.dumps),
    likely.map(lambda value: json.dumps(value, ensure_ascii=False)),
    broken(),
)


def _strict(text: str) -> Any:
    """A JSON value as RFC 8259 has it; ValueError or RecursionError for anything else."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    value = json.loads(text, parse_constant=refuse)
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # no lone surrogates, no infinite numbers
    return value


def expected(frame: str | bytes) -> Callable[[dict[str, Any]], None]:
    """What the contract says to a frame, written down a second time."""
    invalid_json = {"error": "Invalid JSON format"}
    try:
        value = _strict(frame) if isinstance(frame, str) else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return lambda answer: _same(answer, invalid_json)
    message_id, message = value.get("message_id"), value.get("message")
    if not isinstance(message_id, str) or not UUID.fullmatch(message_id):
        return lambda answer: _is_refusal(answer, None)
    known = str(uuid.UUID(message_id))
    if not isinstance(message, str) or not message.strip() or len(message) > MAX_CHARS or "\0" in message:
        return lambda answer: _is_refusal(answer, known)
    return lambda answer: _is_answer(answer, known, message)


def _same(answer: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert answer == wanted


def _is_refusal(answer: dict[str, Any], message_id: str | None) -> None:
    assert set(answer) == ({"error", "message_id"} if message_id else {"error"}), answer
    assert answer.get("message_id") == message_id
    assert re.fullmatch(r"Invalid message: message(_id)? [ a-zA-Z0-9]+", answer["error"]), answer


def _is_answer(answer: dict[str, Any], message_id: str, message: str) -> None:
    assert set(answer) == PLAIN_ANSWER, answer
    assert (answer["sender"], answer["login_required"]) == ("bot", False)
    assert answer["message_id"] == message_id
    assert answer["message"] == f"re: {message}"


@cases(200, 20_000)
@given(frame=frames)
@example(frame='{"message_id": 1e999, "message": "x"}')
@example(frame="\ufeff{}")
@example(frame='{"message_id": "@id@", "message": "\\ud83d\\ude00 \\u0041"}')
@example(frame='{"message": "a", "message": "b", "message_id": "0", "message_id": "@id@"}')
@example(frame='{"message_id": "@id@", "message": "\\ud800"}')
@example(frame='{"a":' * 5000 + "1" + "}" * 5000)
@example(frame="1" * 60_000)
def test_every_frame_gets_the_answer_of_the_contract(target: Target, frame: str | bytes) -> None:
    if isinstance(frame, str):
        frame = frame.replace(ID, new_id()).replace(ID.upper(), new_id().upper())
        frame = frame.encode()[:MAX_FRAME_BYTES].decode(errors="ignore")
    target.exchange(frame, expected(frame))


everything = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=120)


@cases(40, 1000)
@given(text=everything.filter(lambda text: bool(text.strip())))
@example(text="👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇰🇷 1️⃣")  # joined, toned, flags
@example(text="각 " + "\u1100\u1161\u11a8 ㄱㅏㄱ ﾡ")  # Hangul in both normal forms, and its compatibility forms
@example(text="e\u0301 é Z\u0351\u036b\u0343 \u0301")  # combining marks, also with nothing to stand on
@example(text="שלום \u202bمرحبا\u202c \u2066x\u2069 \u200f")  # right to left, with its controls
@example(text="\ufeff\u2028\u2029\u0085\u00a0\u200b\u2060\ufffd")
@example(text="\U0010ffff\U0001f9ff\uffff\ufdd0\ue000")
@example(text='\x01\x1b[31m\x7f\x80\x9f\r\n\t\\"/')
def test_unicode_comes_back_byte_for_byte(target: Target, text: str) -> None:
    """To the LLM server, in the frame, in ChatDB and in the history."""
    target.tried["texts in all of Unicode"] += 1
    message_id = new_id()

    async def converse() -> dict[str, Any]:
        await target.visitor.prompt(text, message_id)
        return await target.visitor.receive()

    assert background.run(converse())["message"].encode() == b"re: " + text.encode()
    assert target.world.llm.calls[-1].json["query"].encode() == text.encode()
    history = target.visitor.history(limit=2)
    assert [entry["content"].encode() for entry in history] == [text.encode(), b"re: " + text.encode()]
    assert {entry["message_id"] for entry in history} == {message_id}


# Bytes in place of WebSocket frames


WS_STATES = {
    "during a handshake": b"",
    "open": b"",
    "in a frame": b"\x81\xfd\0\0\0\0{",
    "in a message of fragments": masked(0x01, b"{"),
    "behind a close": masked(0x88),
}


@st.composite
def frame_bytes(draw: st.DrawFn) -> bytes:
    """Something like frames: any opcode, any flags, masked or not, fragments in any order, lengths that lie."""
    parts = []
    for _ in range(draw(st.integers(1, 5))):
        opcode = draw(st.sampled_from([0, 1, 1, 2, 8, 9, 10, 3, 15]))
        first = opcode | draw(st.sampled_from([0x80, 0x80, 0, 0xC0, 0x90]))
        payload = draw(st.binary(max_size=130) | st.text(max_size=30).map(str.encode))
        length = draw(st.sampled_from([len(payload)] * 6 + [0, 2**16, 2**31, 2**63 - 1, 2**64 - 1]))
        mask = draw(st.sampled_from([0x80, 0x80, 0x80, 0]))
        if length < 126:
            head = struct.pack("!BB", first, mask | length)
        elif length < 65536:
            head = struct.pack("!BBH", first, mask | 126, length)
        else:
            head = struct.pack("!BBQ", first, mask | 127, length)
        parts.append(head + (b"\0\0\0\0" if mask else b"") + payload)
    return b"".join(parts)


@cases(60, 8000)
@given(state=st.sampled_from(sorted(WS_STATES)), data=frame_bytes() | st.binary(min_size=1, max_size=200))
@example(state="open", data=b"\x81\x82\0\0\0\0\xff\xfe")
@example(state="open", data=b"\x81\x82\0\0\0\0\xff\xfe" + b"\x88\x80\0\0\0\0")  # and a close in the same segment
def test_bytes_that_are_no_frames_end_their_own_connection_and_no_other(
    target: Target, state: str, data: bytes
) -> None:
    target.tried[f"bytes in place of frames, {state}"] += 1
    with RawSocket(target.gateway) as stranger:
        stranger.ask_for_handshake()
        if state != "during a handshake":
            stranger.read_handshake()
        stranger.socket.sendall(WS_STATES[state] + data)
        stranger.socket.shutdown(socket.SHUT_WR)
        if state == "during a handshake":
            stranger.read_head()
        for opcode, payload in stranger.read_until_cut():
            if opcode == TEXT and b'"key"' not in payload:
                assert json.loads(payload) == {"error": "Invalid JSON format"}
            elif opcode == CLOSE and payload:
                (code,) = struct.unpack("!H", payload[:2])
                assert code in (1000, 1002, 1007, 1009) or 3000 <= code < 5000 or payload in data
    background.run(target.goes_on())


# HTTP

UNKNOWN = str(uuid.uuid4())
POSTS = {
    "/api/chat/feedback": ("message_id", "is_helpful"),
    "/api/login": ("session_id", "persona_id"),
    "/api/login/persona_id": ("session_id",),
}
near_ids = st.sampled_from([UNKNOWN, UNKNOWN.upper(), UNKNOWN[:-1], "{" + UNKNOWN + "}", UNKNOWN.replace("-", "")])
near_fields = st.fixed_dictionaries(
    {},
    optional={
        "message_id": near_ids | values,
        "session_id": near_ids | values,
        "is_helpful": st.booleans() | values,
        "persona_id": st.integers(-(2**70), 2**70) | st.integers(0, 3) | values,
        "": values,
    },
)
bodies = st.one_of(
    st.binary(max_size=200),
    near_fields.map(lambda value: json.dumps(value).encode()),
    near_fields.map(lambda value: json.dumps(value, ensure_ascii=False).encode()),
    values.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=20).map(lambda data: b'{"session_id": "' + data + b'"}'),
)


@cases(80, 5000)
@given(path=st.sampled_from(sorted(POSTS)), slash=st.sampled_from(["", "/"]), body=bodies, kind=st.integers(0, 3))
@example(path="/api/login", slash="", body=b'{"persona_id": 1' + b"0" * 5000 + b"}", kind=0)
@example(path="/api/chat/feedback", slash="", body=b'{"message_id":"00000000-0000-0000-0000-000000000000"}', kind=0)
def test_every_body_gets_the_answer_of_the_contract(
    target: Target, path: str, slash: str, body: bytes, kind: int
) -> None:
    target.tried["request bodies"] += 1
    content_type = ["application/json", "text/plain", "application/json; charset=utf-16", ""][kind]
    response = target.gateway.http.post(path + slash, content=body, headers={"content-type": content_type})
    try:
        value = _strict(body.decode())
    except (ValueError, RecursionError):
        value = None
    if response.status_code == 404:
        assert_sentence(response, 404)
        assert isinstance(value, dict)
        for name in POSTS[path]:
            assert name in value or name == "is_helpful", "which may be left out"
            assert not name.endswith("_id") or name == "persona_id" or UUID.fullmatch(value[name])
    else:
        places = assert_invalid(response)
        assert {tuple(place["loc"]) for place in places} <= {("body",), *(("body", name) for name in POSTS[path])}


query_values = (
    st.integers().map(str) | st.text(max_size=20) | st.sampled_from(["", "1.0", "+5", "007", "１", "9" * 400])
)


@cases(50, 3000)
@given(
    path=st.sampled_from(["/api/qna/faq", "/api/qna/terms", f"/api/chat/history/{UNKNOWN}"]),
    query=st.lists(st.tuples(st.sampled_from(["top_k", "limit", "", "a"]), query_values), max_size=3),
)
def test_every_query_gets_the_answer_of_the_contract(target: Target, path: str, query: list[tuple[str, str]]) -> None:
    target.tried["queries"] += 1
    response = target.gateway.http.get(path, params=urlencode(query))
    name, most = ("limit", 500) if "history" in path else ("top_k", 100)
    given_values = [value for key, value in query if key == name]
    is_integer = not given_values or re.fullmatch(r"[+-]?[0-9]+", given_values[-1], re.ASCII)
    if is_integer and (not given_values or 1 <= int(given_values[-1]) <= most):
        if name == "limit":
            assert_sentence(response, 404)
        else:
            assert response.status_code == 200
            assert isinstance(response.json(), list)
    else:
        assert_invalid(response, ("query", name))


@cases(30, 2500)
@given(
    start=st.sampled_from(["/", "/api/", "/api/chat/history/", "/web/", "/docs", "/api/health", "/api/chat/ws"]),
    rest=st.text(max_size=30).map(quote)
    | st.sampled_from(["../settings.py", "..%2f..%2fetc/passwd", "%00", "//", "."]),
    method=st.sampled_from(["GET", "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"]),
)
def test_every_path_gets_the_answer_of_the_contract(target: Target, start: str, rest: str, method: str) -> None:
    target.tried["paths and methods"] += 1
    response = target.gateway.http.request(method, target.gateway.base_url + start + rest)
    assert response.status_code in (200, 404, 405, 422), response.text
    if response.status_code in (404, 405) and method != "HEAD":
        assert_sentence(response, response.status_code)
    elif response.status_code == 422 and method != "HEAD":
        assert_invalid(response, ("path", "session_id"))


HTTP_STATES = {
    "at first": b"",
    "in a head": GET,
    "in a handshake's head": UPGRADE + KEY,
    "in a body": LOGIN + b"Content-Length: 40\r\n\r\n{",
    "in a body that nobody reads": HEALTH + b"Content-Length: 40\r\n\r\n{",
    "in a chunk": LOGIN + CHUNKED + b"20\r\n{",
    "between chunks": LOGIN + CHUNKED + b"1\r\n{\r\n",
    "after the last chunk": LOGIN + CHUNKED + b"2\r\n{}\r\n0\r\n",
    "between requests": GET + b"\r\n",
    "in a pipeline": (GET + b"\r\n") * 3 + GET,
}


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Something like an HTTP request."""
    method = draw(st.sampled_from([b"GET", b"POST", b"get", b"", b"TRACE", b"CONNECT", b"PRI"]))
    path = draw(
        st.sampled_from([b"/api/health", b"/api/login", b"/api/chat/ws", b"*", b"//", b""]) | st.binary(max_size=9)
    )
    version = draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b""]))
    names = [b"Content-Length", b"Transfer-Encoding", b"Upgrade", b"Connection", b"Expect", b"Origin", b"Range"]
    names += [b"Sec-WebSocket-Key", b"Sec-WebSocket-Version", b"Host", b"X-Forwarded-Host", b"X-Forwarded-For", b"X"]
    contents = [b"0", b"5", b"-1", b"chunked", b"websocket", b"Upgrade", b"100-continue", b"null", b"a" * 16, b"13"]
    header = st.tuples(st.sampled_from(names), st.sampled_from(contents) | st.binary(max_size=12))
    head = b"".join(name + b": " + value + b"\r\n" for name, value in draw(st.lists(header, max_size=6)))
    return method + b" " + path + b" " + version + b"\r\n" + head + b"\r\n" + draw(st.binary(max_size=20))


@cases(60, 11_000)
@given(state=st.sampled_from(sorted(HTTP_STATES)), data=requests() | st.binary(min_size=1, max_size=120))
@example(state="at first", data=b"POST /api/login HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n")
@example(state="at first", data=b"GET /api/health HTTP/1.1\r\n" + b"x: y\r\n" * 500 + b"\r\n")
def test_bytes_that_are_no_request_are_refused_or_cut(target: Target, state: str, data: bytes) -> None:
    target.tried[f"bytes in place of requests, {state}"] += 1
    answers = b""
    with socket.create_connection(("127.0.0.1", target.gateway.port), timeout=PATIENCE_SECONDS) as stranger:
        stranger.sendall(HTTP_STATES[state] + data)
        stranger.shutdown(socket.SHUT_WR)
        try:
            while piece := stranger.recv(65536):
                answers += piece
        except ConnectionError:
            pass
    statuses = {int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", answers)}
    assert statuses <= {100, 101, 200, 400, 403, 404, 405, 413, 422, 426}, answers
    assert not re.search(rb"(?i)traceback|\.py\b|\nserver:|asyncpg|starlette|uvicorn", answers), answers


def test_at_the_end_nothing_is_left_of_it(target: Target) -> None:
    """The sessions of all those strangers have ended, and every prompt has its one answer."""
    open_sessions = 'SELECT count(*) FROM "ChatSession" WHERE instance_id IS NOT NULL'
    eventually(lambda: target.world.chatdb.value(open_sessions) == 1, what="one session is left")
    unanswered = 'SELECT count(*) FROM "Chat" WHERE is_user AND NOT EXISTS (SELECT FROM "ChatbotResponse" r'
    assert target.world.chatdb.value(f'{unanswered} WHERE r.prompt_chat_id = "Chat".id)') == 0
