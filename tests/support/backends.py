"""Stand-ins for the LLM server and the MCP tool server: small ASGI applications, really served.

What a server does with a call is a `Reply`, set by the test for a message, for a session or for all.
Waiting for calls and releasing held ones works by events, from any thread.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

import httpx
import uvicorn

from tests.support.background import background
from tests.support.network import NO_TLS, reset_on_close
from tests.support.processes import free_port
from tests.support.waiting import PATIENCE_SECONDS, become, eventually

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

DISPATCH_PATH = "/llm/mcp-router/dispatch"
RECOMMEND_PATH = "/tools/consumption_recommend"


@dataclass
class Call:
    """One request that a stub server received."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    done: bool = False  # the reply was sent, or the caller went away
    abandoned: bool = False  # the caller went away before the reply, or in the middle of it
    abandoned_at: float = 0.0  # by time.monotonic(), where a `Stream` was abandoned

    @property
    def json(self) -> dict[str, Any]:
        """The body, which must be a JSON object."""
        value = json.loads(self.body)
        assert isinstance(value, dict), value
        return value

    def field(self, name: str) -> Any:
        """A field of the body, or None if there is none or the body is no JSON object."""
        try:
            return self.json.get(name)
        except (ValueError, AssertionError):
            return None


class Reply(Protocol):
    """What a stub server does with a call."""

    async def serve(self, call: Call, receive: Receive, send: Send) -> None:
        """Answer the call, or fail in the way that is wanted."""
        ...


async def _respond(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


@dataclass
class Json:
    """Reply with a JSON value."""

    value: Any
    status: int = 200

    async def serve(self, call: Call, receive: Receive, send: Send) -> None:
        """Send it."""
        await Raw(json.dumps(self.value).encode(), self.status).serve(call, receive, send)


@dataclass
class Raw:
    """Reply with these bytes."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)

    async def serve(self, call: Call, receive: Receive, send: Send) -> None:
        """Send them."""
        headers = {"content-type": self.content_type, "content-length": str(len(self.body))} | self.headers
        await _respond(send, self.status, self.body, headers)


async def _caller_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@dataclass
class Hang:
    """Never reply; ends when the caller has gone."""

    async def serve(self, call: Call, receive: Receive, send: Send) -> None:
        """Wait for the caller to go."""
        await _caller_gone(receive)
        call.abandoned = True


@dataclass
class Held:
    """Reply with `then`, after `release` was called."""

    then: Reply
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, call: Call, receive: Receive, send: Send) -> None:
        """Wait for the release, then serve; give up when the caller has gone."""
        released = asyncio.create_task(self._released.wait())
        gone = asyncio.create_task(_caller_gone(receive))
        await asyncio.wait([released, gone], return_when=asyncio.FIRST_COMPLETED)
        call.abandoned = gone.done()
        for task in (released, gone):
            task.cancel()
        if not call.abandoned:
            await self.then.serve(call, receive, send)

    def release(self) -> None:
        """Let all held calls, and those to come, have their reply; may be called from any thread."""
        background.call(self._released.set)


@dataclass
class Drip:
    """Reply with headers at once and then with one byte every `seconds`, for ever."""

    seconds: float = 0.1

    async def serve(self, call: Call, receive: Receive, send: Send) -> None:
        """Drip until the caller goes."""
        gone = asyncio.create_task(_caller_gone(receive))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not gone.done():
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            await asyncio.wait([gone], timeout=self.seconds)
        call.abandoned = True


@dataclass
class Drop:
    """Reset the connection: before a reply, or after `body` of a longer one."""

    body: bytes | None = None

    async def serve(self, call: Call, receive: Receive, send: Send) -> None:
        """Send what there is to send, then reset."""
        if self.body is not None:
            headers = [(b"content-length", str(len(self.body) + 1000).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": self.body, "more_body": True})
        transport = send.__self__.transport  # type: ignore[attr-defined]  # of uvicorn's request cycle
        if self.body is None:
            reset_on_close(transport)
            transport.abort()
        else:
            transport.close()


@dataclass
class Stream:
    """Reply with a body in pieces: bytes are sent by themselves, a number is a pause in seconds.

    `then` is what comes after the last piece: the `end` of the body, the connection is closed without one (`break`) or
    reset, or nothing more until the caller has gone (`hang`).
    """

    pieces: Sequence[bytes | float]
    then: Literal["end", "break", "reset", "hang"] = "end"
    content_type: str = "text/event-stream"
    status: int = 200

    async def serve(self, call: Call, receive: Receive, send: Send) -> None:
        """Send the pieces until the caller goes."""
        gone = asyncio.create_task(_caller_gone(receive))
        gone.add_done_callback(lambda _: setattr(call, "abandoned_at", time.monotonic()))
        headers = [(b"content-type", self.content_type.encode())]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        for piece in self.pieces:
            if isinstance(piece, bytes):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.wait([gone], timeout=0 if isinstance(piece, bytes) else piece)
            if gone.done():
                break
        if self.then == "hang":
            await gone
        call.abandoned = gone.done()
        await self._end(send)

    async def _end(self, send: Send) -> None:
        if self.then == "end":
            await send({"type": "http.response.body", "body": b""})
            return
        transport = send.__self__.transport  # type: ignore[attr-defined]  # of uvicorn's request cycle
        if self.then == "reset":
            reset_on_close(transport)
            transport.abort()
        else:
            transport.close()


def event(value: Any) -> bytes:
    """A JSON value as a server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


@dataclass
class CallBack:
    """Ask a gateway for the session's persona first, keep its answer, then reply with `then`.

    `base_url` is the gateway's; `answers` are the responses, as (status, JSON).
    """

    base_url: str
    then: Reply
    answers: list[tuple[int, Any]] = field(default_factory=list)

    async def serve(self, call: Call, receive: Receive, send: Send) -> None:
        """Call back, then serve."""
        async with httpx.AsyncClient(
            base_url=self.base_url, timeout=PATIENCE_SECONDS, trust_env=False, verify=NO_TLS
        ) as client:
            body = {"session_id": call.field("session_id")}
            response = await client.post("/api/login/persona_id", json=body)
        self.answers.append((response.status_code, response.json()))
        await self.then.serve(call, receive, send)


class StubServer:
    """A stub backend on a port of 127.0.0.1; started by the constructor, ended by `stop`.

    `calls` holds every request, in the order of arrival. `start` after `stop` serves on the same port.
    """

    key_fields: tuple[str, ...] = ()

    def __init__(self, default: Reply | Callable[[Call], Reply]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.default = default
        self.calls: list[Call] = []
        self._replies: dict[tuple[str, Any], list[Reply]] = {}
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None
        self.start()

    def start(self) -> None:
        """Serve, and wait until the port is open."""
        background.run(self._start())

    async def _start(self) -> None:
        config = uvicorn.Config(
            self._application,
            host="127.0.0.1",
            port=self.port,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=75,
        )
        self._server = uvicorn.Server(config)
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:
            assert not self._task.done(), f"port {self.port} cannot be served"
            await asyncio.sleep(0.005)

    def stop(self) -> None:
        """Stop serving; calls that are still held are cut off."""
        background.run(self._stop())

    async def _stop(self) -> None:
        if self._server is None or self._task is None:
            return
        for connection in list(self._server.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
        self._server.should_exit = self._server.force_exit = True
        await self._task
        self._server = self._task = None

    async def _application(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        call = Call(scope["method"], scope["path"], headers, body)
        self.calls.append(call)
        try:
            await self._reply_to(call).serve(call, receive, send)
        finally:
            call.done = True

    def _reply_to(self, call: Call) -> Reply:
        for name in self.key_fields:
            replies = self._replies.get((name, str(call.field(name))))
            if replies:
                return replies.pop(0) if len(replies) > 1 else replies[0]
        return self.default(call) if callable(self.default) else self.default

    def _set(self, name: str, value: str, replies: tuple[Reply, ...]) -> None:
        self._replies[name, value] = list(replies)

    def calls_with(self, **fields: Any) -> list[Call]:
        """The calls so far whose JSON body has these values."""
        return [call for call in list(self.calls) if all(call.field(name) == value for name, value in fields.items())]

    async def called(self, *, times: int = 1, seconds: float = PATIENCE_SECONDS, **fields: Any) -> list[Call]:
        """Wait for this many calls whose JSON body has these values, and return them."""
        await become(lambda: len(self.calls_with(**fields)) >= times, seconds, f"{times} calls with {fields}")
        return self.calls_with(**fields)

    def wait_called(self, *, times: int = 1, seconds: float = PATIENCE_SECONDS, **fields: Any) -> list[Call]:
        """Like `called`, for tests that are no coroutines."""
        eventually(lambda: len(self.calls_with(**fields)) >= times, seconds, f"{times} calls with {fields}")
        return self.calls_with(**fields)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def answer(text: str) -> Json:
    """An LLM server's plain reply."""
    return Json({"answer": text, "tool_response": None})


def tool_answer(content: Any, tool: str = "get_card_recommendation", outer: str = "") -> Json:
    """An LLM server's reply after a tool call, with this `tool_response_content`."""
    return Json(
        {
            "answer": outer,
            "tool_response": {
                "tool_name": tool,
                "tool_args": {"query": "카드"},
                "tool_call_id": "call_1",
                "tool_response_content": content,
            },
        }
    )


def login_required_answer(text: str = "로그인이 필요합니다.") -> Json:
    """The LLM server's reply that makes the front end offer the personas."""
    content = {"answer": text, "card_list": [], "relatedQuestions": [], "login_required": True}
    return tool_answer(content, tool="consumption_recommend")


def recommendation(text: str, cards: list[str] | None = None) -> Json:
    """An MCP server's reply."""
    return Json({"answer": text, "login_required": False, "card_list": cards or []})


class LlmStub(StubServer):
    """The LLM server: by default it answers `re: <query>`; `on` and `on_session` set something else."""

    key_fields = ("query", "session_id")

    def __init__(self) -> None:
        super().__init__(lambda call: answer(f"re: {call.field('query')}"))

    def on(self, query: str, *replies: Reply) -> None:
        """What to do with a message: the replies one after the other, the last one from then on."""
        self._set("query", query, replies)

    def on_session(self, session_id: str, *replies: Reply) -> None:
        """What to do with all messages of a session for which `on` says nothing."""
        self._set("session_id", session_id, replies)


class McpStub(StubServer):
    """The MCP server: by default it recommends one card; `on_session` sets something else."""

    key_fields = ("session_id",)

    def __init__(self) -> None:
        super().__init__(recommendation("추천 카드입니다.", ["카드의정석2"]))

    def on_session(self, session_id: str, *replies: Reply) -> None:
        """What to do with the logins of a session: one after the other, the last one from then on."""
        self._set("session_id", session_id, replies)
