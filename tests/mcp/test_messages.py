"""What goes over the wire, message by message, with a server that does what no good server does."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import orjson
import pytest

from common.errors import RecommendationFailed
from tests.mcp.conftest import NewClient, settings_for
from tests.support.backends import Call, Drop, Hang, Held, Json, Raw, Reply, Stream, StubServer, event
from tests.support.waiting import become
from upstream.call import Call as Asking
from upstream.mcp import McpServer
from upstream.mcp_native import NativeMcpServer

pytestmark = pytest.mark.anyio

SAID = {"answer": "추천합니다", "login_required": False, "card_list": ["카드의정석2"]}
NEWEST = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "card-chat-gateway", "version": "1.0.0"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
OLDER_CALLS = ["initialize", "notifications/initialized", "tools/call", "DELETE"]


class Stub(StubServer):
    """Answers each method with the reply that is set for it; what is called in the newest revision is `newest`."""

    def __init__(self) -> None:
        super().__init__(self._choose)
        self.begin()

    def begin(self) -> None:
        """As a server of the older way, which has not been called yet."""
        self.calls.clear()
        self.replies: dict[str, Reply | Callable[[Call], Reply]] = {
            "initialize": opened(),
            "tools/call": result({"structuredContent": SAID}),
            "newest": error(-32600, status=400),
        }

    def _choose(self, call: Call) -> Reply:
        reply = self.replies.get(method_of(call), Raw(b"", 202))
        return reply(call) if callable(reply) else reply

    @property
    def methods(self) -> list[str]:
        return [method_of(call) for call in self.calls]

    async def has(self, *methods: str) -> None:
        await become(lambda: len(self.methods) >= len(methods), what=f"{methods}, not {self.methods}")
        assert self.methods == list(methods)


def method_of(call: Call) -> str:
    if call.method != "POST":
        return call.method
    if call.headers.get("mcp-protocol-version") == "2026-07-28":
        return "newest"
    return str(call.field("method") or "answer")


def opened(revision: str = "2025-11-25") -> Raw:
    return Raw(
        json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": revision, "capabilities": {}}}).encode(),
        headers={"mcp-session-id": "s-1"},
    )


def result(value: Any) -> Json:
    return Json({"jsonrpc": "2.0", "id": 2, "result": value})


def error(code: Any, status: int = 200, **more: Any) -> Json:
    return Json({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": "비밀", **more}}, status)


@pytest.fixture(scope="module")
def stub_server() -> Iterator[Stub]:
    with Stub() as stub:
        yield stub


@pytest.fixture
def stub(stub_server: Stub) -> Stub:
    stub_server.begin()
    return stub_server


@pytest.fixture
async def client(stub: Stub, new_client: NewClient) -> NativeMcpServer:
    return new_client(stub.url + "/mcp", max_reply_bytes=2000)


async def ask(client: NativeMcpServer) -> str:
    return (await client.recommend(uuid4(), 7, "request-1")).message


async def fails(client: NativeMcpServer) -> str:
    """Why; AssertionError if anything of what the server says is in it."""
    with pytest.raises(RecommendationFailed) as failure:
        await ask(client)
    assert "비밀" not in repr(failure.value.__cause__)
    return str(failure.value.__cause__)


async def test_in_the_newest_revision_it_is_a_single_post(stub: Stub, client: NativeMcpServer) -> None:
    stub.replies["newest"] = result({"resultType": "complete", "structuredContent": SAID})
    session_id = uuid4()
    answer = await client.recommend(session_id, 7, "request-1")
    assert (answer.message, answer.tool_name) == ("추천합니다", "consumption_recommend")
    assert answer.payload == {"login_required": False, "card_list": ["카드의정석2"]}
    (call,) = stub.calls
    assert call.path == "/mcp"
    assert {
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": "consumption_recommend",
        "x-request-id": "request-1",
    }.items() <= call.headers.items()
    arguments = {"session_id": str(session_id), "persona_id": 7}
    params = {"name": "consumption_recommend", "arguments": arguments, "_meta": NEWEST}
    assert call.json == {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}


REFUSALS = {
    "400 with an error of another kind": error(-32000, 400),
    "400 without a body": Raw(b"", 400),
    "400 with a page": Raw(b"<html>Bad Request</html>", 400, "text/html"),
    "-32600": error(-32600),
    "-32600 in events": Stream([event({"jsonrpc": "2.0", "id": 2, "error": {"code": -32600}})]),
    "404": Raw(b"Not Found", 404, "text/plain"),
    "405": error(-32601, 405),
    "422": Raw(b"Unexpected message", 422, "text/plain"),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_who_refuses_the_newest_is_from_then_on_spoken_to_in_the_older_way(
    stub: Stub, client: NativeMcpServer, refusal: Reply
) -> None:
    """In a session for each call, which is ended."""
    stub.replies["newest"] = refusal
    assert await ask(client) == "추천합니다"
    await stub.has("newest", *OLDER_CALLS)
    initialize, initialized, call, end = stub.calls[1:]
    assert initialize.json["params"]["protocolVersion"] == "2025-11-25"
    assert "_meta" not in call.json["params"]
    assert "mcp-method" not in call.headers
    for each in (initialized, call, end):
        assert (each.headers["mcp-session-id"], each.headers["mcp-protocol-version"]) == ("s-1", "2025-11-25")
    assert await ask(client) == "추천합니다"
    await stub.has("newest", *OLDER_CALLS, *OLDER_CALLS)


@pytest.mark.parametrize("revision", ["2025-06-18", "2025-03-26"])
async def test_the_revision_is_one_that_the_server_names(stub: Stub, client: NativeMcpServer, revision: str) -> None:
    data = {"supported": ["2024-11-05", revision], "requested": "2026-07-28"}
    stub.replies |= {"newest": error(-32022, 400, data=data), "initialize": opened(revision)}
    assert await ask(client) == "추천합니다"
    assert (stub.calls[1].json["params"]["protocolVersion"], client.revision) == (revision, revision)
    assert stub.calls[3].headers["mcp-protocol-version"] == revision


async def test_the_server_may_prefer_an_older_revision_than_it_is_asked_for(
    stub: Stub, client: NativeMcpServer
) -> None:
    stub.replies["initialize"] = opened("2025-03-26")
    for times in (1, 2):
        assert await ask(client) == "추천합니다"
        await stub.has("newest", *OLDER_CALLS * times)
    assert stub.calls[-1].headers["mcp-protocol-version"] == "2025-03-26"


async def test_with_a_server_that_speaks_nothing_known_the_session_is_ended_at_once(
    stub: Stub, client: NativeMcpServer
) -> None:
    stub.replies["initialize"] = opened("2024-11-05")
    assert "no revision" in await fails(client)
    await stub.has("newest", "initialize", "DELETE")
    assert client.revision is None


@pytest.mark.parametrize("code", [-32020, -32021])
async def test_errors_of_the_newest_revision_are_no_reason_to_speak_an_older_one(
    stub: Stub, client: NativeMcpServer, code: int
) -> None:
    stub.replies["newest"] = error(code, 400)
    assert await fails(client) == f"HTTP 400, JSON-RPC error {code}"
    assert stub.methods == ["newest"]


LONG = {"structuredContent": SAID | {"answer": "비밀" * 1000}}
FAILURES: dict[str, tuple[Reply, str]] = {
    "isError": (result({"isError": True, "structuredContent": SAID}), "the tool says that it failed"),
    "error": (error(-32603), "HTTP 200, JSON-RPC error -32603"),
    "error with a strange code": (error("비밀"), "HTTP 200 without a result"),
    "503": (Raw("비밀".encode(), 503), "HTTP 503 without a result"),
    "307": (Raw(b"", 307, headers={"location": "/mcp/"}), "HTTP 307 without a result"),
    "no JSON": (Raw("비밀".encode()), "HTTP 200 without a result"),
    "no object": (Json(["비밀"]), "HTTP 200 without a result"),
    "another id": (Json({"jsonrpc": "2.0", "id": 3, "result": {"structuredContent": SAID}}), "without a result"),
    "a result that is none": (result("비밀"), "without a result"),
    "no content": (result({}), "neither structuredContent nor text"),
    "content that is none": (result({"content": 3}), "neither structuredContent nor text"),
    "text that is no JSON": (result({"content": [{"type": "text", "text": "비밀"}]}), "no JSON"),
    "no card_list": (result({"structuredContent": {"answer": "비밀"}}), "card_list is no list"),
    "no answer": (result({"structuredContent": {"card_list": []}}), "no usable message"),
    "asking for input": (result({"resultType": "input_required", "inputRequests": {}}), "neither"),
    "too large": (result(LONG), "too large"),
    "too large an event": (Stream([event({"jsonrpc": "2.0", "id": 2, "result": LONG})]), "too l"),
    "too much beside it": (Stream([event({"method": "n", "params": "x" * 900})] * 30), "too much"),
    "events without a response": (Stream([event({"method": "notifications/message"})]), "without a result"),
    "events that break off": (Stream([b"data: {"], "break"), ""),
    "a reply that breaks off": (Drop(b'{"jsonrpc"'), ""),
}


@pytest.mark.parametrize("kind", FAILURES)
async def test_what_is_no_result_is_a_failure_that_names_its_kind(
    stub: Stub, client: NativeMcpServer, kind: str
) -> None:
    """In either way of speaking; and the session is ended."""
    reply, why = FAILURES[kind]
    stub.replies["newest"] = reply
    assert why in await fails(client)
    assert stub.methods == ["newest"]
    stub.replies |= {"newest": Raw(b"", 404), "tools/call": reply}
    assert why in await fails(client)
    await stub.has("newest", "newest", *OLDER_CALLS)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
async def test_events_may_be_split_anywhere_and_have_others_between_them(
    stub: Stub, client: NativeMcpServer, end: str
) -> None:
    lines = [
        ": ping",
        "id: 1",
        "retry: 5",
        "data:",
        "",
        'data: {"jsonrpc": "2.0", "method": "notifications/message"}',
        "",
    ]
    lines += ['data: {"jsonrpc": "2.0", "id": 9, "result": {}}', "", "data: no JSON", "", "event: message"]
    body = json.dumps({"jsonrpc": "2.0", "id": 2, "result": {"structuredContent": SAID}}, ensure_ascii=False, indent=0)
    lines += [f"data: {line}" for line in body.splitlines()] + ["", ""]
    text = end.join(lines).encode()
    stub.replies["newest"] = Stream([text[n : n + 1] for n in range(len(text))], content_type="Text/Event-Stream; a=b")
    assert await ask(client) == "추천합니다"


async def test_a_long_integer_stays_as_it_is(stub: Stub, client: NativeMcpServer) -> None:
    said = b'{"answer": "a", "card_list": [{"id": 123456789012345678901234567890}]}'
    stub.replies["newest"] = Raw(b'{"jsonrpc": "2.0", "id": 2, "result": {"structuredContent": %b}}' % said)
    answer = await client.recommend(uuid4(), 7, "request-1")
    assert b"123456789012345678901234567890" in orjson.dumps(answer.payload)


async def test_what_the_server_asks_in_the_middle_is_answered(stub: Stub, client: NativeMcpServer) -> None:
    """A ping with nothing, the rest with an error; in the newest revision it may not ask."""
    asked = [{"jsonrpc": "2.0", "id": "p", "method": "ping"}, {"jsonrpc": "2.0", "id": 5, "method": "roots/list"}]
    last = event({"jsonrpc": "2.0", "id": 2, "result": {"structuredContent": SAID}})
    reply = Stream([*map(event, asked), last])
    stub.replies["newest"] = reply
    assert await ask(client) == "추천합니다"
    assert stub.methods == ["newest"]
    stub.replies |= {"newest": Raw(b"", 404), "tools/call": reply}
    assert await ask(client) == "추천합니다"
    await stub.has("newest", "newest", *OLDER_CALLS[:3], "answer", "answer", "DELETE")
    assert stub.calls[5].json == {"jsonrpc": "2.0", "id": "p", "result": {}}
    assert stub.calls[6].json["error"]["code"] == -32601


async def test_a_session_that_is_gone_is_opened_anew_within_the_same_call(stub: Stub, client: NativeMcpServer) -> None:
    answers: Iterator[Reply] = iter([error(-32600, 404), result({"structuredContent": SAID})])
    stub.replies["tools/call"] = lambda _: next(answers)
    assert await ask(client) == "추천합니다"
    assert stub.methods.count("initialize") == 2


async def test_a_server_that_refuses_everything_is_not_asked_again_and_again(
    stub: Stub, client: NativeMcpServer
) -> None:
    stub.replies |= {"newest": Raw(b"", 404), "initialize": Raw(b"", 404)}
    assert await fails(client) == "HTTP 404 without a result"
    assert stub.methods == ["newest", "initialize"] * 2


async def test_a_server_that_is_replaced_is_found_out_within_the_same_call(stub: Stub, client: NativeMcpServer) -> None:
    assert await ask(client) == "추천합니다"
    await stub.has("newest", *OLDER_CALLS)
    stub.calls.clear()
    only_newest = error(-32022, 400, data={"supported": ["2026-07-28"]})
    stub.replies |= {"newest": result({"structuredContent": SAID}), "initialize": only_newest}
    assert await ask(client) == "추천합니다"
    assert (stub.methods, client.revision) == (["initialize", "newest"], "2026-07-28")
    stub.replies |= {"newest": error(-32000, 400), "initialize": opened()}
    assert await ask(client) == "추천합니다"
    await stub.has("initialize", "newest", "newest", *OLDER_CALLS)


async def test_many_at_once_find_out_the_revision_once(stub: Stub, client: NativeMcpServer) -> None:
    assert await asyncio.gather(*(ask(client) for _ in range(20))) == ["추천합니다"] * 20
    assert stub.methods.count("newest") == 1


async def test_if_the_one_that_finds_out_is_cancelled_another_one_does(stub: Stub, client: NativeMcpServer) -> None:
    replies: Iterator[Reply] = iter([Hang(), error(-32000, 400)])
    stub.replies["newest"] = lambda _: next(replies)
    first = asyncio.create_task(ask(client))
    await become(lambda: stub.methods == ["newest"])
    others = [asyncio.create_task(ask(client)) for _ in range(5)]
    await asyncio.sleep(0)  # they are in line
    first.cancel()
    assert await asyncio.gather(*others) == ["추천합니다"] * 5
    assert stub.methods.count("newest") == 2


async def test_a_slow_tool_keeps_no_other_login_from_its_answer(stub: Stub, client: NativeMcpServer) -> None:
    """Not even the first one, by which the revision is found out."""
    held = Held(result({"structuredContent": SAID}))
    replies: Iterator[Reply] = iter([held, result({"structuredContent": SAID | {"answer": "둘째"}})])
    stub.replies["newest"] = lambda _: next(replies)
    first = asyncio.create_task(ask(client))
    await become(lambda: stub.methods == ["newest"])
    assert await ask(client) == "둘째"
    assert not first.done()
    held.release()
    assert await first == "추천합니다"


async def test_time_is_up_for_all_of_a_call_together_and_the_server_hears_of_it(
    stub: Stub, new_client: NewClient
) -> None:
    client = new_client(stub.url, httpx_timeout=0.4)
    stub.replies["tools/call"] = Hang()
    with pytest.raises(RecommendationFailed) as failure:
        await ask(client)
    assert isinstance(failure.value.__cause__, TimeoutError)
    await stub.has("newest", *OLDER_CALLS[:3], "notifications/cancelled", "DELETE")
    assert stub.calls[4].json["params"]["requestId"] == stub.calls[3].json["id"]
    assert stub.calls[4].headers["mcp-session-id"] == "s-1"
    stub.calls.clear()
    stub.replies |= {"newest": Hang(), "initialize": Raw(b"", 404)}
    with pytest.raises(RecommendationFailed):
        await ask(client)
    await become(lambda: stub.calls[-1].abandoned, what="the connection is closed")
    assert stub.methods == ["initialize", "newest"]


async def test_who_closes_while_a_session_is_being_ended_waits_for_that(stub: Stub) -> None:
    client = NativeMcpServer(settings_for(stub.url))
    held = Held(Raw(b"", 200))
    stub.replies["DELETE"] = held
    assert await ask(client) == "추천합니다"
    closing = asyncio.create_task(client.close())
    await become(lambda: "DELETE" in stub.methods)
    assert not closing.done()
    held.release()
    await closing


async def test_with_rest_nothing_is_different_not_a_byte() -> None:
    received = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not received.endswith(b"}"):
            received.extend(await reader.read(1000))
        body = json.dumps(SAID).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    client = McpServer(settings_for(f"http://127.0.0.1:{port}/", mcp_protocol="rest"))
    session_id = uuid4()
    assert (await client.recommend(session_id, 7, "request-1")).message == "추천합니다"
    await client.close()
    server.close()
    head, _, body = received.partition(b"\r\n\r\n")
    assert body.decode() == f'{{"session_id":"{session_id}","persona_id":7}}'
    first, *lines = head.decode().split("\r\n")
    assert first == "POST /tools/consumption_recommend HTTP/1.1"
    names = [line.partition(": ")[0].lower() for line in lines]
    assert sorted(names) == sorted(
        ["host", "content-type", "accept-encoding", "accept", "x-request-id", "content-length", "user-agent"]
    )
    assert "accept: application/json" in map(str.lower, lines)


async def test_the_calls_of_a_client_go_on_after_one_has_been_stopped(stub: Stub, client: NativeMcpServer) -> None:
    call = Asking()
    stub.replies["newest"] = Hang()
    asking = asyncio.create_task(client.ask({}, "request-1", call))
    await become(lambda: stub.methods == ["newest"])
    call.stop()
    await asyncio.wait([asking])
    stub.replies["newest"] = result({"structuredContent": SAID})
    assert await ask(client) == "추천합니다"
