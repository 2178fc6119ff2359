"""A reply in events: text as it is made, the tools that are used, and last the object that a plain reply is."""

from collections.abc import AsyncIterable
from typing import Any

import httpx
import orjson

from upstream.call import Sink
from upstream.events import Events
from upstream.replies import ReplyUnusable


class StreamedReply:
    def __init__(self, sink: Sink, max_bytes: int) -> None:
        self._sink = sink
        self._events = Events(max_bytes)
        self._text_left = max_bytes

    async def read(self, pieces: AsyncIterable[bytes]) -> dict[str, Any]:
        """The last object; what follows it is not read. Raises ReplyUnusable, also if the stream breaks off."""
        try:
            async for piece in pieces:
                for data in self._events.feed(piece):
                    last = self._take(data)
                    if last is not None:
                        return last
        except httpx.TransportError as error:
            raise ReplyUnusable("the stream broke off") from error
        raise ReplyUnusable("the stream ended without its last object")

    def _take(self, data: bytes) -> dict[str, Any] | None:
        """Hands on what is in an event, or returns the last object."""
        try:
            event = orjson.loads(data)
        except orjson.JSONDecodeError:
            event = None
        if not isinstance(event, dict):
            self._events.count(len(data))
            return None
        if "answer" in event or "tool_response" in event:
            return event
        if event.get("error") is not None:
            raise ReplyUnusable("the server says that it failed")
        name, text = event.get("tool_name"), event.get("delta")
        if isinstance(name, str) and (name := name.replace("\0", "")):
            self._sink.tool(name)
        text_bytes = len(text.encode()) if isinstance(text, str) else 0
        self._events.count(len(data) - text_bytes)
        self._text_left -= text_bytes
        if self._text_left < 0:
            raise ReplyUnusable("the text is too large")
        if isinstance(text, str) and (text := text.replace("\0", "")):
            self._sink.delta(text)
        return None
