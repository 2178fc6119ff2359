"""The sessions whose sockets are on this instance: opened, resumed, superseded, left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from starlette.websockets import WebSocket

from chat.outbox import Outbox, Unsent
from chat.session import Session
from chat.session_rows import SessionRows
from chat.socket import CLOSE_SECONDS, Socket
from common import close_codes, errors, metrics
from common.ids import new_uuid, read_uuid
from common.limits import Window
from common.tasks import TaskOwner
from database.batches import BatchedQuery
from database.notices import Notifier
from database.pool import Database

WINDOW_SECONDS = 60.0  # in which prompts are counted


class Sessions:
    """The sessions of this instance by id."""

    def __init__(
        self, instance_id: int, chatdb: Database, rows: SessionRows, notifier: Notifier, send_timeout: float
    ) -> None:
        self._instance_id = instance_id
        self._rows = rows
        self._notifier = notifier
        self._send_timeout = send_timeout
        self._unsent = BatchedQuery(chatdb, "list_unsent_answers", Unsent, apart="session_id")
        self._here: dict[UUID, Session] = {}
        self._opening = 0
        self._left = asyncio.Event()
        self._tasks = TaskOwner("sessions")

    def __len__(self) -> int:
        return len(self._here) + self._opening

    def __iter__(self) -> Iterator[Session]:
        return iter(self._here.values())

    def find(self, session_id: UUID) -> Session | None:
        return self._here.get(session_id)

    async def open(self, websocket: WebSocket, requested: str | None, since: datetime | None) -> Session:
        """Opens a new session, or resumes the requested one, and sends the first frame. Raises DatabaseError."""
        self._opening += 1
        try:
            session = await self._resume(websocket, requested, since) if requested else None
            return session or await self._open_new(websocket, is_resume_refused=bool(requested))
        finally:
            self._opening -= 1

    async def _open_new(self, websocket: WebSocket, is_resume_refused: bool) -> Session:
        id = new_uuid()
        session = self._here[id] = self._make(websocket, id, 0, await self._rows.open(id), prompts=0)
        metrics.sessions_opened.labels("new").inc()
        hello: dict[str, Any] = {"session_id": str(id)}
        if is_resume_refused:
            hello["resumed"] = False
        await session.outbox.begin(orjson.dumps(hello))
        return session

    async def _resume(self, websocket: WebSocket, requested: str, since: datetime | None) -> Session | None:
        id = read_uuid(requested)
        row = id and await self._rows.resume(id)
        if not id or not row:
            return None
        # A time in the future would make the answers until then look as if they had been sent.
        sent_at = min(since or row["last_answer_at"], row["last_answer_at"])
        session = self._make(websocket, id, row["connection_no"], sent_at, row["prompts"])
        self._put_in_place(session, row["instance_before"])
        metrics.sessions_opened.labels("resumed").inc()
        try:
            await session.outbox.begin(orjson.dumps({"session_id": str(id), "resumed": True}), has_news=True)
        except BaseException:
            self.leave(session)
            raise
        return session

    def _make(self, websocket: WebSocket, id: UUID, connection_no: int, sent_at: datetime, prompts: int) -> Session:
        socket = Socket(websocket, id, self._send_timeout)
        outbox = Outbox(socket, self._unsent, id, connection_no, sent_at)
        window = Window(WINDOW_SECONDS)
        window.count(time.monotonic(), prompts)
        return Session(id, connection_no, socket, outbox, window)

    def _put_in_place(self, session: Session, instance_before: int | None) -> None:
        """Closes the older sockets of a resumed session, here and elsewhere; of two at once the newer stays."""
        older = self._here.get(session.id)
        if older is not None and older.connection_no > session.connection_no:
            older = session
        else:
            self._here[session.id] = session
        if older is not None:
            self._tasks.start(older.socket.close(close_codes.SUPERSEDED, errors.OPENED_ELSEWHERE))
        if instance_before not in (None, self._instance_id):
            self._tasks.start(self._notifier.notify(instance_before, session.id))

    def leave(self, session: Session) -> bool:
        """Ends a session whose socket is gone. False if another socket here has taken it over."""
        session.socket.is_open = False
        if self._here.get(session.id) is not session:
            return False
        del self._here[session.id]
        self._left.set()
        self._tasks.start(self._rows.end(session))
        return True

    async def close_all(self) -> None:
        """Closes every socket because the instance stops, and waits until they are gone, a few seconds at most."""
        closing = [session.socket.close(close_codes.RESTARTING, errors.RESTARTING) for session in self]
        await asyncio.gather(*closing)
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                while self._here:
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            for session in list(self):
                session.socket.drop()

    async def stop(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._tasks.wait()
        except TimeoutError:
            await self._tasks.cancel(CLOSE_SECONDS)
