"""The limits of an HTTP connection that apply before a handler is called."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from common import errors
from service.pieces import split

MAX_HEAD_BYTES = 16384  # as much as uvicorn's other HTTP parser takes
MAX_UNUSED_BYTES = 131072  # twice the usual limit of a body, which may so be sent in vain to a path that reads none
MAX_PIPELINE = 16


class GuardedHttp(HttpToolsProtocol):
    """Ends a connection on which too much comes that no handler is given, or too many requests at once.

    That is a head, trailers or a chunk's extension that is too long, or a body whose request has been answered.
    """

    is_in_head = True
    unused_bytes = 0  # that have come since a request began, its head ended, or a handler was given a part of its body

    def on_message_begin(self) -> None:
        self.is_in_head, self.unused_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self.is_in_head, self.unused_bytes = False, 0
        super().on_headers_complete()
        self.headers = self.headers.copy()  # trailers are added to these, and not to what the handler sees

    def on_body(self, body: bytes) -> None:
        if not self.is_idle():
            self.unused_bytes = 0
        super().on_body(body)

    def data_received(self, data: bytes) -> None:
        for piece in split(data):
            # A handshake hands the connection over to the WebSocket protocol.
            if self.transport.is_closing() or self.transport.get_protocol() is not self:
                return
            super().data_received(piece)
            self.unused_bytes += len(piece)
            is_too_much = self.unused_bytes > (MAX_HEAD_BYTES if self.is_in_head else MAX_UNUSED_BYTES)
            if is_too_much and self.is_in_head and self.is_idle():
                self.send_400_response(errors.HEAD_TOO_LARGE)
            elif is_too_much or len(self.pipeline) > MAX_PIPELINE:
                self.transport.abort()

    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def stalled_at(self) -> int | None:
        """So many bytes of answers have not been read, or a head has not come (0); None if neither is waited for."""
        # uvicorn has a timer of its own while nothing has come after an answer.
        awaits_head = self.is_idle() and self.timeout_keep_alive_task is None
        return self.transport.get_write_buffer_size() or (0 if awaits_head else None)
