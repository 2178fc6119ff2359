"""Answers brought to wherever the socket of their session is; notices of those that other instances stored."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import asyncpg

from chat.frames import PlacedAnswer
from chat.session import Session
from chat.sessions import Sessions
from common.errors import DatabaseError
from common.tasks import TaskOwner
from database.notices import Notifier
from upstream.replies import Answer

RETRY_SECONDS = 1.0


@dataclass(eq=False)
class Delivery:
    """Hands an answer to its session if that is here, else notifies the instance where it is."""

    instance_id: int
    sessions: Sessions
    notifier: Notifier
    tasks: TaskOwner = field(default_factory=lambda: TaskOwner("delivery"))

    async def deliver(self, session_id: UUID, message_id: UUID, answer: Answer, stored: asyncpg.Record) -> None:
        """Sends an answer; `stored` is what store_answers returned for it."""
        if stored["instance_id"] != self.instance_id:
            if stored["instance_id"] is not None:
                await self.notifier.notify(stored["instance_id"], session_id)
        elif stored["created_at"] is None:
            # Another instance was first, or an attempt that had seemed to fail: what is stored is what is sent.
            self.look_at(session_id)
        elif session := self.sessions.find(session_id):
            try:
                sent = PlacedAnswer(stored["chat_id"], message_id, stored["created_at"], answer)
                await session.deliver(sent, stored["previous_at"])
            except DatabaseError:
                self.look_at(session_id)

    async def show(self, session_id: UUID, unstored: PlacedAnswer) -> datetime:
        """Sends an answer that cannot be stored yet; returns the time under which it is to be stored."""
        session = self.sessions.find(session_id)
        return await session.show(unstored) if session else unstored.created_at

    def look_at(self, session_id: UUID) -> None:
        """Something may have been stored for a session that may be here."""
        session = self.sessions.find(session_id)
        if session is not None and not session.has_news:
            self.tasks.start(self._catch_up(session))

    async def _catch_up(self, session: Session) -> None:
        while session.socket.is_open:
            try:
                await session.catch_up()
                break
            except DatabaseError:
                await asyncio.sleep(RETRY_SECONDS)

    async def look_around(self) -> None:
        """Looks at the sessions that are here, since notices may have been missed. Raises DatabaseError."""
        for session_id in await self.sessions.reclaim():
            self.look_at(session_id)

    def watch(self, session_id: UUID, watcher: asyncio.Event) -> Session | None:
        """The session, if it is here; the event is then set when its next answer is sent."""
        session = self.sessions.find(session_id)
        if session is not None:
            session.watch(watcher)
        return session
