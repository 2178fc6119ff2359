"""What a session has been sent: each answer and push once, in the order of their times."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias
from uuid import UUID

from chat.frames import StoredAnswer
from chat.socket import Socket
from common import metrics
from common.close_codes import SUPERSEDED
from common.errors import OPENED_ELSEWHERE
from database.batches import BatchedQuery


class Unsent(NamedTuple):
    """Asks for the answers of a session that are stored after `sent_at`."""

    session_id: UUID
    sent_at: datetime


UnsentQuery: TypeAlias = BatchedQuery[Unsent]


class Outbox:
    """Everything stored up to `sent_at` has been sent.

    An answer comes with the time of the one before it. Where that is not `sent_at`, another instance stored something
    in between, and what is stored is read and sent. A notice, a resume and a reconnect are read in the same way.
    """

    __slots__ = ("_connection_no", "_lock", "_session_id", "_shown", "_socket", "_unsent", "_watchers",
                 "has_news", "sent_at")  # fmt: skip

    def __init__(
        self, socket: Socket, unsent: UnsentQuery, session_id: UUID, connection_no: int, sent_at: datetime
    ) -> None:
        self.sent_at = sent_at
        self._socket = socket
        self._unsent = unsent
        self._session_id = session_id
        self._connection_no = connection_no
        self._lock = asyncio.Lock()
        self.has_news = False  # something unsent may have been stored since the last read began
        self._shown: set[UUID] | None = None
        self._watchers: set[asyncio.Event] | None = None

    async def begin(self, first_frame: bytes, *, has_news: bool = False) -> None:
        """Sends the first frame, and then with news what is unsent; deliveries wait. Raises DatabaseError."""
        self.has_news = has_news
        async with self._lock:
            await self._socket.send(first_frame)
            await self._send_unsent()

    async def deliver(self, stored: StoredAnswer, previous_at: datetime) -> None:
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
        """Sends what is stored and was not sent. Raises DatabaseError."""
        if self.has_news:
            return  # the read that others wait for has not begun
        self.has_news = True
        async with self._lock:
            await self._send_unsent()

    async def _send_unsent(self) -> None:
        while self.has_news and self._socket.is_open:
            self.has_news = False
            rows = await self._unsent.put(Unsent(self._session_id, self.sent_at))
            if not rows or rows[0]["connection_no"] > self._connection_no:
                await self._socket.close(SUPERSEDED, OPENED_ELSEWHERE)
                return
            for row in rows:
                if row["id"] is not None:
                    await self._send_once(StoredAnswer.from_row(row))
                    metrics.caught_up.inc()
                    self.has_news = self.has_news or row["has_more"]

    async def show(self, unstored: StoredAnswer) -> datetime:
        """Sends an answer that could not be stored yet, and not again when it is; the time under which it was sent."""
        created_at = max(unstored.created_at, self.sent_at + timedelta(microseconds=1))
        self._shown = (self._shown or set()) | {unstored.chat_id}
        await self._socket.send(unstored._replace(created_at=created_at).to_frame())
        return created_at

    async def _send_once(self, stored: StoredAnswer) -> None:
        if self._shown and stored.chat_id in self._shown:
            self._shown.discard(stored.chat_id)
        else:
            await self._socket.send(stored.to_frame())
        self.sent_at = stored.created_at
        for watcher in self._watchers or ():
            watcher.set()
        self._watchers = None

    def watch(self, watcher: asyncio.Event) -> None:
        """Has the event set when something is sent next."""
        self._watchers = (self._watchers or set()) | {watcher}
