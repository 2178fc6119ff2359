"""The states in which a connection can be left for ever, and how long each lasts: all at once, beside other tests."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

import psutil

from tests.support.cluster import resume
from tests.support.gateway import Gateway
from tests.support.raw import CLOSE, PING, PONG, RawSocket, masked
from tests.support.waiting import become

# With room for a busy machine, beyond which a connection counts as one that is not cut.
PATIENCE_SECONDS = 50.0
DRIBBLE_SECONDS = 0.5

GET = b"GET /api/health HTTP/1.1\r\nHost: a\r\n"
POST = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
LENGTH, CHUNKED = b"Content-Length: 500\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n"
LOGIN, HEALTH = POST % b"/api/login", POST % b"/api/health"
UPGRADE = b"GET /api/chat/ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"


@dataclass(frozen=True)
class State:
    """What brings a connection there, and what goes on there: a byte now and then, or nothing."""

    sent: bytes
    dribbled: bytes = b""
    seconds: tuple[float, float] = (18.0, PATIENCE_SECONDS)  # as documented: 20 to 25; 15 for a body
    answered: bytes = b""
    is_websocket: bool = False  # then it is sent behind a handshake


BODY = (13.0, PATIENCE_SECONDS)
STATES = {
    "before a request": State(b""),
    "in a request line": State(b"GET /api/he"),
    "in a head": State(GET),
    "in a head, slowly": State(GET + b"x: ", b"x"),
    "in a handshake's head": State(UPGRADE),
    "a handshake that its parser refuses": State(UPGRADE + KEY + b"Cookie: " + b"x" * 10_000 + b"\r\n\r\n"),
    "in a body": State(LOGIN + LENGTH, b"", BODY, b"HTTP/1.1 408 "),
    "in a body, slowly": State(LOGIN + LENGTH, b" ", BODY, b"HTTP/1.1 408 "),
    "in a chunk, slowly": State(LOGIN + CHUNKED + b"100\r\n{", b" ", BODY, b"HTTP/1.1 408 "),
    "in a chunk's extension, slowly": State(LOGIN + CHUNKED + b"1;x", b"x", BODY, b"HTTP/1.1 408 "),
    "after the last chunk, slowly": State(LOGIN + CHUNKED + b"1\r\n{\r\n0\r\nx: ", b"x", BODY, b"HTTP/1.1 408 "),
    "in a body that nobody reads, slowly": State(HEALTH + LENGTH, b" ", answered=b"HTTP/1.1 405 "),
    "in trailers that nobody reads, slowly": State(HEALTH + CHUNKED + b"0\r\nx: ", b"x", answered=b"HTTP/1.1 405 "),
    "between requests, blank lines": State(GET + b"\r\n", b"\r\n", answered=b"HTTP/1.1 200 "),
    "in the next request's head": State(GET + b"\r\n" + GET, answered=b"HTTP/1.1 200 "),
    "in a message of fragments, slowly": State(
        masked(0x01, b"{"), masked(0x00), answered=b"HTTP/1.1 101 ", is_websocket=True
    ),
}
MANY = 200  # more of those in a head, and of those in a body
PINGS_AND_CLOSE = masked(0x89, b"x" * 125) * 1000 + masked(0x88)
UNREAD_STATES = {
    "replies that are not read": (b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 16, False, 0),
    "replies that are read a byte at a time": (b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 16, False, 1),
    "a close behind pongs that are not read": (PINGS_AND_CLOSE, True, 0),
    "a close behind pongs that are read a byte at a time": (PINGS_AND_CLOSE, True, 1),
}


async def stay(gateway: Gateway, state: State) -> tuple[float, bytes]:
    """How long a connection lasts in this state, PATIENCE_SECONDS if it is not cut, and what it was sent."""
    started, received = time.monotonic(), b""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)

    async def read() -> None:
        nonlocal received
        with suppress(ConnectionError):  # an answer may be followed by a reset, for what was sent after it
            while piece := await reader.read(65536):
                received += piece
                if PING | 0x80 in piece and b"HTTP" not in piece:
                    writer.write(masked(0x80 | PONG, piece[piece.index(PING | 0x80) + 2 :][:4]))

    reading = asyncio.create_task(read())
    try:
        if state.is_websocket:
            writer.write(UPGRADE + KEY + b"\r\n")
            await become(lambda: b'"key"' in received, what="the session is open")
        writer.write(state.sent)
        while not reading.done() and time.monotonic() - started < PATIENCE_SECONDS:
            writer.write(state.dribbled)
            await asyncio.wait([reading], timeout=DRIBBLE_SECONDS)
    finally:
        writer.transport.abort()
    lasted = time.monotonic() - started
    await reading
    return lasted, received


async def not_close(gateway: Gateway) -> float:
    """How long a connection lasts whose session was opened elsewhere, and that does not answer the close."""
    with await asyncio.to_thread(RawSocket, gateway) as client:
        session_id = await asyncio.to_thread(client.handshake)
        async with resume(gateway, session_id):
            started = time.monotonic()
            frames = await asyncio.to_thread(client.read_until_cut)
            assert [opcode for opcode, _ in frames] == [CLOSE]
            return time.monotonic() - started


async def leave_unread(gateway: Gateway, sent: bytes, is_websocket: bool, read: int) -> float:
    """The same for a client that sends all this and reads nothing, or so many bytes twice a second."""

    def send() -> RawSocket:
        client = RawSocket(gateway, receive_buffer=4096, segment_bytes=536)
        if is_websocket:
            client.handshake()
        client.socket.sendall(sent)
        return client

    started = time.monotonic()
    with await asyncio.to_thread(send) as client:
        port = client.socket.getsockname()[1]
        client.socket.setblocking(False)
        await become(lambda: port in ports(gateway), what="it is accepted")
        while time.monotonic() - started < PATIENCE_SECONDS and port in await asyncio.to_thread(ports, gateway):
            with suppress(BlockingIOError, ConnectionError):
                client.socket.recv(read)
            await asyncio.sleep(DRIBBLE_SECONDS)
    return time.monotonic() - started


def ports(gateway: Gateway) -> set[int]:
    """Of the clients that are connected: one that reads nothing is not told by its own kernel that it no longer is."""
    return {one.raddr.port for one in psutil.Process(gateway.process.pid).net_connections("tcp") if one.raddr}


@dataclass
class Lasted:
    """Seconds, and what was sent back, by state; of the many the longest and the worst answer."""

    states: dict[str, tuple[float, bytes]]
    unread: dict[str, float]
    closing: float
    many: list[tuple[float, bytes]]


async def stay_in_all(gateway: Gateway) -> Lasted:
    async with asyncio.TaskGroup() as group:
        states = {name: group.create_task(stay(gateway, state)) for name, state in STATES.items()}
        unread = {name: group.create_task(leave_unread(gateway, *what)) for name, what in UNREAD_STATES.items()}
        closing = group.create_task(not_close(gateway))
        crowd = [STATES["in a head"]] * MANY + [STATES["in a body, slowly"]] * (MANY // 10)
        many = [group.create_task(stay(gateway, state)) for state in crowd]
    return Lasted(
        {name: task.result() for name, task in states.items()},
        {name: task.result() for name, task in unread.items()},
        closing.result(),
        [task.result() for task in many],
    )
