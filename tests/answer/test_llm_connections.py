"""Connections to the LLM server, kept and lost, and what a call says: the class that asks it, against real servers."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest
import uvicorn

from settings import Settings
from tests.support.backends import Call as Received
from tests.support.backends import Held, Json, LlmStub, Stream, answer, event
from tests.support.gateway import ALLOWED_ORIGIN
from tests.support.raw_server import ANSWERED, OK_HEAD, RawServer
from tests.support.waiting import PATIENCE_SECONDS
from tests.support.world import unique
from upstream.call import Call
from upstream.llm import LlmFailed, LlmServer
from upstream.server import IDLE_SECONDS, MAX_AGE_SECONDS

pytestmark = pytest.mark.anyio

UNREACHABLE = "LLM 서버 통신 오류: 서버에 연결할 수 없습니다."
MALFORMED = "LLM 서버 통신 오류: 응답 형식이 올바르지 않습니다."
TIMED_OUT = "LLM 서버 통신 오류: 응답 시간이 초과되었습니다."


class Asker:
    """The LLM server at an address, as an instance asks it."""

    def __init__(self, url: str, **more: Any) -> None:
        unused = "postgresql://127.0.0.1/unused"
        self.server = LlmServer(
            Settings(
                frontend_host=frozenset({ALLOWED_ORIGIN}),
                llmserver_url=url,
                mcp_server_url=url,
                database_url=unused,
                faq_database_url=unused,
                **more,
            )
        )
        self.shown: list[str] = []

    async def ask(self, text: str = "", request_id: str = "id") -> str:
        """What the visitor is told."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                answer = await self.server.dispatch(text or unique("질문"), uuid4(), request_id, Call(), self)
        except LlmFailed as failed:
            return str(failed)
        return answer.message

    def delta(self, text: str) -> None:
        self.shown.append(text)

    def tool(self, name: str) -> None:
        self.shown.append(name)


NewAsker = Callable[..., Asker]


@pytest.fixture
async def new_asker() -> AsyncIterator[NewAsker]:
    made: list[Asker] = []

    def make(url: str, **more: Any) -> Asker:
        made.append(Asker(url, **more))
        return made[-1]

    yield make
    for asker in made:
        await asker.server.close()


@pytest.mark.parametrize(
    "reply",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00\x01\x02" * 50, OK_HEAD + b"x" * 100_000, OK_HEAD + b"no header\r\n\r\n{}"],
    ids=["another protocol", "binary", "endless header", "no header"],
)
async def test_what_is_no_http_is_malformed(new_asker: NewAsker, reply: bytes) -> None:
    with RawServer(reply) as server:
        assert await new_asker(server.url).ask() == MALFORMED


async def test_a_kept_connection_that_is_closed_when_it_is_used_again_costs_no_answer(new_asker: NewAsker) -> None:
    with RawServer(ANSWERED, b"") as server:
        asker = new_asker(server.url)
        for count in (1, 2, 3):
            assert await asker.ask() == "x"
            assert server.connections == count


async def test_what_a_kept_connection_failed_at_is_sent_over_a_new_one_and_not_another_kept_one(
    new_asker: NewAsker,
) -> None:
    """All of them may be closed by now."""
    with RawServer(ANSWERED, b"") as server:
        asker = new_asker(server.url)
        assert await asyncio.gather(*(asker.ask() for _ in range(4))) == ["x"] * 4
        kept = server.connections
        assert kept > 1
        assert await asker.ask() == "x"
        assert server.connections == kept + 1


async def test_a_new_connection_that_is_closed_is_not_tried_again(new_asker: NewAsker) -> None:
    with RawServer(b"") as server:
        assert await new_asker(server.url).ask() == UNREACHABLE
        assert server.connections == 1


async def test_a_reply_that_breaks_off_on_a_kept_connection_is_not_asked_for_again(new_asker: NewAsker) -> None:
    with RawServer(ANSWERED, OK_HEAD + b"content-length: 15\r\n\r\n{") as server:
        asker = new_asker(server.url)
        assert [await asker.ask() for _ in range(2)] == ["x", UNREACHABLE]
        assert server.connections == 1


async def test_a_connection_is_used_again_until_it_is_old(new_asker: NewAsker) -> None:
    """A minute, since the name of a server may have come to stand for another by then."""
    with RawServer(*[ANSWERED] * 9) as server:
        asker = new_asker(server.url)
        for _ in range(3):
            await asker.ask()
        assert server.connections == 1
        connector: Any = asker.server._session.connector
        for protocol in list(connector._made_at):
            connector._made_at[protocol] -= MAX_AGE_SECONDS
        assert await asker.ask() == "x"
        assert server.connections == 2
        assert MAX_AGE_SECONDS <= 60


async def test_a_connection_is_not_kept_for_longer_than_the_server_keeps_it(new_asker: NewAsker) -> None:
    """So that no call is sent into a connection that is being closed: uvicorn does that after five seconds."""
    connector: Any = new_asker("http://127.0.0.1:9").server._session.connector
    assert connector._keepalive_timeout == IDLE_SECONDS < uvicorn.Config("x").timeout_keep_alive


async def test_any_number_of_calls_is_made_at_once(new_asker: NewAsker, llm: LlmStub) -> None:
    """More than the hundred that are usual in libraries: a slow server takes no visitor's turn from another."""
    asker, holding, text = new_asker(llm.url), Held(answer("답")), unique("질문")
    llm.on(text, holding)
    asking = asyncio.gather(*(asker.ask(text) for _ in range(120)))
    await llm.called(query=text, times=120)
    holding.release()
    assert await asking == ["답"] * 120


async def test_a_call_has_a_json_body_and_says_what_it_takes_and_whose_it_is(new_asker: NewAsker, llm: LlmStub) -> None:
    text = unique("질문")
    await new_asker(llm.url).ask(text, "a-request")
    call: Received = llm.calls_with(query=text)[0]
    expected = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",
        "x-request-id": "a-request",
    }
    assert expected.items() <= call.headers.items()
    assert call.method == "POST"


@pytest.mark.parametrize(("status", "message"), [(200, "답"), (201, "답"), (299, "답"), (300, None), (404, None)])
async def test_a_reply_counts_with_any_status_of_success(
    new_asker: NewAsker, llm: LlmStub, status: int, message: str | None
) -> None:
    text = unique("질문")
    llm.on(text, Json({"answer": "답"}, status=status))
    assert await new_asker(llm.url).ask(text) == (message or f"LLM 서버 오류 (HTTP {status})")


@pytest.mark.parametrize("media_type", ["text/event-stream", "Text/Event-Stream;charset=utf-8", "text/event-stream ;x"])
async def test_a_stream_is_known_by_its_media_type_however_it_is_written(
    new_asker: NewAsker, llm: LlmStub, media_type: str
) -> None:
    asker, text = new_asker(llm.url), unique("질문")
    pieces = [event({"delta": "조각", "tool_name": "도구"}), event({"answer": "답"})]
    llm.on(text, Stream(pieces, content_type=media_type))
    assert await asker.ask(text) == "답"
    assert asker.shown == ["도구", "조각"]


@pytest.mark.parametrize(("size", "is_taken"), [(2000, True), (2001, False)])
async def test_a_reply_is_taken_up_to_its_largest_size(
    new_asker: NewAsker, llm: LlmStub, size: int, is_taken: bool
) -> None:
    text = unique("질문")
    empty = len(b'{"answer": ""}')
    llm.on(text, Json({"answer": "x" * (size - empty)}))
    message = await new_asker(llm.url, max_reply_bytes=2000).ask(text)
    assert message == ("x" * (size - empty) if is_taken else MALFORMED)


async def test_a_server_that_cannot_be_connected_to_costs_only_the_time_to_connect(new_asker: NewAsker) -> None:
    """One whose connections are not even refused, as behind a firewall."""
    with closing(socket.socket()) as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        address = deaf.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        asker = new_asker(f"http://127.0.0.1:{address[1]}", connect_timeout=0.3, httpx_timeout=600.0)
        assert await asker.ask() == TIMED_OUT
        for one in waiting:
            one.close()


async def test_an_unknown_host_is_unreachable(new_asker: NewAsker) -> None:
    assert await new_asker("http://no-such-host.invalid").ask() == UNREACHABLE


async def test_an_llm_server_that_went_and_came_back_is_asked_again(new_asker: NewAsker) -> None:
    with LlmStub() as own_llm:
        asker = new_asker(own_llm.url)
        assert await asker.ask("처음") == "re: 처음"
        assert asker.server.failure is None
        await asyncio.to_thread(own_llm.stop)
        assert await asker.ask("없는 동안") == UNREACHABLE
        assert asker.server.failure is not None
        await asyncio.to_thread(own_llm.start)
        assert await asker.ask("다시") == "re: 다시"
        assert asker.server.failure is None


async def test_a_base_url_with_a_path_is_kept(new_asker: NewAsker, llm: LlmStub) -> None:
    text = unique("질문")
    await new_asker(llm.url + "/v2").ask(text)
    assert llm.calls_with(query=text)[0].path == "/v2/llm/mcp-router/dispatch"
