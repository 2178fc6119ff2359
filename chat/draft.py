"""The text so far of an answer that is being made, and how much of it somebody has been shown."""

import asyncio
import time
from uuid import UUID

from chat.session import Session

MAX_TOOL_CHARS = 64


class View:
    """How much a session that is here has been shown, or an instance until its lease ends."""

    __slots__ = ("attempt", "due", "lease_ends", "offset", "session", "tool_name")

    def __init__(self, session: Session | None = None) -> None:
        self.session = session
        self.attempt = self.offset = 0
        self.tool_name: str | None = None
        self.due = self.lease_ends = 0.0


class Draft:
    """The text is kept as UTF-16: a visitor's browser counts its code units, and so do offsets.

    The `attempt` tells it from what an instance that was declared dead may still be making.
    """

    __slots__ = ("_units", "attempt", "first_at", "has_news", "here", "is_open", "is_shown", "message_id", "pieces",
                 "session_id", "there", "tool_name")  # fmt: skip

    def __init__(self, session_id: UUID, message_id: UUID, attempt: int) -> None:
        self.session_id = session_id
        self.message_id = message_id
        self.attempt = attempt
        self.is_open = True
        self.is_shown = False  # a task shows it
        self.has_news = asyncio.Event()
        self.here: View | None = None
        self.there: dict[int, View] = {}  # by instance
        self.tool_name: str | None = None
        self.pieces = 0
        self.first_at = 0.0
        self._units = bytearray()

    @property
    def length(self) -> int:
        return len(self._units) // 2

    def since(self, offset: int) -> str:
        return self._units[2 * offset :].decode("utf-16-le")

    def delta(self, text: str) -> None:
        """Adds what the LLM server made."""
        self.first_at = self.first_at or time.perf_counter()
        self.pieces += 1
        self._units += text.encode("utf-16-le")
        self.has_news.set()

    def tool(self, name: str) -> None:
        self.tool_name = name[:MAX_TOOL_CHARS]
        self.has_news.set()

    def mirror(self, attempt: int, offset: int, text: str, tool_name: str | None) -> None:
        """Adds a piece from the instance that makes the answer; nothing if what comes before it is missing."""
        if attempt > self.attempt:
            self.attempt, self.tool_name, self._units = attempt, None, bytearray()
        units = text.encode("utf-16-le")
        if attempt == self.attempt and offset <= self.length <= offset + len(units) // 2:
            self._units[2 * offset :] = units
            self.tool_name = tool_name
            self.has_news.set()

    def is_news_to(self, view: View) -> bool:
        return view.attempt != self.attempt or view.offset < self.length or view.tool_name != self.tool_name

    def close(self) -> None:
        self.is_open = False
        self.has_news.set()
