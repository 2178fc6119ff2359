"""The limits of a WebSocket connection that apply before a handler is called."""

from typing import Any

from uvicorn._types import ASGIReceiveEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.protocol import State

from common import errors
from common.errors import POLICY_VIOLATION
from common.limits import Window
from service.pieces import split

# A frame costs 1, and 1 more for each COSTLY_BYTES; a connection may cost so much in so many seconds.
SLICE_COST, SLICE_SECONDS = 16, 0.025
COSTLY_BYTES = 256
MINUTE = 60.0
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
        self.frames_per_minute = prompts_per_minute * FRAMES_PER_PROMPT
        self.longest_burst = max(prompts_per_minute * BURST_PER_PROMPT, SHORTEST_BURST)
        self.held: list[bytes] = []  # the last piece first
        self.slice = Window(SLICE_SECONDS, SLICE_COST)
        self.minute = Window(MINUTE)
        self.burst = 0

    def shutdown(self) -> None:
        if self.handshake_initiated:
            super().shutdown()
        else:
            # uvicorn would raise over a handshake that its parser has refused, and not stop at all.
            self.transport.abort()

    def awaits_head(self) -> bool:
        # uvicorn never answers a handshake that its parser has refused.
        return not self.handshake_initiated

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
            super().data_received(self.held.pop())
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

    def handle_text(self, event: Frame) -> None:
        if self._admits(len(event.data)):
            super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        if self._admits(len(event.data)):
            super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        if self._admits(len(event.data)):
            super().handle_cont(event)

    def handle_pong(self, event: Frame) -> None:
        if self._admits(len(event.data)):
            super().handle_pong(event)

    def handle_ping(self) -> None:
        if self._admits(0):
            super().handle_ping()

    def _admits(self, size: int) -> bool:
        """Counts a frame; False if it is not to be handled, since the connection ends."""
        if self.transport.is_closing():
            return False
        now = self.loop.time()
        self.slice.count(now, 1 + size // COSTLY_BYTES)
        self.burst += 1
        if self.minute.count(now) <= self.frames_per_minute and self.burst <= self.longest_burst:
            return True
        if self.conn.state is State.OPEN:
            self.conn.send_close(POLICY_VIOLATION, errors.TOO_MANY_MESSAGES)
            self.handle_parser_exception()
        return False
