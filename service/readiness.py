"""What an instance needs to serve, part by part."""

from __future__ import annotations

import asyncio

import asyncpg

from common.errors import DatabaseError
from database.migrations import MIGRATIONS
from database.notices import Listener
from database.pool import Database

CHECK_SECONDS = 2.0
# It is shown, but with the LLM server away an instance is as good as any other.
SHOWN_ONLY = frozenset({"llm_server"})


async def check_readiness(chatdb: Database, card_qna_db: Database, listener: Listener) -> dict[str, str | None]:
    """For each part why it is missing, or None."""
    version, is_there = await asyncio.gather(_answer(chatdb, "get_schema_version"), _answer(card_qna_db, "ping"))
    is_older = version is not None and version["version"] < MIGRATIONS[-1].stem
    return {
        "chatdb": None if version else "does not answer",
        "schema": "is older than this program" if is_older else None,
        "card_qna_db": None if is_there else "does not answer",
        "listen": None if listener.is_listening else "the LISTEN connection is lost",
    }


async def _answer(database: Database, statement: str) -> asyncpg.Record | None:
    """What the database says within CHECK_SECONDS, None if nothing."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await database.fetchrow(statement)
    except (DatabaseError, TimeoutError):
        return None
