"""Guards on uvicorn's protocols: what one connection may cost before a handler or a limit of ours sees any of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# A client's bytes are taken in pieces of this size: parsing one takes a few milliseconds, whatever is in it.
PIECE_BYTES = 4096
MAX_HEAD_BYTES = 65536
MAX_PIPELINE = 16
POLICY_VIOLATION = 1008
WINDOW_SECONDS = 60.0
# Frames of any kind (prompts and nonsense, pings, pongs, fragments) for each prompt that is allowed
FRAMES_PER_PROMPT = 20


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
                if (self.head_bytes or 0) > MAX_HEAD_BYTES or len(self.pipeline) > MAX_PIPELINE:
                    self.transport.abort()

    return GuardedHttp


def guarded_websocket(protocol: Any, prompts_per_minute: int) -> Any:
    """uvicorn's WebSocket protocol, which closes a connection with 1008 that sends too many frames of any kind."""
    frames_per_minute = prompts_per_minute * FRAMES_PER_PROMPT

    class GuardedWebSocket(protocol):  # type: ignore[misc]
        frames_left = frames_per_minute
        window_ends = 0.0

        def data_received(self, data: bytes) -> None:
            for piece in _pieces(data):
                if self.transport.is_closing():
                    return
                super().data_received(piece)

        def _count(self) -> None:
            now = self.loop.time()
            if now >= self.window_ends:
                self.window_ends, self.frames_left = now + WINDOW_SECONDS, frames_per_minute
            self.frames_left -= 1
            if self.frames_left == 0 and not self.close_sent:
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
    return [data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES)]
