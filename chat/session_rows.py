"""What stands about sessions in ChatDB: which instance holds their socket, and when they ended."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from chat.session import Session
from common.errors import DatabaseError
from database.batches import BatchedStatement
from database.pool import Database
from settings import Settings


class Opening(NamedTuple):
    """A new session."""

    session_id: UUID
    instance_id: int


class Ending(NamedTuple):
    """A session whose socket of a number is gone."""

    session_id: UUID
    connection_no: int


class SessionRows:
    """Owns the ends of sessions that could not be stored yet."""

    def __init__(self, settings: Settings, instance_id: int, chatdb: Database) -> None:
        self._resume_hours = settings.resume_hours
        self._max_unended = settings.max_sessions
        self._instance_id = instance_id
        self._chatdb = chatdb
        self._opened = BatchedStatement(chatdb, "open_sessions", Opening, apart="session_id")
        self._ended = BatchedStatement(chatdb, "end_sessions", Ending, apart="session_id")
        self._unended: set[Ending] = set()

    async def open(self, session_id: UUID) -> datetime:
        """Stores a new session; the time from which its answers count. Raises DatabaseError."""
        row = await self._opened.put(Opening(session_id, self._instance_id))
        if row is None:
            raise DatabaseError
        opened_at: datetime = row["last_answer_at"]
        return opened_at

    async def resume(self, session_id: UUID) -> asyncpg.Record | None:
        """Gives a session to a new socket here: what resume_session returns, None if it cannot be resumed.

        Raises DatabaseError.
        """
        return await self._chatdb.fetchrow("resume_session", session_id, self._instance_id, self._resume_hours)

    async def end(self, session: Session) -> None:
        """Notes that a session's socket is gone, now or when the database can."""
        ending = Ending(session.id, session.connection_no)
        try:
            await self._ended.put(ending)
        except DatabaseError:
            if len(self._unended) < self._max_unended:
                self._unended.add(ending)

    async def end_left_over(self) -> None:
        """Ends sessions whose end could not be stored when they left. Raises DatabaseError."""
        if self._unended:
            ending = list(self._unended)
            await self._chatdb.fetch("end_sessions", *map(list, zip(*ending, strict=True)))
            self._unended.difference_update(ending)

    async def list_behind(self, sessions: Iterable[Session]) -> list[UUID]:
        """Those that may have been superseded, or have answers that were not sent. Raises DatabaseError."""
        here = [(session.id, session.connection_no, session.outbox.sent_at) for session in sessions]
        if not here:
            return []
        rows = await self._chatdb.fetch("list_sessions_behind", *map(list, zip(*here, strict=True)))
        return [row["session_id"] for row in rows]

    async def reclaim(self, sessions: Iterable[Session]) -> None:
        """Takes back what is still this instance's own after the others declared it dead. Raises DatabaseError."""
        here = [(session.id, session.connection_no) for session in sessions]
        if here:
            await self._chatdb.fetch("reclaim_sessions", self._instance_id, *map(list, zip(*here, strict=True)))
