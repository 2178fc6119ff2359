"""Instances without their processes: the parts of the chat, on a real ChatDB and before real servers, in a test's loop.

What another process would bring about (a notice, a second that has passed) the test does itself, at its moment.
"""

import asyncio
import json
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from starlette.websockets import WebSocket

from chat.chat import Chat
from chat.session import Session
from common.clock import Clock
from common.ids import new_uuid
from database.pool import Database
from settings import Settings
from tests.support.gateway import ALLOWED_ORIGIN
from tests.support.statements import ChatDb, open_pool
from tests.support.waiting import become
from tests.support.world import World

Message = MutableMapping[str, Any]


class Client:
    """The other end of a socket, as a server has it: what came, and a way to hold it up."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None
        self.reads = asyncio.Event()
        self.reads.set()
        self.is_sent_to = asyncio.Event()
        self.unread = 0  # bytes that the network has not taken
        self.is_cut = False

    async def open(self, key: str = "") -> WebSocket:
        headers = [(b"authorization", f"Bearer {key}".encode())]
        scope: Message = {"type": "websocket", "path": "/", "headers": headers}
        scope.update({"gateway.transport": self, "gateway.send": self._send})
        websocket = WebSocket(scope, self._receive, self._send)
        await websocket.accept()
        return websocket

    async def _receive(self) -> Message:
        return {"type": "websocket.connect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "websocket.close":
            self.closed = message["code"], message["reason"]
        elif message["type"] == "websocket.send":
            self.is_sent_to.set()
            await self.reads.wait()
            self.frames.append(json.loads(message["text"]))

    # What a gateway asks of a connection

    def get_write_buffer_size(self) -> int:
        return self.unread

    def abort(self) -> None:
        self.is_cut = True

    # What came

    @property
    def told(self) -> list[str]:
        """The messages of the answers."""
        return [frame["message"] for frame in self.frames if "message" in frame]

    @property
    def errors(self) -> list[str]:
        return [frame["error"] for frame in self.frames if "error" in frame]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame.get("type") == kind]

    async def until_told(self, *messages: str) -> None:
        await become(lambda: self.told == list(messages), what=f"{messages} are told")


class Visitor:
    """A session that is open on one of the instances."""

    def __init__(self, parts: "Parts", client: Client, session: Session) -> None:
        self.parts = parts
        self.client = client
        self.session = session
        self.id = session.id
        self.key: str = client.frames[0].get("key", "")

    def prompt(self, text: str, id: UUID | None = None) -> UUID:
        id = id or new_uuid()
        self.parts.chat.prompts.take(self.session, id, text)
        return id

    def stop(self, id: UUID) -> None:
        self.parts.chat.stops.stop(self.session, id)

    def leave(self) -> None:
        if self.parts.chat.sessions.leave(self.session):
            self.parts.chat.turns.unfollow(self.id)


class Parts:
    """One instance."""

    def __init__(self, chat: Chat, id: int, database: Database) -> None:
        self.chat = chat
        self.id = id
        self.database = database

    async def visit(self, *, streams: bool = False) -> Visitor:
        """A new session."""
        return await self._open(None, "", None, streams)

    async def resume(self, visitor: Visitor, since: datetime | None = None, *, streams: bool = False) -> Visitor:
        """A further socket of a session, here."""
        again = await self._open(str(visitor.id), visitor.key, since, streams)
        again.key = visitor.key
        await self.chat.turns.follow(again.id)
        return again

    async def _open(self, id: str | None, key: str, since: datetime | None, streams: bool) -> Visitor:
        client = Client()
        session = await self.chat.sessions.open(await client.open(key), id, since, streams=streams)
        if streams:
            self.chat.drafts.attach(session)
        return Visitor(self, client, session)


@asynccontextmanager
async def parts(db: ChatDb, world: World, **more: Any) -> AsyncIterator[Parts]:
    """An instance on a ChatDB; further settings in lower case."""
    settings = Settings(
        frontend_host=frozenset({ALLOWED_ORIGIN}),
        llmserver_url=world.llm.url,
        mcp_server_url=world.mcp.url,
        database_url=db.url,
        faq_database_url=world.card_qna.url,
        **{"delta_seconds": 0.01} | more,
    )
    timeout = settings.db_timeout
    chatdb = await open_pool("chatdb", db.url, timeout=timeout)
    card_qna_db = await open_pool("card_qna_db", world.card_qna.url, timeout=timeout)
    (row,) = await db.run("join_instance")
    chat = Chat(settings, row["id"], Clock(row["now"]), chatdb, card_qna_db)
    await chat.qna.refresh()
    try:
        yield Parts(chat, row["id"], chatdb)
    finally:
        await chat.stop(5.0)
        await db.run("remove_instance", row["id"], None)
        await asyncio.gather(chatdb.close(), card_qna_db.close())
