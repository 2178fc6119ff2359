"""The limits of a WebSocket connection that apply before its handler is told."""

from typing import Any

from uvicorn._types import ASGIReceiveEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from common.errors import POLICY_VIOLATION, TOO_MANY_MESSAGES
from common.limits import MINUTE, Window
from service.http_guard import split

# A frame costs 1, and 1 more for each COSTLY_BYTES; a connection may cost so much in so many seconds.
SLICE_COST, SLICE_SECONDS = 16, 0.025
COSTLY_BYTES = 1024
# Frames of any kind (prompts and nonsense, pings, pongs, fragments) for each prompt that is allowed
FRAMES_PER_PROMPT = 20
# Without a pause between them. It leaves room for the prompts after which the handler closes the socket.
BURST_PER_PROMPT, SHORTEST_BURST = 4, 320


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
        self.held[:0] = reversed(split(data))
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
