"""A session whose socket is on this instance: each answer and push is sent once, in the order of their times."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from chat.frames import PlacedAnswer
from chat.socket import Socket
from common import metrics
from common.errors import OPENED_ELSEWHERE, SUPERSEDED
from common.limits import MINUTE, Window
from database.shared import BatchedStatement

REMEMBERED = 8  # answers, of which no draft may be shown any more


@dataclass(eq=False, slots=True)
class Session:
    """Everything stored up to `sent_at` has been sent.

    An answer comes with the time of the one before it. Where that is not `sent_at`, another instance stored something
    in between, and what is stored is read and sent. A notice, a resume and a reconnect are read in the same way.
    `connection_no` counts how often the session was resumed, `prompts` those of the last minute. `shown_at` is the time
    of the last answer that was sent before it was stored.
    """

    id: UUID
    connection_no: int
    socket: Socket
    sent_at: datetime
    list_unsent: BatchedStatement
    shown_at: datetime | None = None
    prompts: Window = field(default_factory=lambda: Window(MINUTE))
    answered: tuple[UUID, ...] = ()  # the last prompts and pushes that were sent
    wants_drafts: bool = False
    has_news: bool = False  # something unsent may have been stored since the last read began
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _shown: frozenset[UUID] = frozenset()
    _watchers: frozenset[asyncio.Event] = frozenset()

    async def begin(self, first_frame: bytes, *, has_news: bool = False) -> None:
        """Sends the first frame and, if there is news, what is unsent; deliveries wait. Raises DatabaseError."""
        self.has_news = has_news
        async with self._lock:
            await self.socket.send(first_frame)
            await self._send_unsent()

    async def deliver(self, stored: PlacedAnswer, previous_at: datetime) -> None:
        """Sends an answer, after whatever was stored before it. Raises DatabaseError."""
        async with self._lock:
            if stored.created_at <= self.sent_at:
                return
            if previous_at == self.sent_at:
                await self._send_once(stored)
            else:
                self.has_news = True
                await self._send_unsent()

    async def catch_up(self) -> None:
        """Sends what is stored and has not been sent. Raises DatabaseError."""
        if self.has_news:
            return  # a read that has yet to begin will see it
        self.has_news = True
        async with self._lock:
            await self._send_unsent()

    async def _send_unsent(self) -> None:
        while self.has_news and self.socket.is_open:
            self.has_news = False
            rows = await self.list_unsent.put({"session_id": self.id, "sent_at": self.sent_at})
            if not rows or rows[0]["connection_no"] > self.connection_no:
                await self.socket.close(SUPERSEDED, OPENED_ELSEWHERE)
                return
            for row in rows:
                if row["id"] is not None:
                    await self._send_once(PlacedAnswer.from_row(row))
                    metrics.caught_up.inc()
                    self.has_news = self.has_news or row["has_more"]

    async def show(self, unstored: PlacedAnswer) -> datetime:
        """Sends an answer that is not stored yet, and not again once it is; returns its time."""
        self.shown_at = created_at = max(unstored.created_at, self.sent_at + timedelta(microseconds=1))
        self._shown |= {unstored.id}
        self.answered = (*self.answered[1 - REMEMBERED :], unstored.message_id)
        await self.socket.send(unstored._replace(created_at=created_at).to_frame())
        return created_at

    async def _send_once(self, stored: PlacedAnswer) -> None:
        self.answered = (*self.answered[1 - REMEMBERED :], stored.message_id)
        if stored.id in self._shown:
            self._shown -= {stored.id}
        else:
            await self.socket.send(stored.to_frame())
        self.sent_at = stored.created_at
        for watcher in self._watchers:
            watcher.set()
        self._watchers = frozenset()

    def watch(self, watcher: asyncio.Event) -> None:
        """Sets the event when the next answer is sent."""
        self._watchers |= {watcher}
