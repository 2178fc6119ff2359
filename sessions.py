"""The sessions whose sockets are on this instance, and word to the instances that hold the others."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import asyncpg
import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

import metrics
from database import Database, SharedStatement
from errors import DatabaseError, Refused
from logs import fields, session_hash
from payloads import new_uuid, read_uuid
from settings import Settings
from tasks import TaskOwner
from upstream.replies import LISTS, Answer

logger = logging.getLogger("gateway.sessions")

TAKEN_OVER, TAKEN_OVER_REASON = 4001, "The session was opened elsewhere"
RESTART = 1012
# So many answers of so many sessions are read at a time; each may be as large as MAX_REPLY_BYTES.
REPLAY_ROWS = 10
REPLAY_SESSIONS = 50
TELL_TRIES = 3
RETRY_SECONDS = 1.0
CLOSE_SECONDS = 2.0
WINDOW_SECONDS = 60.0  # in which prompts are counted


def answer_frame(message_id: UUID, created_at: datetime, answer: Answer) -> bytes:
    """The frame of an answer or a push."""
    frame: dict[str, Any] = {
        "sender": "bot",
        "timestamp": created_at.isoformat(timespec="microseconds"),
        "message_id": str(message_id),
        "message": answer.message,
        **answer.payload,
    }
    if answer.tool_name is not None:
        frame["tool_name"] = answer.tool_name
    return orjson.dumps(frame)


def stored_answer(row: asyncpg.Record) -> Answer:
    """The answer in a row that has `content`, `source_tool` and `payload`."""
    payload = orjson.loads(row["payload"]) if row["payload"] else None
    values = payload if isinstance(payload, dict) else {}
    kept = {name: values[name] for name in LISTS if isinstance(values.get(name), list)}
    return Answer(row["content"], row["source_tool"], {"login_required": values.get("login_required") is True} | kept)


class Session:
    """A socket on this instance. Answers and pushes leave it in the order of their times, each once.

    `last_sent` is the time of the last answer the visitor was sent. Each answer comes with the time of the one before
    it, and when that is not `last_sent`, another instance made something in between, which is read and sent first.
    """

    __slots__ = (
        "_is_behind", "_send_timeout", "_transport", "_websocket",
        "close_reason", "connection_no", "id", "is_open", "last_sent", "lock", "prompts", "shown", "window_ends",
    )  # fmt: skip

    def __init__(
        self, websocket: WebSocket, id: UUID, connection_no: int, last_sent: datetime, send_timeout: float
    ) -> None:
        self.id = id
        self.connection_no = connection_no
        self.last_sent = last_sent
        self.is_open = True
        self.window_ends = 0.0
        self.prompts = 0
        self._websocket = websocket
        self._transport = websocket.scope.get("gateway.transport")
        self._send_timeout = send_timeout
        self.lock = asyncio.Lock()
        self._is_behind = False
        self.shown: set[UUID] | None = None
        self.close_reason: str | None = None

    async def send(self, frame: bytes) -> None:
        """Sends a frame, or drops the connection if the visitor does not read; never raises for a visitor who left."""
        if not self.is_open:
            return
        message = {"type": "websocket.send", "text": frame.decode()}
        try:
            if self._transport is not None and not self._transport.get_write_buffer_size():
                await self._websocket.send(message)  # with nothing in its way it does not wait
                return
            async with asyncio.timeout(self._send_timeout):
                await self._websocket.send(message)
        except TimeoutError:
            logger.warning("session dropped: it does not read", extra=fields(session=session_hash(self.id)))
            self.drop()
        except (RuntimeError, WebSocketDisconnect, OSError):
            self.is_open = False

    async def refuse(self, refused: Refused) -> None:
        """Answers a frame with an error."""
        metrics.prompts.labels(refused.reason).inc()
        about = fields(session=session_hash(self.id), message_id=refused.message_id, reason=refused.reason)
        logger.info("prompt refused", extra=about)
        frame = {"error": refused.text}
        if refused.message_id is not None:
            frame["message_id"] = str(refused.message_id)
        await self.send(orjson.dumps(frame))

    async def close(self, code: int, reason: str) -> None:
        """Closes the socket, by force if the visitor does not let it be closed."""
        self.is_open = False
        self.close_reason = reason
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._websocket.close(code, reason)
        except TimeoutError:
            self.drop()
        except (RuntimeError, WebSocketDisconnect, OSError):
            pass

    def drop(self) -> None:
        """Cuts the connection at once; what is buffered for it is thrown away."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    async def deliver(self, stored: asyncpg.Record, chat_id: UUID, frame: bytes) -> bool:
        """Sends an answer if it is the next one. False if another has to be read and sent before it."""
        async with self.lock:
            if stored["created_at"] > self.last_sent:
                if stored["previous_at"] != self.last_sent:
                    return False
                await self._send_once(chat_id, frame)
                self.last_sent = stored["created_at"]
        return True

    async def show(self, chat_id: UUID, frame: bytes) -> None:
        """Sends an answer that could not be stored yet; when it is, it is not sent again."""
        self.shown = (self.shown or set()) | {chat_id}
        await self.send(frame)

    async def _send_once(self, chat_id: UUID, frame: bytes) -> None:
        if self.shown and chat_id in self.shown:
            self.shown.discard(chat_id)
        else:
            await self.send(frame)

    async def catch_up(self, chatdb: Database, watcher: TurnWatcher, rows: list[asyncpg.Record] | None) -> None:
        """Sends `rows`, the first answers after `last_sent`, and everything stored after them. Raises DatabaseError."""
        if self.lock.locked():  # then there may be more of them when it is free
            if self._is_behind:
                return
            self._is_behind, rows = True, None
        async with self.lock:
            if rows is None:
                self._is_behind = False
            await self.replay(chatdb, watcher, rows)

    async def replay(self, chatdb: Database, watcher: TurnWatcher, rows: list[asyncpg.Record] | None = None) -> None:
        """The same for who holds the lock."""
        while self.is_open:
            if rows is None:
                rows = await chatdb.fetch("list_answers_since", [self.id], [self.last_sent], REPLAY_ROWS)
            for row in rows:
                if row["id"] is not None and row["created_at"] > self.last_sent:
                    frame = answer_frame(row["message_id"], row["created_at"], stored_answer(row))
                    await self._send_once(row["id"], frame)
                    self.last_sent = row["created_at"]
                    watcher.see(row["message_id"])
                    metrics.caught_up.inc()
            if len(rows) < REPLAY_ROWS:
                return
            rows = None


class TurnWatcher(Protocol):
    """Who wants to know what sessions learn of turns that other instances answer."""

    async def follow(self, session_id: UUID) -> None:
        """A session was resumed here. Raises DatabaseError."""

    def see(self, message_id: UUID) -> None:
        """An answer that was made elsewhere has been sent."""

    def unfollow(self, session_id: UUID) -> None:
        """A session left."""


class Sessions:
    """The sessions of this instance by id, and what stands about all sessions in ChatDB."""

    def __init__(self, settings: Settings, chatdb: Database) -> None:
        self.instance_id = 0
        self.watcher: TurnWatcher
        self._settings = settings
        self._chatdb = chatdb
        self._here: dict[UUID, Session] = {}
        self._opening = 0
        self._opened = SharedStatement(chatdb, "open_sessions")
        self._ended = SharedStatement(chatdb, "end_sessions")
        self._told = SharedStatement(chatdb, "notify_instances")
        self._unended: set[tuple[UUID, int]] = set()
        self._touched: set[UUID] = set()
        self._woken = asyncio.Event()
        self._left = asyncio.Event()
        self._tasks = TaskOwner("sessions")

    def __len__(self) -> int:
        return len(self._here) + self._opening

    async def open(self, websocket: WebSocket, requested: str | None, since: datetime | None) -> Session:
        """Opens a new session, or goes on with the requested one, and sends the first frame. Raises DatabaseError."""
        self._opening += 1
        try:
            session = await self._resume(websocket, requested, since) if requested else None
            return session or await self._open_new(websocket, is_resume_refused=bool(requested))
        finally:
            self._opening -= 1

    async def _open_new(self, websocket: WebSocket, is_resume_refused: bool) -> Session:
        id = new_uuid()
        row = await self._opened.put(id, self.instance_id)
        if row is None:
            raise DatabaseError
        session = self._here[id] = Session(websocket, id, 0, row["last_answer_at"], self._settings.send_timeout)
        metrics.sessions_opened.labels("new").inc()
        hello: dict[str, object] = {"session_id": str(id)}
        if is_resume_refused:
            hello["resumed"] = False
        await session.send(orjson.dumps(hello))
        return session

    async def _resume(self, websocket: WebSocket, requested: str, since: datetime | None) -> Session | None:
        id = read_uuid(requested)
        row = id and await self._chatdb.fetchrow("resume_session", id, self.instance_id, self._settings.resume_hours)
        if not id or not row:
            return None
        # A time in the future would make the answers until then look as if they had been sent.
        last_sent = min(since or row["last_answer_at"], row["last_answer_at"])
        session = Session(websocket, id, row["connection_no"], last_sent, self._settings.send_timeout)
        session.prompts = row["prompts"]
        session.window_ends = time.monotonic() + WINDOW_SECONDS
        async with session.lock:  # what is delivered from now on comes after the first frame and the replay
            self._put_in_place(session, row["instance_before"])
            try:
                metrics.sessions_opened.labels("resumed").inc()
                await session.send(orjson.dumps({"session_id": str(id), "resumed": True}))
                await self.watcher.follow(id)
                await session.replay(self._chatdb, self.watcher)
            except BaseException:
                self.leave(session)
                raise
        return session

    def _put_in_place(self, session: Session, instance_before: int | None) -> None:
        """Closes the older sockets of a resumed session, here and elsewhere; of two at once the newer stays."""
        older = self._here.get(session.id)
        if older is not None and older.connection_no > session.connection_no:
            older = session
        else:
            self._here[session.id] = session
        if older is not None:
            self._tasks.start(older.close(TAKEN_OVER, TAKEN_OVER_REASON))
        if instance_before not in (None, self.instance_id):
            self._tasks.start(self.tell(session.id, instance_before))
        self.touch(session.id)  # it may have been taken over already, when word of that found nothing here

    def leave(self, session: Session) -> None:
        """Ends a session whose socket is gone, unless another socket has taken it over."""
        session.is_open = False
        if self._here.get(session.id) is session:
            del self._here[session.id]
            self._left.set()
            self.watcher.unfollow(session.id)
            self._tasks.start(self._end(session.id, session.connection_no))

    async def _end(self, id: UUID, connection_no: int) -> None:
        try:
            await self._ended.put(id, connection_no)
        except DatabaseError:
            if len(self._unended) < self._settings.max_sessions:
                self._unended.add((id, connection_no))

    async def deliver(self, session_id: UUID, stored: asyncpg.Record, chat_id: UUID, frame: bytes) -> None:
        """Sends a stored answer to wherever the session's socket is; `stored` is what store_answers returned for it."""
        if stored["instance_id"] != self.instance_id:
            if stored["instance_id"] is not None:
                await self.tell(session_id, stored["instance_id"])
            return
        session = self._here.get(session_id)
        if session is not None and not await session.deliver(stored, chat_id, frame):
            self.touch(session_id)

    def find(self, session_id: UUID) -> Session | None:
        return self._here.get(session_id)

    async def tell(self, session_id: UUID, instance_id: int | None = None) -> None:
        """Has the instance that holds the session, if one does, look for answers that it has not sent."""
        for _ in range(TELL_TRIES):
            try:
                if instance_id is None:
                    row = await self._chatdb.fetchrow("get_instance_id", session_id)
                    instance_id = row["instance_id"] if row else None
                if instance_id == self.instance_id:
                    self.touch(session_id)
                elif instance_id is not None:
                    await self._told.put(str(session_id), channel_of(instance_id))
                return
            except DatabaseError:
                await asyncio.sleep(RETRY_SECONDS)
        logger.error("an instance could not be told of an answer", extra=fields(session=session_hash(session_id)))

    def touch(self, session_id: UUID) -> None:
        """Something happened to a session that may be here: have it looked at."""
        if session_id in self._here:
            self._touched.add(session_id)
            self._woken.set()

    def touch_all(self) -> None:
        """Word from other instances may have been missed: have every session looked at."""
        self._touched.update(self._here)
        self._woken.set()

    async def look_after(self) -> None:
        """Looks at the sessions that were touched, for as long as the instance runs."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            touched, self._touched = self._touched, set()
            try:
                await self._look_at(touched)
            except DatabaseError:
                self._touched |= touched
                await asyncio.sleep(RETRY_SECONDS)
                self._woken.set()

    async def _look_at(self, ids: set[UUID]) -> None:
        # Only those that stood here before the question was asked; the answer may be too old for a newer socket.
        sessions = [session for id in ids if (session := self._here.get(id))]
        for start in range(0, len(sessions), REPLAY_SESSIONS):
            some = sessions[start : start + REPLAY_SESSIONS]
            sent = [session.last_sent for session in some]
            found: dict[UUID, list[asyncpg.Record]] = {}
            for row in await self._chatdb.fetch("list_answers_since", [one.id for one in some], sent, REPLAY_ROWS):
                found.setdefault(row["session_id"], []).append(row)
            for session in some:
                rows = found.get(session.id)
                if rows is None or rows[0]["connection_no"] > session.connection_no:
                    self._tasks.start(session.close(TAKEN_OVER, TAKEN_OVER_REASON))
                elif rows[0]["id"] is not None:
                    self._tasks.start(self._catch_up(session, rows))

    async def _catch_up(self, session: Session, rows: list[asyncpg.Record]) -> None:
        try:
            await session.catch_up(self._chatdb, self.watcher, rows)
        except DatabaseError:
            await asyncio.sleep(RETRY_SECONDS)
            self.touch(session.id)

    async def end_left_over(self) -> None:
        """Ends sessions whose end could not be stored when they left. Raises DatabaseError."""
        if self._unended:
            ending = list(self._unended)
            await self._chatdb.fetch("end_sessions", *map(list, zip(*ending, strict=True)))
            self._unended.difference_update(ending)

    async def reclaim(self) -> None:
        """Takes back what is still its own after the others gave this instance up. Raises DatabaseError."""
        here = list(self._here.values())
        ids, numbers = [session.id for session in here], [session.connection_no for session in here]
        await self._chatdb.fetch("reclaim_sessions", self.instance_id, ids, numbers)
        self.touch_all()

    async def close_all(self) -> None:
        """Closes every socket because the instance stops, and waits until they are gone, a few seconds at most."""
        here = list(self._here.values())
        await asyncio.gather(*(session.close(RESTART, "Server is restarting") for session in here))
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                while self._here:
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            for session in list(self._here.values()):
                session.drop()

    async def stop(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._tasks.wait()
        except TimeoutError:
            await self._tasks.cancel(CLOSE_SECONDS)


def channel_of(instance_id: int) -> str:
    """The NOTIFY channel of an instance. The payload is a session's id."""
    return f"gateway_instance_{instance_id}"
