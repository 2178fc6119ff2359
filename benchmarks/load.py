"""The load: visitors with WebSockets and clients of the REST interface, in a process of its own.

`python -m benchmarks.load` reads commands, a JSON object in a line of standard input, and writes what it measured, an
object in a line of standard output. Times are in seconds. A visitor sends the next prompt when the answer to the last
one is there.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, cast

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

Figures = dict[str, float]

NUMBER = re.compile(rb"\[(\d+)\]")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CONNECT_SECONDS = 60.0
ANSWER_SECONDS = 60.0
OPENING_AT_ONCE = 50
PUSH_SECONDS = 0.1
# Outgoing connections are spread over several addresses of this machine: each has some 28,000 ports.
ADDRESSES = 8

_connections = itertools.count()
visitors: list[Visitor] = []


def next_address() -> tuple[str, int]:
    return f"127.0.0.{1 + next(_connections) % ADDRESSES}", 0


class Visitor(WSListener):
    """A session; `on_frame` is called with what comes after its first frame."""

    def __init__(self) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.session_id = ""
        self.message_id = b""
        self.asked_at = 0.0
        self.on_frame: Callable[[Visitor, bytes], None] = ignore
        self.transport: WSTransport

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.TEXT:
            return
        payload = frame.get_payload_as_bytes()
        if self.opened.done():
            self.on_frame(self, payload)
        else:
            self.session_id = json.loads(payload)["session_id"]
            self.opened.set_result(None)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("closed before the first frame"))

    def ask(self, prompt: bytes) -> None:
        self.message_id = str(uuid.uuid4()).encode()
        self.asked_at = time.perf_counter()
        self.transport.send(WSMsgType.TEXT, b'{"message_id":"%s","message":"%s"}' % (self.message_id, prompt))

    async def leave(self) -> None:
        self.transport.send_close()
        async with asyncio.timeout(CONNECT_SECONDS):
            await self.transport.wait_disconnected()


def ignore(visitor: Visitor, payload: bytes) -> None:
    pass


async def connect(port: int, query: str = "") -> Visitor:
    url = f"ws://127.0.0.1:{port}/api/chat/ws{query}"
    async with asyncio.timeout(CONNECT_SECONDS):
        _, visitor = await ws_connect(
            Visitor, url, local_addr=next_address(), websocket_handshake_timeout=CONNECT_SECONDS
        )
        assert isinstance(visitor, Visitor)
        await visitor.opened
    return visitor


async def in_parallel(at_once: int, times: int, work: Callable[[], Awaitable[None]]) -> None:
    left = itertools.repeat(None, times)

    async def worker() -> None:
        for _ in left:
            await work()

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())


async def open_sessions(port: int, count: int) -> Figures:
    """Opens sessions until there are `count`."""

    async def one() -> None:
        visitors.append(await connect(port))

    await in_parallel(OPENING_AT_ONCE, count - len(visitors), one)
    return {}


async def close_sessions() -> Figures:
    leaving = iter(visitors)

    async def one() -> None:
        await next(leaving).leave()

    await in_parallel(OPENING_AT_ONCE, len(visitors), one)
    visitors.clear()
    return {}


class Conversation:
    """Every visitor asks until `seconds` are over, and then waits for its last answer."""

    def __init__(self, prompts: list[bytes]) -> None:
        self.prompts = itertools.cycle(prompts)
        self.until = 0.0
        self.latencies: list[float] = []
        self.added: list[float] = []
        self.errors = 0
        self.waiting = 0
        self.last_at = 0.0
        self.all_answered = asyncio.Event()

    def ask(self, visitor: Visitor) -> None:
        visitor.on_frame = self.on_frame
        self.waiting += 1
        visitor.ask(next(self.prompts))

    def on_frame(self, visitor: Visitor, payload: bytes) -> None:
        now = time.perf_counter()
        latency = now - visitor.asked_at
        if visitor.message_id not in payload or b'"error"' in payload:
            self.errors += 1
        self.latencies.append(latency)
        took = NUMBER.search(payload)
        if took is not None:
            self.added.append(latency - int(took[1]) / 1e9)
        if now < self.until:
            visitor.ask(next(self.prompts))
            return
        self.last_at = now
        self.waiting -= 1
        if self.waiting == 0:
            self.all_answered.set()


async def take_turns(prompts: list[str], seconds: float, spread: float = 0.0) -> Figures:
    """The sessions that are open take turns; their first prompts are spread over `spread` seconds."""
    conversation = Conversation([prompt.encode() for prompt in prompts])
    loop = asyncio.get_running_loop()
    started_at = time.perf_counter()
    conversation.until = started_at + spread + seconds
    for number, visitor in enumerate(visitors):
        loop.call_later(spread * number / len(visitors), conversation.ask, visitor)
    lost = 0
    try:
        async with asyncio.timeout(spread + seconds + ANSWER_SECONDS):
            await conversation.all_answered.wait()
    except TimeoutError:
        lost, conversation.last_at = conversation.waiting, time.perf_counter()
    return {
        "turns": len(conversation.latencies),
        "rate": len(conversation.latencies) / (conversation.last_at - started_at),
        "errors": conversation.errors + lost,
        **percentiles(conversation.latencies),
        **{f"added_{name}": value for name, value in percentiles(conversation.added).items()},
    }


async def come_and_go(port: int, sessions: int, at_once: int, seconds: float, prompt: str) -> Figures:
    """Sessions that come, take one turn and go, for at most `seconds`."""
    until = time.perf_counter() + seconds
    gone = 0

    async def one() -> None:
        nonlocal gone
        if time.perf_counter() > until:
            return
        visitor = await connect(port)
        conversation = Conversation([prompt.encode()])
        conversation.ask(visitor)
        async with asyncio.timeout(ANSWER_SECONDS):
            await conversation.all_answered.wait()
        assert not conversation.errors
        await visitor.leave()
        gone += 1

    await in_parallel(at_once, sessions, one)
    return {"sessions": gone}


class HttpClient(asyncio.Protocol):
    """A connection that is kept alive; one request at a time."""

    def __init__(self) -> None:
        self.data = b""
        self.answered: asyncio.Future[int]

    @classmethod
    async def connect(cls, port: int) -> HttpClient:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(cls, "127.0.0.1", port, local_addr=next_address())
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop has its own class

    def request(self, data: bytes) -> asyncio.Future[int]:
        """The status of the response."""
        self.answered = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return self.answered

    def data_received(self, data: bytes) -> None:
        self.data = self.data + data if self.data else data
        head_ends = self.data.find(b"\r\n\r\n")
        length = LENGTH.search(self.data)
        if head_ends > 0 and length is not None and len(self.data) >= head_ends + 4 + int(length[1]):
            self.answered.set_result(int(self.data[9:12]))
            self.data = b""

    def connection_lost(self, error: Exception | None) -> None:
        if hasattr(self, "answered") and not self.answered.done():
            self.answered.set_exception(ConnectionError("closed before the response"))


async def read(port: int, path: str, connections: int, seconds: float) -> Figures:
    """GET, over and over, on each of the connections."""
    request = f"GET {path} HTTP/1.1\r\nhost: gateway\r\naccept: application/json\r\n\r\n".encode()
    clients = [await HttpClient.connect(port) for _ in range(connections)]
    latencies: list[float] = []
    errors = 0
    until = time.perf_counter() + seconds

    async def reader(client: HttpClient) -> None:
        nonlocal errors
        now = time.perf_counter()
        while now < until:
            status = await client.request(request)
            asked_at, now = now, time.perf_counter()
            errors += status != 200
            latencies.append(now - asked_at)

    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(reader(client))
    for client in clients:
        client.transport.close()
    return {"requests": len(latencies), "rate": len(latencies) / seconds, "errors": errors, **percentiles(latencies)}


async def log_in(ports: list[int], at_once: int, rounds: int) -> Figures:
    """Visitors on every instance log in on another one, `at_once` of them at a time.

    The latencies are from the MCP server's reply, which is in the push, to the push on the visitor's socket.
    """
    here = [await connect(ports[number % len(ports)]) for number in range(at_once)]
    clients = [await HttpClient.connect(ports[(number + 1) % len(ports)]) for number in range(at_once)]
    latencies: list[float] = []

    def on_push(visitor: Visitor, payload: bytes) -> None:
        replied_at = NUMBER.search(payload)
        assert replied_at is not None, payload
        latencies.append((time.monotonic_ns() - int(replied_at[1])) / 1e9)

    async def one(number: int) -> bool:
        # The instance that the MCP server asks is the third: neither the socket's nor the login's.
        persona_id = len(ports) + (number + 2) % len(ports)
        body = json.dumps({"session_id": here[number].session_id, "persona_id": persona_id}).encode()
        head = b"POST /api/login HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
        status = await clients[number].request(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        return status == 200

    failed = 0
    for visitor in here:
        visitor.on_frame = on_push
    for number in range(1 + rounds):
        if number == 1:
            latencies.clear()  # the first round opened the connections behind the gateways
        failed += sum(not done for done in await asyncio.gather(*map(one, range(at_once))))
        await asyncio.sleep(PUSH_SECONDS)
    for visitor, client in zip(here, clients, strict=True):
        await visitor.leave()
        client.transport.close()
    return {
        "logins": at_once * rounds,
        "errors": failed + abs(len(latencies) - at_once * rounds),
        **percentiles(latencies),
    }


async def pause(seconds: float) -> Figures:
    """Nothing but answers to pings."""
    await asyncio.sleep(seconds)
    return {}


def percentiles(values: list[float]) -> Figures:
    """In milliseconds."""
    if not values:
        return {}
    values.sort()
    return {f"p{part}": values[min(len(values) * part // 100, len(values) - 1)] * 1000 for part in (50, 99)}


COMMANDS: dict[str, Callable[..., Awaitable[Figures]]] = {
    "open": open_sessions,
    "close": close_sessions,
    "turns": take_turns,
    "come_and_go": come_and_go,
    "read": read,
    "log_in": log_in,
    "pause": pause,
}


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            command: dict[str, Any] = json.loads(line)
            work = COMMANDS[command.pop("do")](**command)
            print(json.dumps(runner.run(as_coroutine(work))), flush=True)


async def as_coroutine(work: Awaitable[Figures]) -> Figures:
    return await work


if __name__ == "__main__":
    main()
