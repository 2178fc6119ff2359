"""Answers in pieces: what the LLM server sends, and what a front end makes of the frames."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode

from tests.support.backends import Call, Receive, Send, event
from tests.support.background import background
from tests.support.chat import Frame, Visitor, visit
from tests.support.gateway import Gateway
from tests.support.keys import key_of, protocols
from tests.support.waiting import become

STOPPED = "답변이 중지되었습니다."
TEXT = "도담카드는 연회비가 없습니다. 😀 커피 10% 할인."


def delta(text: str) -> bytes:
    """An event with some text."""
    return event({"delta": text})


def last(text: str) -> bytes:
    """The event with the last object."""
    return event({"answer": text, "tool_response": None})


def pieces(text: str = TEXT, pause: float = 0.02) -> list[bytes | float]:
    """A stream of one event for each character, and the last object."""
    out: list[bytes | float] = []
    for character in text:
        out += [delta(character), pause]
    return [*out, last(text)]


def units(text: str) -> int:
    """The length of a text in a browser."""
    return len(text.encode("utf-16-le")) // 2


class Reader:
    """What a front end has of the answers: the text of each by the rule of attempts and offsets.

    It demands of every frame what holds everywhere: nothing of a prompt comes after its answer, no delta leaves a gap,
    and each attempt begins with its start.
    """

    def __init__(self, visitor: Visitor) -> None:
        self.visitor = visitor
        self.frames: list[Frame] = []
        self.times: list[float] = []
        self.answers: dict[str, Frame] = {}
        self._made: dict[str, tuple[int, str]] = {}
        self._started: set[tuple[str, int]] = set()

    def text(self, message_id: str | None = None) -> str:
        """The text so far of the answer to a prompt, by default the last of which something was seen."""
        key = message_id or next(reversed(self._made), "")
        return self._made.get(key, (0, ""))[1]

    @property
    def kinds(self) -> list[str]:
        """What the frames were, an answer being one."""
        return [frame.get("type", "answer" if "sender" in frame else "other") for frame in self.frames]

    def of_type(self, kind: str) -> list[Frame]:
        """The frames of a type."""
        return [frame for frame in self.frames if frame.get("type") == kind]

    async def next(self) -> Frame:
        """The next frame."""
        frame = await self.visitor.receive()
        self.frames.append(frame)
        self.times.append(time.monotonic())
        message_id = frame.get("message_id", "")
        if "sender" in frame:
            self.answers[message_id] = frame
        elif "type" in frame:
            assert message_id not in self.answers, f"after its answer: {frame}"
            self._take(message_id, frame)
        return frame

    def _take(self, message_id: str, frame: Frame) -> None:
        attempt, text = self._made.get(message_id, (0, ""))
        if frame["attempt"] > attempt:
            attempt, text = frame["attempt"], ""
        if frame["type"] == "start":
            self._started.add((message_id, frame["attempt"]))
        assert (message_id, frame["attempt"]) in self._started, f"before its start: {frame}"
        if frame["type"] == "delta" and frame["attempt"] == attempt:
            before = text.encode("utf-16-le")
            assert 2 * frame["offset"] <= len(before), f"a gap: {frame['offset']} of {units(text)}"
            text = (before[: 2 * frame["offset"]] + frame["text"].encode("utf-16-le")).decode("utf-16-le")
        self._made[message_id] = (attempt, text)

    async def until_answer(self) -> Frame:
        """The next answer."""
        while "sender" not in (frame := await self.next()):
            pass
        return frame

    async def until(self, check: Callable[[], object]) -> None:
        """Read until something holds."""
        while not check():
            await self.next()

    async def until_text(self, text: str | None = None, message_id: str | None = None) -> str:
        """Read until there is some text, or this one."""
        await self.until(lambda: self.text(message_id) == text if text else self.text(message_id))
        return self.text(message_id)


@asynccontextmanager
async def watching(gateway: Gateway, session_id: str | None = None, since: str = "") -> AsyncIterator[Reader]:
    """A socket that has opted in, of a new session or of one that is resumed."""
    more = ({"session_id": session_id} if session_id else {}) | ({"since": since} if since else {})
    options = {"subprotocols": protocols(key_of(session_id))} if session_id else {}
    async with visit(gateway, query=urlencode({"stream": "true"} | more), **options) as visitor:
        assert visitor.hello["stream"] is True
        if session_id:
            assert visitor.hello == {"session_id": session_id, "resumed": True, "stream": True}
        yield Reader(visitor)


@dataclass
class Tap:
    """A reply in events that the test writes while it is being read: `send` bytes, `end` it."""

    seen: list[Call] = field(default_factory=list)
    _queue: "asyncio.Queue[bytes | None]" = field(default_factory=asyncio.Queue)

    async def serve(self, call: Call, receive: Receive, send: Send) -> None:
        """Pass on what comes until the end, or until the caller goes."""
        self.seen.append(call)
        gone = asyncio.create_task(self._gone(call, receive))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        while True:
            getting = asyncio.create_task(self._queue.get())
            await asyncio.wait([getting, gone], return_when=asyncio.FIRST_COMPLETED)
            if not getting.done() or (piece := getting.result()) is None:
                getting.cancel()
                break
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if gone.done():
            call.abandoned = True
        else:
            gone.cancel()
            await send({"type": "http.response.body", "body": b""})

    async def _gone(self, call: Call, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        call.abandoned_at = time.monotonic()

    def send(self, *pieces: bytes) -> None:
        """Send in one packet."""
        background.call(self._queue.put_nowait, b"".join(pieces))

    def end(self, text: str | None = None) -> None:
        """End the stream, with this answer or without one."""
        if text is not None:
            self.send(last(text))
        background.call(self._queue.put_nowait, None)

    async def called(self) -> None:
        """Wait until it is asked."""
        await become(lambda: self.seen, what="it is asked")

    async def abandoned(self, times: int = 1) -> None:
        """Wait until the caller has gone."""
        await become(lambda: sum(call.abandoned for call in self.seen) >= times, what="the call was abandoned")
