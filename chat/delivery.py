"""Answers brought to wherever the socket of their session is; notices of those that other instances stored."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from uuid import UUID

from chat.frames import StoredAnswer
from chat.session import Session
from chat.session_rows import SessionRows
from chat.sessions import Sessions
from common.errors import DatabaseError
from common.logs import fields, session_hash
from common.tasks import TaskOwner
from database.notices import Notifier
from database.pool import Database

logger = logging.getLogger("gateway.delivery")

ANNOUNCE_TRIES = 3
RETRY_SECONDS = 1.0


class Delivery:
    """Hands an answer to the session's outbox if that is here, else notifies the instance where it is."""

    def __init__(
        self, instance_id: int, chatdb: Database, sessions: Sessions, rows: SessionRows, notifier: Notifier
    ) -> None:
        self._instance_id = instance_id
        self._chatdb = chatdb
        self._sessions = sessions
        self._rows = rows
        self._notifier = notifier
        self._tasks = TaskOwner("delivery")

    def is_here(self, instance_id: int | None) -> bool:
        return instance_id == self._instance_id

    async def deliver(
        self, session_id: UUID, stored: StoredAnswer, previous_at: datetime, instance_id: int | None
    ) -> None:
        """Sends an answer that was stored; `instance_id` says where the session's socket is, if it has one."""
        if not self.is_here(instance_id):
            if instance_id is not None:
                await self._notifier.notify(instance_id, session_id)
            return
        session = self._sessions.find(session_id)
        if session is not None:
            try:
                await session.outbox.deliver(stored, previous_at)
            except DatabaseError:
                self.look_at(session_id)

    async def show(self, session_id: UUID, unstored: StoredAnswer) -> datetime:
        """Sends an answer that cannot be stored yet; the time under which it is to be stored."""
        session = self._sessions.find(session_id)
        return await session.outbox.show(unstored) if session else unstored.created_at

    async def announce(self, session_id: UUID) -> None:
        """Has the instance where the session's socket is, if it has one, look for answers that it has not sent."""
        for _ in range(ANNOUNCE_TRIES):
            try:
                row = await self._chatdb.fetchrow("get_instance_id", session_id)
            except DatabaseError:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if row and self.is_here(row["instance_id"]):
                self.look_at(session_id)
            elif row and row["instance_id"] is not None:
                await self._notifier.notify(row["instance_id"], session_id)
            return
        logger.error("an answer could not be announced", extra=fields(session=session_hash(session_id)))

    def look_at(self, session_id: UUID) -> None:
        """Something may have been stored for a session that may be here."""
        session = self._sessions.find(session_id)
        if session is not None and not session.outbox.has_news:
            self._tasks.start(self._catch_up(session))

    async def _catch_up(self, session: Session) -> None:
        while session.socket.is_open:
            try:
                await session.outbox.catch_up()
                break
            except DatabaseError:
                await asyncio.sleep(RETRY_SECONDS)

    def look_around(self) -> None:
        """Notices may have been missed: something may have been stored for any session that is here."""
        self._tasks.start(self._look_around())

    async def _look_around(self) -> None:
        while True:
            try:
                for session_id in await self._rows.list_behind(self._sessions):
                    self.look_at(session_id)
                return
            except DatabaseError:
                await asyncio.sleep(RETRY_SECONDS)

    def watch(self, session_id: UUID, watcher: asyncio.Event) -> None:
        """Has the event set when the session is sent an answer next, if it is here."""
        session = self._sessions.find(session_id)
        if session is not None:
            session.outbox.watch(watcher)

    async def stop(self, within: float) -> None:
        await self._tasks.cancel(within)
