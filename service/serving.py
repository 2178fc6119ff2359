"""What the gateway changes about uvicorn, however it was started: its limits, how it stops, its `server` header."""

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from types import FrameType
from typing import Self

import uvicorn
from uvicorn.supervisors import Multiprocess

from service.http_guard import GuardedHttp
from service.websocket_guard import GuardedWebSocket

logger = logging.getLogger("gateway.serving")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# How long uvicorn may wait for requests and sockets that are left when the gateway has drained.
GRACE_SECONDS = 5
HEAD_SECONDS = 20.0
LOOK_SECONDS = 5.0
JOIN_SECONDS = 0.1


class Supervisor(Multiprocess):
    """uvicorn's supervisor of several workers, which passes on a second signal while it waits for them to end."""

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


def running_server() -> uvicorn.Server | None:
    """The server that runs this application. Only its signal handler leads to it."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return server if isinstance(server, uvicorn.Server) else None


def configure(server: uvicorn.Server | None, prompts_per_minute: int) -> None:
    """Sets what `uvicorn gateway:app` leaves open. To be called before the first connection.

    The guarded protocols take the place of whatever --http and --ws have asked for.
    """
    if server is not None:
        config = server.config
        config.timeout_graceful_shutdown = config.timeout_graceful_shutdown or GRACE_SECONDS
        config.encoded_headers = [header for header in config.encoded_headers if header[0] != b"server"]
        config.http_protocol_class = GuardedHttp
        config.ws_protocol_class = partial(GuardedWebSocket, prompts_per_minute)  # type: ignore[assignment]
        config.ws_per_message_deflate = False  # it takes 40 KB a session


class DrainOnSignal:
    """While it is entered, SIGTERM and SIGINT drain before uvicorn closes every socket; a second one kills."""

    def __init__(self, server: uvicorn.Server | None, drain: Callable[[], Awaitable[None]]) -> None:
        self._server = server
        self._drain = drain
        self._loop = asyncio.get_running_loop()
        self._seen: list[int] = []
        self._handlers_before: dict[signal.Signals, signal._HANDLER] = {}
        self._draining: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        if self._server is not None and threading.current_thread() is threading.main_thread():
            self._handlers_before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._seen.append(number)
        if len(self._seen) == 2 and self._seen[0] != number and multiprocessing.parent_process() is not None:
            return  # Ctrl-C reaches a worker twice: from the terminal, and as the supervisor's SIGTERM
        if len(self._seen) > 1 or self._server is None or not self._server.started:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        else:
            self._loop.call_soon_threadsafe(self._start_draining, self._server)

    def _start_draining(self, server: uvicorn.Server) -> None:
        self._draining = self._loop.create_task(self._drain_and_exit(server))

    async def _drain_and_exit(self, server: uvicorn.Server) -> None:
        try:
            await self._drain()
        except Exception:
            logger.exception("draining failed")
        finally:
            # uvicorn's signal handler would do more: end the process by the signal, as if it had failed.
            server.should_exit = True


async def cut_silent_connections(server: uvicorn.Server | None) -> None:
    """Cuts connections on which the head of a request does not arrive. uvicorn would wait for ever."""
    silent_since: dict[GuardedHttp | GuardedWebSocket, float] = {}
    while server is not None:
        await asyncio.sleep(LOOK_SECONDS)
        now = time.monotonic()
        silent_since = {
            protocol: silent_since.get(protocol, now)
            for protocol in server.server_state.connections
            if isinstance(protocol, GuardedHttp | GuardedWebSocket) and protocol.awaits_head()
        }
        for protocol, since in silent_since.items():
            if now - since > HEAD_SECONDS:
                protocol.transport.abort()
