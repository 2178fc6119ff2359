"""What is wanted of uvicorn however it was started: to finish before it stops, and to keep its name to itself."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from wire import guarded_http, guarded_websocket

logger = logging.getLogger("gateway.serving")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# For uvicorn to wait for requests and sockets that do not end, after ours have.
GRACE_SECONDS = 5

# A client has so long for the head of a request.
HEAD_SECONDS = 20.0
LOOK_SECONDS = 5.0
JOIN_SECONDS = 0.1


class Supervisor(Multiprocess):
    """uvicorn's supervisor of several workers, which passes a second signal on while it waits for them to end."""

    def handle_signals(self) -> None:
        # uvicorn looks twice a second and takes all that came meanwhile for one.
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
    """The server that runs this application; its signal handler is the only way that leads to it."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return server if isinstance(server, uvicorn.Server) else None


def tighten(server: uvicorn.Server | None, prompts_per_minute: int) -> None:
    """What uvicorn's own command leaves open, before the first connection is made."""
    if server is not None:
        config = server.config
        config.timeout_graceful_shutdown = config.timeout_graceful_shutdown or GRACE_SECONDS
        config.encoded_headers = [header for header in config.encoded_headers if header[0] != b"server"]
        config.http_protocol_class = guarded_http(config.http_protocol_class)
        config.ws_protocol_class = guarded_websocket(config.ws_protocol_class, prompts_per_minute)
        config.ws_per_message_deflate = False  # 40 KB a session


@contextmanager
def drained_first(server: uvicorn.Server | None, drain: Callable[[], Awaitable[None]]) -> Iterator[None]:
    """Puts `drain` before uvicorn's own way of stopping, which closes every socket; a second signal ends at once."""
    if server is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[None]] = []

    async def drain_and_exit() -> None:
        try:
            await drain()
        except Exception:
            logger.exception("draining failed")
        finally:
            # And not its handler, which would end the process by the signal, as if it had failed.
            server.should_exit = True

    def start_draining() -> None:
        tasks.append(loop.create_task(drain_and_exit()))

    seen: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        if len(seen) == 2 and seen[0] != number and multiprocessing.parent_process() is not None:
            return  # Ctrl-C reaches a worker twice: from the terminal, and as the supervisor's SIGTERM
        if len(seen) > 1 or not server.started:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        else:
            loop.call_soon_threadsafe(start_draining)

    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def cut_silent_connections(server: uvicorn.Server | None) -> None:
    """Cuts connections on which the head of a request does not arrive; uvicorn itself would wait for ever."""
    silent_since: dict[Any, float] = {}
    while server is not None:
        await asyncio.sleep(LOOK_SECONDS)
        now = time.monotonic()
        silent = {protocol for protocol in server.server_state.connections if _waits_for_head(protocol)}
        silent_since = {protocol: silent_since.get(protocol, now) for protocol in silent}
        for protocol, since in silent_since.items():
            if now - since > HEAD_SECONDS:
                protocol.transport.abort()


def _waits_for_head(protocol: Any) -> bool:
    if hasattr(protocol, "handshake_initiated"):
        return not protocol.handshake_initiated  # a handshake that the WebSocket parser does not take gets no answer
    # A connection kept alive between two requests has a timer of uvicorn's own.
    cycle = getattr(protocol, "cycle", protocol)
    is_between = cycle is None or getattr(cycle, "response_complete", False)
    return is_between and getattr(protocol, "timeout_keep_alive_task", None) is None
