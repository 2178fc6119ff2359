"""The limits of a connection that apply before a handler is called."""

import asyncio
import socket
from contextlib import suppress
from typing import Any

from uvicorn._types import ASGI3Application, ASGIReceiveEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from common.errors import HEAD_TOO_LARGE, POLICY_VIOLATION, TOO_MANY_MESSAGES
from common.limits import MINUTE, Window

# What was read at once is split, so that a limit is looked at before all of it has been handled: 21 of the smallest
# WebSocket frames fit into a piece; 85 into what is short enough not to be split.
SHORT_BYTES, PIECE_BYTES = 512, 128

MAX_HEAD_BYTES, MAX_HEADERS = 16384, 128  # as much as uvicorn's other parsers take
MAX_UNUSED_BYTES = 131072  # twice the usual limit of a body, which may so be sent in vain to a path that reads none
MAX_PIPELINE = 16
MAX_UNSENT_BYTES = 16384

# A frame costs 1, and 1 more for each COSTLY_BYTES; a connection may cost so much in so many seconds.
SLICE_COST, SLICE_SECONDS = 16, 0.025
COSTLY_BYTES = 1024
# Frames of any kind (prompts and nonsense, pings, pongs, fragments) for each prompt that is allowed
FRAMES_PER_PROMPT = 20
# Without a pause between them. It leaves room for the prompts after which the handler closes the socket.
BURST_PER_PROMPT, SHORTEST_BURST = 4, 320


def _split(data: bytes) -> list[bytes]:
    size = PIECE_BYTES if len(data) > SHORT_BYTES else SHORT_BYTES
    return [data[start : start + size] for start in range(0, len(data), size)]


class GuardedHttp(HttpToolsProtocol):
    """Ends a connection on which too much comes that no handler is given, or too many requests at once.

    That is a head or trailers that are too long, a body whose request has been answered, or what chunks are wrapped in.
    """

    answering: RequestResponseCycle | None = None  # the oldest request, while others wait behind it
    is_in_head = True
    unused_bytes = 0  # of a head or behind it; what a handler is given of a body counts for as much of its wrapping

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # What waits to be read is to wait here, where it is looked at, rather than megabytes of it in the kernel.
        with suppress(OSError, AttributeError):  # no TCP, or not on Linux
            transport.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES
            )

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.answering is not None:  # uvicorn tells the newest request alone
            self.answering.disconnected = True
            self.answering.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self.answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_message_begin(self) -> None:
        self.is_in_head, self.unused_bytes = True, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.is_in_head:  # trailers are for nobody
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self.is_in_head, self.unused_bytes = False, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self.is_idle():
            self.unused_bytes -= 2 * len(body)
        super().on_body(body)

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        # The two would keep each other until the next full garbage collection.
        self.parser = None  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        for piece in _split(data):
            # A handshake hands the connection over to the WebSocket protocol.
            if self.transport.is_closing() or self.transport.get_protocol() is not self:
                return
            super().data_received(piece)
            self.unused_bytes += len(piece)
            is_too_much = self.unused_bytes > (MAX_HEAD_BYTES if self.is_in_head else MAX_UNUSED_BYTES)
            is_too_much |= self.is_in_head and len(self.headers or ()) > MAX_HEADERS
            if is_too_much and self.is_in_head and self.is_idle():
                self.send_400_response(HEAD_TOO_LARGE)
            elif is_too_much or len(self.pipeline) > MAX_PIPELINE:
                self.transport.abort()

    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def stalled_at(self) -> object:
        """So many bytes of answers have not been read, or that for which the client is waited for; or None."""
        # uvicorn has a timer of its own while nothing has come after an answer.
        awaits_head = self.is_idle() and (self.is_in_head or self.timeout_keep_alive_task is None)
        return self.transport.get_write_buffer_size() or ("a head" if awaits_head else None)


class GuardedWebSocket(WebSocketsSansIOProtocol):
    """Takes a few frames at a time, so that a flood holds up its sender and nobody else; too many close with 1008.

    While something that was read is `held` back, a timer is set to take it, and no more is read.
    """

    def __init__(self, prompts_per_minute: int, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        # The handler reads them: a header that websockets cannot parse it would quote, and this one may hold a key.
        self.conn.process_subprotocol = lambda headers: None  # type: ignore[method-assign]
        self.frames_per_minute = prompts_per_minute * FRAMES_PER_PROMPT
        self.longest_burst = max(prompts_per_minute * BURST_PER_PROMPT, SHORTEST_BURST)
        self.held: list[bytes] = []  # the last piece first
        self.slice = Window(SLICE_SECONDS, SLICE_COST)
        self.minute = Window(MINUTE)
        self.burst = 0

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.conn.parser.close()  # as in GuardedHttp: it is a generator that keeps the connection

    def shutdown(self) -> None:
        if self.handshake_initiated:
            super().shutdown()
        else:
            # uvicorn would raise over a handshake that its parser has refused, and not stop at all.
            self.transport.abort()

    def stalled_at(self) -> object:
        """As GuardedHttp has it: of the bytes that a close waits for, the handshake, or a message in fragments."""
        if self.transport.is_closing():
            return self.transport.get_write_buffer_size() or None
        # uvicorn never answers a handshake that its parser has refused.
        return (self.frames or None) if self.handshake_initiated else "a handshake"

    def data_received(self, data: bytes) -> None:
        is_timer_set = bool(self.held)
        self.held[:0] = reversed(_split(data))
        if is_timer_set:
            self._pause_reading()  # uvicorn resumes it when the application closes the socket
        else:
            self._take()

    def _take(self) -> None:
        while self.held and not self.transport.is_closing():
            if self.slice.counted >= SLICE_COST and self.loop.time() < self.slice.ends:
                self._pause_reading()
                self.loop.call_at(self.slice.ends, self._go_on)
                return
            try:
                super().data_received(self.held.pop())
            except InvalidState:
                # uvicorn cannot close with 1007, over text that is no UTF-8, once the visitor's own close has come.
                self.transport.abort()
        self.burst = 0

    def _go_on(self) -> None:
        self._take()
        self._resume_reading()

    def _pause_reading(self) -> None:
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        is_all_taken = not self.held and (self.queue.empty() or self.close_sent)
        if self.read_paused and is_all_taken and not self.transport.is_closing():
            self.read_paused = False
            self.transport.resume_reading()

    async def receive(self) -> ASGIReceiveEvent:
        # In place of uvicorn's, which reads on while something is held back.
        message = await self.queue.get()
        self._resume_reading()
        return message

    def handle_events(self) -> None:
        for event in self.conn.events_received():
            if not isinstance(event, Frame) or event.opcode is Opcode.CLOSE or self._admits(event):
                self.conn.events = [event]
                super().handle_events()

    def _admits(self, frame: Frame) -> bool:
        """Counts a frame; False if it is not to be handled, since the connection ends."""
        if self.transport.is_closing():
            return False
        now = self.loop.time()
        self.slice.count(now, 1 + len(frame.data) // COSTLY_BYTES)
        self.burst += 1
        if self.minute.count(now) <= self.frames_per_minute and self.burst <= self.longest_burst:
            return True
        if self.conn.state is State.OPEN:
            self.conn.send_close(POLICY_VIOLATION, TOO_MANY_MESSAGES)
            self.handle_parser_exception()
        return False
