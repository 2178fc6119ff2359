"""Replies of the LLM server in events, and calls that are stopped: the class that asks it, against a real server."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from settings import Settings
from tests.support.backends import Call as Received
from tests.support.backends import Drip, Hang, Held, Json, LlmStub, Raw, Reply, Stream, answer, event, tool_answer
from tests.support.gateway import ALLOWED_ORIGIN
from tests.support.raw_server import ANSWERED, RawServer
from tests.support.waiting import PATIENCE_SECONDS, become
from tests.support.world import unique
from upstream.call import Call, Stopped
from upstream.llm import LlmFailed, LlmServer
from upstream.replies import Answer

pytestmark = pytest.mark.anyio

TIMED_OUT = "LLM 서버 통신 오류: 응답 시간이 초과되었습니다."
MALFORMED = "LLM 서버 통신 오류: 응답 형식이 올바르지 않습니다."

STOP_SECONDS = 20.0  # it takes some milliseconds, or more on a busy machine, and without a stop the whole timeout
MAX_BYTES = 2000
LAST = event({"answer": "대답", "tool_response": None})


def delta(text: Any) -> bytes:
    return event({"delta": text})


class Seen:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def delta(self, text: str) -> None:
        self.all.append(("delta", text))

    def tool(self, name: str) -> None:
        self.all.append(("tool", name))

    @property
    def text(self) -> str:
        return "".join(text for kind, text in self.all if kind == "delta")


@pytest.fixture
def settings(llm: LlmStub) -> Settings:
    return Settings(
        frontend_host=frozenset({ALLOWED_ORIGIN}),
        llmserver_url=llm.url,
        mcp_server_url=llm.url,
        database_url="postgresql://127.0.0.1/unused",
        faq_database_url="postgresql://127.0.0.1/unused",
        httpx_timeout=60.0,
        max_reply_bytes=MAX_BYTES,
    )


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[LlmServer]:
    server = LlmServer(settings)
    yield server
    await server.close()


@pytest.fixture
async def impatient(settings: Settings) -> AsyncIterator[LlmServer]:
    server = LlmServer(replace(settings, httpx_timeout=0.5))
    yield server
    await server.close()


class Asked:
    """A prompt that was put to a server: its call, what was seen of its answer, and the task that waits for it."""

    def __init__(self, server: LlmServer, llm: LlmStub, *replies: Reply) -> None:
        self.query = unique("질문")
        llm.on(self.query, *replies)
        self.llm = llm
        self.call = Call()
        self.seen = Seen()
        work = server.dispatch(self.query, uuid4(), str(uuid4()), self.call, self.seen)
        self.task = asyncio.create_task(work)

    async def received(self) -> Received:
        """The call as the server has received it."""
        return (await self.llm.called(query=self.query))[0]

    async def answer(self) -> Answer:
        """The answer, or what the visitor is told in its place."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await self.task
        except LlmFailed as failed:
            return Answer(str(failed))

    async def is_stopped(self) -> bool:
        """Whether it ends as a stopped call; AssertionError if that takes long."""
        stopped_at = time.monotonic()
        with pytest.raises(Stopped):
            await self.answer()
        assert time.monotonic() < stopped_at + STOP_SECONDS
        return True


async def told(server: LlmServer, llm: LlmStub, *pieces: bytes | float, **options: Any) -> tuple[str, str]:
    """The text that was shown, and the message of the answer."""
    asked = Asked(server, llm, Stream(pieces, **options))
    return (await asked.answer()).message, asked.seen.text


# What is shown, and what is the answer


async def test_pieces_come_in_order_and_the_last_object_is_the_answer(server: LlmServer, llm: LlmStub) -> None:
    content = {"answer": "카드 셋입니다.", "card_list": ["나카드"], "relatedQuestions": ["?"], "login_required": True}
    pieces = [
        event({"tool_name": "get_card_description"}),
        delta("카드 "),
        delta("둘"),
        event(tool_answer(content).value),
    ]
    asked = Asked(server, llm, Stream(pieces))
    assert await asked.answer() == Answer(
        "카드 셋입니다.",
        "get_card_recommendation",
        {"login_required": True, "card_list": ["나카드"], "related_questions": ["?"]},
    )
    assert asked.seen.all == [("tool", "get_card_description"), ("delta", "카드 "), ("delta", "둘")]
    assert server.failure is None


async def test_the_llm_server_is_told_that_events_are_understood(server: LlmServer, llm: LlmStub) -> None:
    asked = Asked(server, llm, answer("대답"))
    await asked.answer()
    assert (await asked.received()).headers["accept"] == "application/json, text/event-stream"


async def test_a_piece_is_shown_before_the_next_one_comes(server: LlmServer, llm: LlmStub) -> None:
    asked = Asked(server, llm, Stream([delta("하나"), 0.3, delta("둘")], then="hang"))
    await become(lambda: asked.seen.text == "하나", 0.3)
    await become(lambda: asked.seen.text == "하나둘")
    asked.call.stop()
    assert await asked.is_stopped()


async def test_an_event_may_come_in_any_pieces(server: LlmServer, llm: LlmStub) -> None:
    stream = b"\xef\xbb\xbf: hello\r\n\r\n" + 'data: {\r\ndata: "delta": "조각 😀"}\r\n\r\n'.encode() + LAST
    assert await told(server, llm, *(bytes([byte]) for byte in stream)) == ("대답", "조각 😀")


@pytest.mark.parametrize("type", ["text/event-stream", "Text/Event-Stream; charset=utf-8", "text/event-stream ;x=y"])
async def test_the_media_type_says_that_events_come(server: LlmServer, llm: LlmStub, type: str) -> None:
    assert await told(server, llm, delta("조각"), LAST, content_type=type) == ("대답", "조각")


@pytest.mark.parametrize("type", ["application/json", "text/event-streams", "text/plain; x=text/event-stream", ""])
async def test_another_media_type_is_read_as_json(server: LlmServer, llm: LlmStub, type: str) -> None:
    assert await told(server, llm, b'{"answer": ', b'"one"}', content_type=type) == ("one", "")
    assert await told(server, llm, delta("조각"), LAST, content_type=type) == (MALFORMED, "")


PASSED_OVER = [
    b": comment\n\n",
    b"event: delta\nid: 1\nretry: 10\n\n",
    b"data: [DONE]\n\n",
    b"data\n\n",
    b'data: {"delta": "half\n\n',
    b'data: {"delta": "\xff"}\n\n',
    b'data: {"delta": "\\ud83d"}\n\n',
    b'data: {"delta": NaN}\n\n',
    b"data: " + b"[" * 1200 + b"\n\n",
    *map(event, [None, 5, "delta", ["delta"], {}, {"x": {"delta": "y"}}, {"error": None}, {"Delta": "x"}]),
    *map(delta, [None, 5, True, "", "\0", ["x"], {"text": "x"}]),
    *(event({"tool_name": name}) for name in (None, 5, "", "\0", ["x"])),
]


@pytest.mark.parametrize("piece", PASSED_OVER, ids=lambda piece: repr(piece[:24]))
async def test_what_is_not_understood_is_passed_over(server: LlmServer, llm: LlmStub, piece: bytes) -> None:
    asked = Asked(server, llm, Stream([delta("앞"), piece, delta("뒤"), LAST]))
    assert (await asked.answer()).message == "대답"
    assert asked.seen.all == [("delta", "앞"), ("delta", "뒤")]


async def test_nul_characters_are_left_out(server: LlmServer, llm: LlmStub) -> None:
    asked = Asked(server, llm, Stream([event({"tool_name": "a\0b", "delta": "c\0d"}), event({"answer": "e\0f"})]))
    assert (await asked.answer()).message == "ef"
    assert asked.seen.all == [("tool", "ab"), ("delta", "cd")]


@pytest.mark.parametrize(
    ("value", "message", "text"),
    [
        ({"delta": "조각", "answer": "끝"}, "끝", ""),
        ({"error": "x", "answer": "끝", "tool_name": "x"}, "끝", ""),
        ({"error": "x", "tool_response": tool_answer({"answer": "끝"}).value["tool_response"]}, "끝", ""),
        ({"error": "x", "delta": "조각"}, MALFORMED, ""),
        ({"error": False}, MALFORMED, ""),
        ({"error": None, "delta": "조각"}, "대답", "조각"),
        ({"answer": None, "delta": "조각"}, MALFORMED, ""),
        ({"tool_response": None}, MALFORMED, ""),
    ],
)
async def test_the_last_object_counts_before_an_error_and_an_error_before_a_piece(
    server: LlmServer, llm: LlmStub, value: dict[str, Any], message: str, text: str
) -> None:
    assert await told(server, llm, event(value), LAST) == (message, text)


# Failures


@pytest.mark.parametrize(
    "stream",
    [
        Stream([delta("조각")]),
        Stream([delta("조각")], then="break"),
        Stream([delta("조각"), 0.05], then="break"),
        Stream([delta("조각"), 0.05], then="reset"),
        Stream([delta("조각"), LAST[:-1]]),
        Stream([delta("조각"), LAST[:-1]], then="break"),
        Stream([delta("조각"), event({"error": {"code": 5}})], then="hang"),
        Stream([delta("조각"), event({"answer": "  "})]),
        Stream([delta("조각"), event({"answer": ["대답"]})]),
        Stream([delta("조각"), b"data: [DONE]\n\n"]),
    ],
    ids=["end", "at once", "break", "reset", "cut off", "broken off", "error", "blank", "no text", "done"],
)
async def test_a_stream_without_a_usable_last_object_is_malformed(
    server: LlmServer, llm: LlmStub, stream: Stream
) -> None:
    asked = Asked(server, llm, stream)
    assert await asked.answer() == Answer(MALFORMED)
    assert asked.seen.text == "조각"
    assert server.failure
    assert await told(server, llm, LAST) == ("대답", "")
    assert server.failure is None


@pytest.mark.parametrize("then", ["hang", "break", "reset"])
async def test_what_follows_the_last_object_is_not_read(server: LlmServer, llm: LlmStub, then: Any) -> None:
    """The connection is closed at once, in case that the LLM server wants to go on."""
    after = event({"error": "x"}) + delta("뒤") + b"x" * 2 * MAX_BYTES
    asked = Asked(server, llm, Stream([delta("앞") + LAST + after, 0.5 if then == "reset" else 0.0], then=then))
    answered = await asked.answer()
    assert (answered.message, asked.seen.text) == ("대답", "앞")
    answered_at, received = time.monotonic(), await asked.received()
    await become(lambda: received.done)
    assert received.abandoned_at < answered_at + STOP_SECONDS


async def test_a_status_is_a_failure_whatever_its_body(server: LlmServer, llm: LlmStub) -> None:
    assert await told(server, llm, delta("조각"), LAST, status=503, then="hang") == ("LLM 서버 오류 (HTTP 503)", "")


@pytest.mark.parametrize("pieces", [[], [delta("조각")], [b": still here\n", 0.2] * 20, [b"data: {", 9.0]])
async def test_a_stream_that_takes_too_long_is_timed_out(
    impatient: LlmServer, llm: LlmStub, pieces: list[bytes | float]
) -> None:
    asked = Asked(impatient, llm, Stream(pieces, then="hang"))
    assert await asked.answer() == Answer(TIMED_OUT)
    ended_at, received = time.monotonic(), await asked.received()
    await become(lambda: received.done)
    assert received.abandoned_at < ended_at + STOP_SECONDS


# Limits


def last_of(size: int) -> bytes:
    """A last object of so many bytes."""
    return event({"answer": "x" * (size - len('{"answer": ""}'))})


LONG = "가" * (MAX_BYTES // 30)
TEXT_LEFT = MAX_BYTES % (3 * (MAX_BYTES // 30))


@pytest.mark.parametrize(
    ("pieces", "is_refused"),
    [
        pytest.param([last_of(MAX_BYTES)], False, id="largest answer"),
        pytest.param([last_of(MAX_BYTES + 1)], True, id="larger answer"),
        pytest.param([*[delta(LONG)] * 10, delta("x" * TEXT_LEFT), LAST], False, id="longest text"),
        pytest.param([*[delta(LONG)] * 10, delta("x" * (TEXT_LEFT + 1)), LAST], True, id="longer text"),
        pytest.param([*[delta("\0" * 100)] * 21, LAST], True, id="text of nothing"),
        pytest.param([*[delta(LONG)] * 10, last_of(MAX_BYTES)], False, id="both"),
        pytest.param([*[b": " + b"x" * 198 + b"\n"] * 79, LAST], False, id="many comments"),
        pytest.param([*[b": " + b"x" * 198 + b"\n"] * 80, LAST], True, id="more comments"),
        pytest.param([*[event({"x": "y" * 491})] * 31, LAST], False, id="much else"),
        pytest.param([*[event({"x": "y" * 491})] * 33, LAST], True, id="more else"),
        pytest.param([*[event({"delta": "x", "y": "y" * 480})] * 33, LAST], True, id="more beside the text"),
        pytest.param([b"data: " + b"[" * 500 + b"\n\n"] * 33 + [LAST], True, id="no JSON"),
    ],
)
async def test_what_is_too_large_is_malformed(
    server: LlmServer, llm: LlmStub, pieces: list[bytes], is_refused: bool
) -> None:
    message, _ = await told(server, llm, *pieces)
    assert (message == MALFORMED) == is_refused


@pytest.mark.parametrize("piece", [b"x" * 100, b": x\n" * 100, delta("x" * 100), b"\n" * 100, b"data\n" * 100])
async def test_a_stream_without_an_end_is_malformed_soon(server: LlmServer, llm: LlmStub, piece: bytes) -> None:
    message, text = await told(server, llm, *[piece] * 500, then="hang")
    assert message == MALFORMED
    assert len(text) <= MAX_BYTES


# Stopping


@pytest.mark.parametrize(
    "reply",
    [
        Hang(),
        Held(answer("nie")),
        Drip(0.05),
        Stream([delta("조각")], then="hang"),
        Stream([delta("조각"), 0.01] * 400),
    ],
    ids=["no reply", "held", "JSON", "a stream that waits", "a stream"],
)
@pytest.mark.parametrize("seconds", [0.0, 0.1])
async def test_a_stop_closes_the_connection(server: LlmServer, llm: LlmStub, reply: Reply, seconds: float) -> None:
    asked = Asked(server, llm, reply)
    received = await asked.received()
    await asyncio.sleep(seconds)
    asked.call.stop()
    asked.call.stop()
    stopped_at = time.monotonic()
    assert await asked.is_stopped()
    await become(lambda: received.done, STOP_SECONDS)
    assert received.abandoned
    assert time.monotonic() < stopped_at + STOP_SECONDS
    assert server.failure is None
    assert await told(server, llm, LAST) == ("대답", "")


async def test_a_call_that_was_stopped_before_it_began_is_not_made(server: LlmServer, llm: LlmStub) -> None:
    asked = Asked(server, llm, answer("대답"))
    asked.call.stop()
    assert await asked.is_stopped()
    await asyncio.sleep(0.05)
    assert llm.calls_with(query=asked.query) == []


async def test_a_call_that_waits_for_a_connection_is_stopped(settings: Settings, llm: LlmStub) -> None:
    server = LlmServer(replace(settings, max_upstream_connections=1))
    held = Held(answer("대답"))
    first = Asked(server, llm, held)
    await first.received()
    second, third = Asked(server, llm, answer("둘")), Asked(server, llm, answer("셋"))
    await asyncio.sleep(0.05)
    second.call.stop()
    assert await second.is_stopped()
    held.release()
    assert (await first.answer()).message == "대답"
    assert (await third.answer()).message == "셋"
    assert llm.calls_with(query=second.query) == []
    await server.close()


@pytest.mark.parametrize("seconds", [60.0, 0.0])
async def test_a_connection_is_kept_for_a_while(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr("upstream.server.MAX_AGE_SECONDS", seconds)
    with RawServer(*[ANSWERED] * 4) as raw:
        server = LlmServer(replace(settings, llmserver_url=raw.url, max_upstream_connections=1))
        for _ in range(3):
            assert (await server.dispatch("질문", uuid4(), str(uuid4()), Call(), Seen())).message == "x"
        assert raw.connections == (1 if seconds else 3)
        await server.close()


async def test_a_stop_after_the_end_does_nothing(server: LlmServer, impatient: LlmServer, llm: LlmStub) -> None:
    asked = Asked(server, llm, Stream([LAST]))
    assert (await asked.answer()).message == "대답"
    asked.call.stop()
    late = Asked(impatient, llm, Hang())
    assert (await late.answer()).message == TIMED_OUT
    late.call.stop()
    assert not asked.call.is_stopped
    assert not late.call.is_stopped


@pytest.mark.parametrize("reply", [answer("대답"), Stream([delta("조각"), LAST])], ids=["JSON", "stream"])
async def test_a_stop_at_the_moment_of_the_answer_gives_one_of_both(
    server: LlmServer, llm: LlmStub, reply: Reply
) -> None:
    ways = {True: 0, False: 0}
    for _ in range(150):
        asked = Asked(server, llm, reply)
        await asyncio.sleep(random.uniform(0, 0.006))
        asked.call.stop()
        try:
            assert (await asked.answer()).message == "대답"
            ways[False] += 1
        except Stopped:
            ways[True] += 1
        assert asked.task.cancelling() == 0
    assert server.failure is None
    assert ways[True]


async def test_a_stop_by_who_is_shown_the_text_ends_the_call(server: LlmServer, llm: LlmStub) -> None:
    asked = Asked(server, llm, Stream([delta("조각"), 0.1, LAST], then="hang"))
    asked.seen.delta = lambda text: asked.call.stop()  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        await asked.answer()


@pytest.mark.parametrize("is_first", [True, False])
async def test_the_end_of_the_process_is_no_stop(server: LlmServer, llm: LlmStub, is_first: bool) -> None:
    asked = Asked(server, llm, Stream([delta("조각")], then="hang"))
    received = await asked.received()
    if is_first:
        asked.task.cancel()
    asked.call.stop()
    if not is_first:
        asked.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked.task
    await become(lambda: received.abandoned)


@pytest.mark.parametrize("reply", [Raw(b"", status=500), Json([])])
async def test_a_stop_says_nothing_about_the_llm_server(server: LlmServer, llm: LlmStub, reply: Reply) -> None:
    await Asked(server, llm, reply).answer()
    failure = server.failure
    asked = Asked(server, llm, Hang())
    await asked.received()
    asked.call.stop()
    assert await asked.is_stopped()
    assert server.failure == failure
