"""The text so far of an answer that is being made, and how much of it somebody has been shown."""

import asyncio
import time
from dataclasses import dataclass, field
from uuid import UUID

import orjson

from chat.session import Session

MAX_TOOL_CHARS = 64


@dataclass(eq=False, slots=True)
class View:
    """How much a session that is here has been shown, or an instance until its lease ends."""

    session: Session | None = None
    attempt: int = 0
    offset: int = 0
    tool_name: str | None = None
    due: float = 0.0
    lease_ends: float = 0.0


@dataclass(eq=False, slots=True)
class Draft:
    """The text is kept as UTF-16: a visitor's browser counts its code units, and so do offsets.

    The `attempt` tells it from what an instance that was declared dead may still be making.
    """

    session_id: UUID
    message_id: UUID
    attempt: int
    is_open: bool = True
    is_shown: bool = False  # a task shows it
    has_news: asyncio.Event = field(default_factory=asyncio.Event)
    here: View | None = None
    there: dict[int, View] = field(default_factory=dict)  # by instance
    tool_name: str | None = None
    pieces: int = 0
    first_at: float = 0.0
    _units: bytearray = field(default_factory=bytearray)

    @property
    def length(self) -> int:
        return len(self._units) // 2

    def since(self, offset: int) -> str:
        return self._units[2 * offset :].decode("utf-16-le")

    def to_frame(self, type: str, **more: object) -> bytes:
        return orjson.dumps({"type": type, "message_id": str(self.message_id), "attempt": self.attempt, **more})

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
