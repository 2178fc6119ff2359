"""The sessions whose sockets are on this instance: opened, resumed, superseded, left."""

import asyncio
import time
from contextlib import suppress
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

import orjson
from starlette.websockets import WebSocket

from chat.keys import new_key, shows_key
from chat.session import Session
from chat.socket import CLOSE_SECONDS, Socket
from common import errors, metrics
from common.ids import new_uuid, read_uuid
from common.tasks import TaskOwner
from database.notices import Notifier
from database.pool import Database
from database.shared import BatchedStatement
from settings import Settings

RETRY_SECONDS = 5.0
MAX_READ = 50  # sessions; what is read of each may be ten times MAX_REPLY_BYTES
Hello: TypeAlias = dict[str, object]  # the first frame


class Sessions:
    """The sessions by id, and their rows in ChatDB."""

    def __init__(self, settings: Settings, instance_id: int, chatdb: Database, notifier: Notifier) -> None:
        self._settings = settings
        self._instance_id = instance_id
        self._chatdb = chatdb
        self._notifier = notifier
        self._open_sessions = BatchedStatement(chatdb, "open_sessions", apart="session_id")
        self._end_sessions = BatchedStatement(chatdb, "end_sessions", apart="session_id")
        self._list_unsent = BatchedStatement(chatdb, "list_unsent_answers", apart="session_id", max_rows=MAX_READ)
        self._here: dict[UUID, Session] = {}
        self._opening = 0
        self._left = asyncio.Event()
        self._tasks = TaskOwner("sessions")

    def __len__(self) -> int:
        return len(self._here) + self._opening

    def find(self, session_id: UUID) -> Session | None:
        return self._here.get(session_id)

    async def open(
        self, websocket: WebSocket, requested: str | None, since: datetime | None, *, streams: bool
    ) -> Session:
        """Opens a new session, or resumes the requested one, and sends the first frame. Raises DatabaseError."""
        id = read_uuid(requested)
        hello: Hello = {"stream": True} if streams else {}
        self._opening += 1
        try:
            session = await self._resume(websocket, id, since, hello) if id else None
            return session or await self._open_new(websocket, hello | ({"resumed": False} if requested else {}))
        finally:
            self._opening -= 1

    async def _open_new(self, websocket: WebSocket, hello: Hello) -> Session:
        id, (key, key_hash) = new_uuid(), new_key()
        row = {"session_id": id, "instance_id": self._instance_id, "key_hash": key_hash}
        (opened,) = await self._open_sessions.put(row)
        session = self._here[id] = self._make(websocket, id, 0, opened["last_answer_at"])
        metrics.sessions_opened.labels("new").inc()
        await session.begin(orjson.dumps({"session_id": str(id), "key": key} | hello))
        return session

    async def _resume(self, websocket: WebSocket, id: UUID, since: datetime | None, hello: Hello) -> Session | None:
        if not await shows_key(websocket, id, self._chatdb):
            return None
        row = await self._chatdb.fetchrow("resume_session", id, self._instance_id, self._settings.resume_hours)
        if not row:
            return None
        # A time in the future would make the answers until then look as if they had been sent.
        sent_at = min(since or row["last_answer_at"], row["last_answer_at"])
        session = self._make(websocket, id, row["connection_no"], sent_at)
        session.prompts.count(time.monotonic(), row["prompts"])
        self._put_in_place(session, row["instance_before"])
        metrics.sessions_opened.labels("resumed").inc()
        try:
            await session.begin(orjson.dumps({"session_id": str(id), "resumed": True} | hello), has_news=True)
        except BaseException:
            self.leave(session)
            raise
        return session

    def _make(self, websocket: WebSocket, id: UUID, connection_no: int, sent_at: datetime) -> Session:
        socket = Socket(websocket, id, self._settings.send_timeout)
        return Session(id, connection_no, socket, sent_at, self._list_unsent)

    def _put_in_place(self, session: Session, instance_before: int | None) -> None:
        """Closes the older sockets of a resumed session, here and elsewhere; of two at once the newer stays."""
        older = self._here.get(session.id)
        if older is not None and older.connection_no > session.connection_no:
            older = session
        else:
            self._here[session.id] = session
        if older is not None:
            self._tasks.start(older.socket.close(errors.SUPERSEDED, errors.OPENED_ELSEWHERE))
        if instance_before is not None and instance_before != self._instance_id:
            self._tasks.start(self._notifier.notify(instance_before, session.id))

    def leave(self, session: Session) -> bool:
        """Ends a session whose socket is gone. False if another socket here has taken it over."""
        session.socket.is_open = False
        if self._here.get(session.id) is not session:
            return False
        del self._here[session.id]
        self._left.set()
        self._tasks.start(self._end(session))
        return True

    async def _end(self, session: Session) -> None:
        while True:
            with suppress(errors.DatabaseError):
                await self._end_sessions.put({"session_id": session.id, "connection_no": session.connection_no})
                return
            await asyncio.sleep(RETRY_SECONDS)

    async def reclaim(self) -> list[UUID]:
        """Takes back sessions that the others had ended; returns those with unsent answers or a newer socket.

        Raises DatabaseError.
        """
        sessions = list(self._here.values())
        here = [(session.id, session.connection_no, session.sent_at) for session in sessions]
        columns = [list(column) for column in zip(*here, strict=True)] or [[], [], []]
        rows = await self._chatdb.fetch("reclaim_sessions", self._instance_id, *columns)
        for session in sessions:
            if not session.socket.is_open:  # it may have been taken back after it had left
                self._tasks.start(self._end(session))
        return [row["session_id"] for row in rows]

    async def close_all(self) -> None:
        """Closes every socket because the instance stops, and waits until they are gone, a few seconds at most."""
        here = list(self._here.values())
        await asyncio.gather(*(session.socket.close(errors.SERVICE_RESTART, errors.RESTARTING) for session in here))
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                while self._here:
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            for session in here:
                session.socket.drop()

    async def stop(self) -> None:
        """Gives the ends of sessions a moment to be stored; the other instances end the rest."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._tasks.wait()
        await self._tasks.cancel(CLOSE_SECONDS)
