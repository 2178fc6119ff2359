"""The limits of an HTTP connection that apply before a handler is called."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from common import errors
from service.pieces import split

MAX_HEAD_BYTES = 16384  # as much as uvicorn's other HTTP parser takes
MAX_PIPELINE = 16


class GuardedHttp(HttpToolsProtocol):
    """Ends a connection whose request head is too long, or that has too many requests waiting for their turn."""

    is_in_head = True
    head_bytes = 0

    def on_message_begin(self) -> None:
        self.is_in_head, self.head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self.is_in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        for piece in split(data):
            # A handshake hands the connection over to the WebSocket protocol.
            if self.transport.is_closing() or self.transport.get_protocol() is not self:
                return
            super().data_received(piece)
            if self.is_in_head:
                self.head_bytes += len(piece)
            is_too_long = self.is_in_head and self.head_bytes > MAX_HEAD_BYTES
            if is_too_long and self.is_idle():
                self.send_400_response(errors.HEAD_TOO_LARGE)
            elif is_too_long or len(self.pipeline) > MAX_PIPELINE:
                self.transport.abort()

    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def awaits_head(self) -> bool:
        # uvicorn has a timer of its own while nothing has come after an answer.
        return self.is_idle() and self.timeout_keep_alive_task is None
