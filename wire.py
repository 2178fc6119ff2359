"""Guards on uvicorn's protocols: what one connection may cost before a handler or a limit of ours sees any of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import errors

# What a client sends at once is taken in pieces: 21 of the smallest frames in each, or 85 if that is all it sent.
SHORT_BYTES, PIECE_BYTES = 512, 128
# After so many frames in so many seconds no more is taken, so that a flood waits rather than everybody else.
SLICE_FRAMES, SLICE_SECONDS = 16, 0.025
MAX_HEAD_BYTES = 16384  # as much as uvicorn takes with its other HTTP parser
MAX_PIPELINE = 16
POLICY_VIOLATION = 1008
WINDOW_SECONDS = 60.0
# Frames of any kind (prompts and nonsense, pings, pongs, fragments) for each prompt that is allowed
FRAMES_PER_PROMPT = 20
# And at once: somewhat more than the prompts after which a visitor is refused for good.
BURST_PER_PROMPT, SHORTEST_BURST = 4, 320


def guarded_http(protocol: Any) -> Any:
    """uvicorn's HTTP protocol, which cuts a head without end and a pipeline without reading."""

    class GuardedHttp(protocol):  # type: ignore[misc]
        head_bytes: int | None = 0

        def on_message_begin(self) -> None:
            self.head_bytes = 0
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self.head_bytes = None
            super().on_headers_complete()

        def data_received(self, data: bytes) -> None:
            for piece in _pieces(data):
                # A handshake has handed the connection on, or it has been closed.
                if self.transport.is_closing() or self.transport.get_protocol() is not self:
                    return
                super().data_received(piece)
                if self.head_bytes is not None:
                    self.head_bytes += len(piece)
                is_long = (self.head_bytes or 0) > MAX_HEAD_BYTES
                if is_long and (self.cycle is None or self.cycle.response_complete):
                    self.send_400_response(errors.HEAD_TOO_LARGE)
                elif is_long or len(self.pipeline) > MAX_PIPELINE:
                    self.transport.abort()

    return GuardedHttp


def guarded_websocket(protocol: Any, prompts_per_minute: int) -> Any:
    """uvicorn's WebSocket protocol, which takes few frames at a time, and closes with 1008 on too many of any kind."""
    frames_per_minute = prompts_per_minute * FRAMES_PER_PROMPT
    longest_burst = max(prompts_per_minute * BURST_PER_PROMPT, SHORTEST_BURST)

    class GuardedWebSocket(protocol):  # type: ignore[misc]
        frames_left = frames_per_minute
        window_ends = 0.0
        burst_frames = 0
        slice_frames = 0
        slice_ends = 0.0
        is_paused = False

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.held: list[bytes] = []  # read but not taken yet, the last piece first; meanwhile nothing more is read
            super().__init__(*args, **kwargs)

        def shutdown(self) -> None:
            if self.handshake_initiated:
                super().shutdown()
            else:
                # uvicorn fails to answer a handshake that the parser has refused, and with it the whole stop.
                self.transport.abort()

        @property
        def read_paused(self) -> bool:
            # uvicorn reads on when this is true and it has nothing left to handle.
            return self.is_paused and not self.held

        @read_paused.setter
        def read_paused(self, is_paused: bool) -> None:
            self.is_paused = is_paused

        def data_received(self, data: bytes) -> None:
            if self.held:
                self.held = [*reversed(_pieces(data)), *self.held]
            else:
                self.held = _pieces(data)[::-1]
                self._take()

        def _take(self) -> None:
            if self.loop.time() >= self.slice_ends:
                self.slice_ends, self.slice_frames = self.loop.time() + SLICE_SECONDS, 0
            while self.held and not self.transport.is_closing():
                if self.slice_frames >= SLICE_FRAMES:
                    self.transport.pause_reading()
                    self.loop.call_at(self.slice_ends, self._go_on)
                    return
                super().data_received(self.held.pop())
            self.burst_frames = 0

        def _go_on(self) -> None:
            self._take()
            if not self.held and not self.transport.is_closing() and self.queue.empty():
                self.is_paused = False
                self.transport.resume_reading()

        def _count(self) -> None:
            now = self.loop.time()
            if now >= self.window_ends:
                self.window_ends, self.frames_left = now + WINDOW_SECONDS, frames_per_minute
            self.slice_frames += 1
            self.burst_frames += 1
            self.frames_left -= 1
            if (self.frames_left <= 0 or self.burst_frames > longest_burst) and not self.close_sent:
                self.conn.send_close(POLICY_VIOLATION, "Too many messages")
                self.handle_parser_exception()

    def counted(name: str) -> Callable[..., None]:
        handle = getattr(protocol, name)

        def handle_counted(self: Any, *event: Any) -> None:
            if not self.transport.is_closing():
                handle(self, *event)
                self._count()

        return handle_counted

    for name in ("handle_text", "handle_bytes", "handle_cont", "handle_ping", "handle_pong"):
        setattr(GuardedWebSocket, name, counted(name))
    return GuardedWebSocket


def _pieces(data: bytes) -> list[bytes]:
    if len(data) <= SHORT_BYTES:
        return [data]
    return [data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES)]
