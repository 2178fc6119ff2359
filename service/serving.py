"""Between uvicorn and the routes: what is changed about uvicorn, however it was started; what each request passes."""

import asyncio
import multiprocessing
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from uuid import uuid4

import uvicorn
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from common.logs import log
from database.migrations import CannotStart
from service.http_guard import GuardedHttp
from service.ws_guard import GuardedWebSocket

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# How long uvicorn may wait for requests and sockets that are left when the gateway has drained.
GRACE_SECONDS = 5
STALL_SECONDS = 20.0  # for a head, a handshake, a message in fragments
LOOK_SECONDS = 5.0
STEP_BYTES = 16384  # a client has read on if it has read so many, or all there are
JOIN_SECONDS = 0.1
_FIRST = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


class Supervisor(Multiprocess):
    """uvicorn's supervisor of several workers, which passes on a second signal while it waits for them to end."""

    @property
    def has_failed_to_start(self) -> bool:
        return any(process.exitcode == STARTUP_FAILURE for process in self.processes)

    def handle_signals(self) -> None:
        # uvicorn looks twice a second, and takes all signals that came meanwhile for one.
        second = [number for number in self.signal_queue if number in SIGNALS][1:]
        super().handle_signals()
        self.signal_queue.extend(second)

    def join_all(self) -> None:
        while any(process.process.is_alive() for process in self.processes):
            time.sleep(JOIN_SECONDS)
            if not set(SIGNALS).isdisjoint(self.signal_queue):
                self.signal_queue.clear()
                self.terminate_all()


def configured_server(prompts_per_minute: int) -> uvicorn.Server | None:
    """The server that runs this application, if it is uvicorn, with all that `uvicorn gateway:app` leaves open.

    To be called before the first connection. The guarded protocols take the place of what --http and --ws ask for.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)  # nothing else leads to it
    if not isinstance(server, uvicorn.Server):
        return None
    config = server.config
    config.timeout_graceful_shutdown = config.timeout_graceful_shutdown or GRACE_SECONDS
    config.encoded_headers = [header for header in config.encoded_headers if header[0] != b"server"]
    config.http_protocol_class = GuardedHttp
    config.ws_protocol_class = partial(GuardedWebSocket, prompts_per_minute)  # type: ignore[assignment]
    config.ws_per_message_deflate = False  # it takes 40 KB a session
    return server


@contextmanager
def drain_on_signal(server: uvicorn.Server | None, drain: Callable[[], Awaitable[None]]) -> Iterator[None]:
    """While it is entered, SIGTERM and SIGINT drain before uvicorn closes every socket; a second one kills."""
    if server is None:
        yield
        return
    loop = asyncio.get_running_loop()
    seen: list[int] = []
    draining: list[asyncio.Task[None]] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        if len(seen) == 2 and seen[0] != number and multiprocessing.parent_process() is not None:
            return  # Ctrl-C reaches a worker twice: from the terminal, and as the supervisor's SIGTERM
        if len(seen) > 1 or not server.started:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        else:
            loop.call_soon_threadsafe(lambda: draining.append(loop.create_task(drain_and_exit())))

    async def drain_and_exit() -> None:
        try:
            await drain()
        except Exception:
            log.exception("draining failed")
        finally:
            # uvicorn's signal handler would do more: end the process by the signal, as if it had failed.
            server.should_exit = True

    handlers_before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers_before.items():
            signal.signal(number, handler)


async def cut_stalled_connections(server: uvicorn.Server | None, send_timeout: float) -> None:
    """Cuts connections whose client does not send something to its end, or hardly reads: uvicorn waits for ever."""
    stalled: dict[GuardedHttp | GuardedWebSocket, tuple[object, float]] = {}
    while server is not None:
        await asyncio.sleep(min(LOOK_SECONDS, send_timeout / 2))
        now = time.monotonic()
        before, stalled = stalled, {}
        for protocol in server.server_state.connections:
            if isinstance(protocol, GuardedHttp | GuardedWebSocket) and (place := protocol.stalled_at()) is not None:
                last, since = before.get(protocol, (place, now))
                if isinstance(place, int) and isinstance(last, int):
                    last = max(last, place)  # more has been written
                    has_gone_on = last - place >= STEP_BYTES
                else:
                    has_gone_on = last is not place
                stalled[protocol] = (place, now) if has_gone_on else (last, since)
        for protocol, (place, since) in stalled.items():
            if now - since > (send_timeout if isinstance(place, int) else STALL_SECONDS):
                protocol.transport.abort()


async def _send_without_traceback(send: Send, message: Message) -> None:
    """In place of the traceback of CannotStart uvicorn logs its sentence."""
    if isinstance(cannot := sys.exception(), CannotStart):
        message["message"] = str(cannot)
    await send(message)


class Edge:
    """Takes trailing slashes off, so that both forms of a path are answered directly and never by a redirect.

    `X-Request-ID` is taken over or made, stands in the request's state as `request_id`, and is returned. No cache is to
    keep a reply on the path of a history, whatever it says.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        for route in routes:
            # Starlette's `$` lets a path have a line feed at its end, which a proxy's rules need not match.
            route.path_regex = re.compile(route.path_regex.pattern.removesuffix("$") + r"\Z")  # type: ignore[attr-defined]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, partial(_send_without_traceback, send))
            return
        scope["path"] = scope["path"].rstrip("/") or "/"
        if scope["type"] == "websocket":
            # ASGI has no way to cut a connection whose client does not read; the server's protocol does.
            transport = getattr(getattr(send, "__self__", None), "transport", None)
            scope["gateway.transport"], scope["gateway.send"] = transport, send
            peername = transport.get_extra_info("peername") if transport else None
            scope["gateway.peer"] = peername[0] if isinstance(peername, tuple) else None
            scope["gateway.is_tls"] = transport is not None and transport.get_extra_info("sslcontext") is not None
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex.encode()
        scope["state"]["request_id"] = request_id.decode()
        headers = [(b"x-request-id", request_id)]
        if scope["path"].startswith("/api/chat/history/"):
            headers.append((b"cache-control", b"no-store"))

        async def send_with_headers(message: Message) -> None:
            if message["type"] in _FIRST:
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        await self._app(scope, receive, send_with_headers)
