"""The limits of an HTTP connection that apply before a handler is called."""

import asyncio
import socket
from contextlib import suppress

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from common.errors import HEAD_TOO_LARGE

# What was read at once is split, so that a limit is looked at before all of it has been handled: 21 of the smallest
# WebSocket frames fit into a piece; 85 into what is short enough not to be split.
SHORT_BYTES, PIECE_BYTES = 512, 128

MAX_HEAD_BYTES, MAX_HEADERS = 16384, 128  # as much as uvicorn's other parsers take
MAX_UNUSED_BYTES = 131072  # twice the usual limit of a body, which may so be sent in vain to a path that reads none
PART_COST = 256  # bytes for which a chunk or a trailer counts beside its own, since it takes as long as so many
MAX_PIPELINE = 16
MAX_UNSENT_BYTES = 16384


def split(data: bytes) -> list[bytes]:
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
        if self.is_in_head:
            super().on_header(name, value)
        else:  # trailers are for nobody
            self.unused_bytes += PART_COST

    def on_headers_complete(self) -> None:
        self.is_in_head, self.unused_bytes = False, 0
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        self.unused_bytes += PART_COST

    def on_body(self, body: bytes) -> None:
        if not self.is_idle():
            self.unused_bytes -= 2 * len(body)
        super().on_body(body)

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        # The two would keep each other until the next full garbage collection.
        self.parser = None  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        for piece in split(data):
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
