"""A reply in server-sent events: text as it is made, the tools that are used, and last the object of a plain reply."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import aiohttp
import orjson

from upstream.call import Sink
from upstream.replies import BYTE_ORDER_MARK, ReplyUnusable, read_object

# What is sent beside the text and the last object may be so many times as large as they.
OTHER_TIMES = 8


async def read_stream(read: Callable[[], Awaitable[bytes]], sink: Sink, max_bytes: int) -> dict[str, Any]:
    """The last object; what follows it is not read. Raises ReplyUnusable, also if the stream breaks off.

    `read` returns what has come, or nothing at the end.
    """
    events, text_left = Events(max_bytes), max_bytes
    try:
        while piece := await read():
            for data in events.feed(piece):
                try:
                    event = orjson.loads(data)
                except orjson.JSONDecodeError:
                    event = None
                if not isinstance(event, dict):
                    events.count(len(data))
                    continue
                if "answer" in event or "tool_response" in event:
                    return read_object(data)  # with its long integers
                if event.get("error") is not None:
                    raise ReplyUnusable("the server says that it failed")
                name, text = event.get("tool_name"), event.get("delta")
                if isinstance(name, str) and (name := name.replace("\0", "")):
                    sink.tool(name)
                text = text if isinstance(text, str) else ""
                text_bytes = len(text.encode())
                events.count(len(data) - text_bytes)
                text_left -= text_bytes
                if text_left < 0:
                    raise ReplyUnusable("the text is too large")
                if text := text.replace("\0", ""):
                    sink.delta(text)
    except (aiohttp.ClientError, OSError) as error:
        raise ReplyUnusable("the stream broke off") from error
    raise ReplyUnusable("the stream ended without its last object")


async def read_objects(response: aiohttp.ClientResponse, max_bytes: int) -> AsyncGenerator[dict[str, Any]]:
    """The objects in a reply of JSON or of events; what is none is passed over. Raises ReplyUnusable beyond a limit."""
    events, body = Events(max_bytes), bytearray()
    is_stream = response.content_type == "text/event-stream"
    while piece := await response.content.readany():
        for data in events.feed(piece) if is_stream else ():
            with suppress(ReplyUnusable):
                yield read_object(data)
            events.count(len(data))
        body += b"" if is_stream else piece
        if len(body) > max_bytes:
            raise ReplyUnusable("the reply is too large")
    with suppress(ReplyUnusable):
        yield read_object(bytes(body))


class Events:
    """The data of one stream's events, by WHATWG's rules. An event that the end of the stream cuts off is none."""

    def __init__(self, max_bytes: int) -> None:
        self._max_data = max_bytes
        self._max_line = len(b"data: ") + max_bytes
        self._other_left = OTHER_TIMES * max_bytes
        self._line: list[bytes] = []  # what has come of a line; joined once, when its end has come
        self._line_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._is_start = True
        self._is_after_return = False

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The data of each event that ends in this piece. Raises ReplyUnusable beyond a limit."""
        if not piece:
            return
        if self._is_after_return:
            piece = piece.removeprefix(b"\n")  # the second half of a CRLF
        self._is_after_return = piece.endswith(b"\r")
        for part in piece.splitlines(keepends=True):  # bytes are split at LF, CR and CRLF, and nowhere else
            line = part.rstrip(b"\r\n")
            self._line.append(line)
            self._line_bytes += len(line)
            if self._line_bytes > self._max_line:
                raise ReplyUnusable("a line is too long")
            if len(line) < len(part) and (data := self._end_line()) is not None:
                yield data

    def _end_line(self) -> bytes | None:
        """The data of the event that ends with this line, if one does."""
        line = b"".join(self._line)
        self._line, self._line_bytes = [], 0
        if self._is_start:
            self._is_start, line = False, line.removeprefix(BYTE_ORDER_MARK)
        name, _, value = line.partition(b":")
        if name == b"data":
            value = value.removeprefix(b" ")
            self._data_bytes += len(value) + bool(self._data)
            if self._data_bytes > self._max_data:
                raise ReplyUnusable("the data of an event is too large")
            self._data.append(value)
            return None
        self.count(len(line) + 1)
        if line or not self._data:
            return None
        data = b"\n".join(self._data)
        self._data, self._data_bytes = [], 0
        return data

    def count(self, other_bytes: int) -> None:
        """Counts what is sent beside the text and the last object. Raises ReplyUnusable if it is too much."""
        self._other_left -= other_bytes
        if self._other_left < 0:
            raise ReplyUnusable("too much is sent beside the answer")
