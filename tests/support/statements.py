"""The statements of ChatDB, run as the gateway runs them, but by a test and without a gateway."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from common.addresses import database_url
from common.ids import new_uuid
from database.pool import Database
from database.shared import BatchedStatement

Row = dict[str, Any]


async def open_pool(folder: str, url: str, size: int = 4, timeout: float = 20.0, *, prepared: bool = True) -> Database:
    """A pool as an instance has it, to be closed by the caller."""
    pool = Database(folder, database_url(url), size, timeout, prepared)
    await pool.open()
    return pool


# What each row of a shared statement has where a test does not say; the columns that tests are about are theirs.
DEFAULTS: dict[str, Row] = {
    "open_sessions": {"instance_id": 1, "key_hash": b"hash"},
    "end_sessions": {"connection_no": 0},
    "store_prompts": {"instance_id": 1, "shown_at": None},
    "store_answers": {
        "prompt_id": None,
        "content": "대답",
        "source_tool": None,
        "payload": '{"login_required": false}',
        "sent_at": None,
        "is_push": False,
        "prompt": None,
    },
    "get_persona_ids": {},
    "tie_personas": {"allowed": 100},
    "list_unsent_answers": {},
    "notify_instances": {},
}
APART = {"store_prompts": "id", "notify_instances": "payload"}


class ChatDb:
    """The statements of sql/chatdb by name, and what the tables then hold."""

    def __init__(self, database: Database, url: str) -> None:
        self.database = database
        self.url = url
        self._shared = {
            name: BatchedStatement(database, name, apart=APART.get(name, "session_id")) for name in DEFAULTS
        }

    async def run(self, statement: str, *arguments: object) -> list[Row]:
        """The rows of a statement with these arguments."""
        return [dict(row) for row in await self.database.fetch(statement, *arguments)]

    async def share(self, statement: str, *rows: Row) -> list[list[Row]]:
        """What a shared statement returns for each of its rows, put at once; without their numbers."""
        put = [self._shared[statement].put(DEFAULTS[statement] | row) for row in rows]
        found = await asyncio.gather(*put)
        return [[{name: row[name] for name in row.keys() if name != "n"} for row in rows] for rows in found]  # noqa: SIM118

    async def sql(self, query: str, *arguments: object) -> list[Row]:
        """The rows of any query."""
        async with self.database.transaction() as connection:
            return [dict(row) for row in await connection.fetch(query, *arguments)]

    async def value(self, query: str, *arguments: object) -> Any:
        """The only value of the only row of any query."""
        ((value,),) = [tuple(row.values()) for row in await self.sql(query, *arguments)]
        return value

    # What most tests begin with

    async def session(self, instance_id: int | None = 1, **columns: object) -> UUID:
        """A new session; further columns of its row are set."""
        id = new_uuid()
        await self.share("open_sessions", {"session_id": id, "instance_id": instance_id})
        for name, value in columns.items():
            await self.sql(f'UPDATE "ChatSession" SET {name} = $2 WHERE session_id = $1', id, value)
        return id

    async def prompt(self, session_id: UUID, text: str = "질문", instance_id: int = 1) -> UUID:
        """A stored prompt of a session, whose turn an instance has in hand."""
        id = new_uuid()
        row = {"id": id, "session_id": session_id, "content": text, "instance_id": instance_id}
        assert [len(stored) for stored in await self.share("store_prompts", row)] == [1]
        return id

    async def answer(self, session_id: UUID, prompt_id: UUID | None = None, **columns: object) -> Row:
        """What is returned for an answer or a push that must be stored; its `chat_id` is a new one."""
        row = {"session_id": session_id, "prompt_id": prompt_id, "chat_id": new_uuid()} | columns
        if isinstance(row.get("payload"), dict):
            row["payload"] = json.dumps(row["payload"])
        ((stored,),) = await self.share("store_answers", row)
        assert stored["created_at"] is not None
        return stored

    async def push(self, session_id: UUID, prompt_id: UUID | None = None, **columns: object) -> Row:
        """A push, under a prompt's id or its own."""
        return await self.answer(session_id, prompt_id, is_push=True, **columns)

    async def persona(self, name: str) -> int:
        """A new persona."""
        id: int = await self.value('INSERT INTO "Persona" (name) VALUES ($1) RETURNING id', name)
        return id

    async def row(self, session_id: UUID) -> Row:
        """The row of a session."""
        (row,) = await self.sql('SELECT * FROM "ChatSession" WHERE session_id = $1', session_id)
        return row

    async def turns(self, session_id: UUID) -> dict[UUID, Row]:
        """The open turns of a session by prompt."""
        rows = await self.sql('SELECT * FROM "Turn" WHERE session_id = $1', session_id)
        return {row["prompt_id"]: row for row in rows}

    async def said(self, session_id: UUID) -> list[Row]:
        """What the session's table of prompts and answers holds, in the order of the times."""
        return await self.sql('SELECT * FROM "Chat" WHERE session_id = $1 ORDER BY created_at', session_id)

    @asynccontextmanager
    async def locked(self, table: str, session_id: UUID) -> AsyncIterator[None]:
        """While it lasts, the rows of a session are locked for all others."""
        async with self.database.transaction() as connection:
            await connection.execute(f"SELECT FROM \"{table}\" WHERE session_id = '{session_id}' FOR NO KEY UPDATE")
            yield

    async def waiting(self, count: int) -> bool:
        """Whether so many statements wait for a lock."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return bool(await self.value(query) == count)

    async def now(self) -> datetime:
        """The time of the database."""
        now: datetime = await self.value("SELECT clock_timestamp()")
        return now
