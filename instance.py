"""One running gateway process: what it is made of, how it starts, lives beside others, and stops."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import asyncpg
import orjson

import metrics
from checks import check_all
from database import Database, SharedRead, describe
from errors import DatabaseError
from listener import INSTANCE_LOCK, Listener
from logs import JsonFormatter, fields
from qna import LIST_MAX_AGE, Qna
from sessions import Sessions, channel_of
from settings import Settings
from tasks import TaskOwner
from turns import Turns
from upstream.llm import LlmServer
from upstream.mcp import McpServer

logger = logging.getLogger("gateway.instance")

START_SECONDS = 30.0
BEAT_SECONDS = 1.0
FLUSH_SECONDS = 1.0
# An instance that shows no sign of life is given up after so many seconds: without its lock it has crashed, with it
# it may only be slow, or its machine may be gone.
CRASHED_SECONDS = 2.5
LOST_SECONDS = 20.0
STOP_SECONDS = 3.0
CHECK_SECONDS = 2.0
# Readiness shows it, but with the LLM server away an instance is as good as any other.
SHOWN_ONLY = frozenset({"llm_server"})


class Instance:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.id = 0
        self.is_draining = False
        timeout, prepared = settings.db_timeout, settings.prepared_statements
        self.chatdb = Database(
            "chatdb", settings.database_url, size=settings.db_pool_size, timeout=timeout, prepared=prepared
        )
        self.card_qna_db = Database(
            "card_qna_db", settings.faq_database_url, size=settings.faq_db_pool_size, timeout=timeout, prepared=prepared
        )
        self.llm = LlmServer(settings)
        self.mcp = McpServer(settings)
        self.qna = Qna(self.card_qna_db, settings.max_qna_rows)
        self.sessions = Sessions(settings, self.chatdb)
        self.turns = Turns(settings, self.chatdb, self.sessions, self.qna, self.llm, self.mcp)
        self.sessions.watcher = self.turns
        self.personas = SharedRead(self._read_personas, LIST_MAX_AGE)
        self.listener: Listener | None = None
        self._tasks = TaskOwner("instance")
        self._signs: dict[int, tuple[int, float]] = {}
        self._measured_at = time.monotonic()

    def look_after(self, work: Coroutine[Any, Any, None]) -> None:
        """Owns work that goes on for as long as the instance runs."""
        self._tasks.start(work)

    async def _read_personas(self) -> bytes:
        return orjson.dumps({"personas": [dict(row) for row in await self.chatdb.fetch("list_personas")]})

    async def check(self) -> dict[str, str | None]:
        """What this instance needs to serve: why it is missing, or None. What is in SHOWN_ONLY is not needed."""
        version, is_there = await asyncio.gather(
            _answer(self.chatdb, "get_schema_version"), _answer(self.card_qna_db, "ping")
        )
        is_older = version is not None and version["version"] < self.chatdb.newest_migration
        return {
            "draining": "the instance is stopping" if self.is_draining else None,
            "chatdb": None if version else "does not answer",
            "schema": "is older than this program" if is_older else None,
            "card_qna_db": None if is_there else "does not answer",
            "listen": None if self.listener and self.listener.is_listening else "the LISTEN connection is lost",
            "llm_server": self.llm.failure,
        }

    async def start(self) -> None:
        """Raises DatabaseError if ChatDB cannot be used; card_qna_db may come later."""
        await self.chatdb.open()
        await self.card_qna_db.open()
        await self._migrate()
        row = await self.chatdb.fetchrow("join_instance")
        if row is None:
            raise DatabaseError
        self.id = self.sessions.instance_id = self.turns.instance_id = JsonFormatter.instance_id = row["id"]
        dsn = self.settings.listen_database_url or self.settings.database_url
        self.listener = Listener(dsn, channel_of(self.id), self.id, self.settings.db_timeout)
        self._tasks.start(self.listener.listen(self.sessions.touch, self.sessions.touch_all))
        self._tasks.start(self.sessions.look_after())
        self._tasks.start(self._every(BEAT_SECONDS, self._beat))
        self._tasks.start(self._every(FLUSH_SECONDS, self.qna.flush_views))
        self._tasks.start(self._every(BEAT_SECONDS, self._measure))
        self._tasks.start(self._warn())
        try:
            await self.qna.refresh()
        except DatabaseError:
            logger.warning("card_qna_db cannot be read yet; every question goes to the LLM server until it can")
        self._tasks.start(self._every(self.settings.qna_refresh_seconds, self.qna.refresh))
        try:
            async with asyncio.timeout(self.settings.db_timeout):
                await self.listener.heard.wait()
        except TimeoutError:
            logger.warning("there is no LISTEN connection yet; word from other instances comes late")
        # What stands now stays; and what a turn leaves behind is seldom a cycle, so the collector may come less often.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        logger.info("started")

    async def _warn(self) -> None:
        for warning in await check_all(self.settings):
            logger.warning(warning)

    async def _migrate(self) -> None:
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                return await self.chatdb.migrate()
            except OSError as error:
                if time.monotonic() > until:
                    raise DatabaseError("ChatDB cannot be reached") from error
                logger.warning("ChatDB cannot be reached yet", extra=fields(error=describe(error)))
                await asyncio.sleep(BEAT_SECONDS)

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except DatabaseError:
                pass  # has been logged; the next time may do better
            except Exception:
                logger.exception("background work failed", extra=fields(work=work.__name__))

    async def _beat(self) -> None:
        """Shows that this instance lives, gives up those that do not, and takes up their turns."""
        try:
            others = await self.chatdb.fetch("renew_instance", self.id, INSTANCE_LOCK)
        except DatabaseError:
            self._signs.clear()  # who could not look cannot tell how long the others have been silent
            raise
        if others[0]["was_given_up"]:
            logger.warning("given up by the other instances, and back")
            await self.sessions.reclaim()
        now = time.monotonic()
        signs: dict[int, tuple[int, float]] = {}
        for row in others:
            if row["id"] is None:
                continue
            beat, since = self._signs.get(row["id"], (None, now))
            signs[row["id"]] = (row["beat"], since if beat == row["beat"] else now)
            silent = now - signs[row["id"]][1]
            is_lost = silent > (LOST_SECONDS if row["is_locked"] else CRASHED_SECONDS)
            if is_lost and await self.chatdb.fetch("remove_instance", row["id"], row["beat"]):
                logger.warning("instance lost", extra=fields(other=row["id"], silent_seconds=round(silent, 1)))
        self._signs = signs
        await self.sessions.end_left_over()
        if not self.is_draining:
            self.turns.take_over(await self.chatdb.fetch("take_turns", self.id, self.turns.uncertain()))

    async def _measure(self) -> None:
        """Brings the gauges up to date, once a second rather than at every change."""
        now = time.monotonic()
        metrics.loop_lag.set(max(0.0, now - self._measured_at - BEAT_SECONDS))
        self._measured_at = now
        metrics.sessions.set(len(self.sessions))
        for name, database in (("chatdb", self.chatdb), ("card_qna_db", self.card_qna_db)):
            metrics.db_connections.labels(name).set(database.connections_in_use)
        metrics.listen_age.set(now - self.listener.heard_at if self.listener else 0.0)
        self.turns.measure()

    async def drain(self) -> None:
        """Finishes the turns in hand within `drain_seconds`, taking no new ones, then closes the sockets."""
        self.is_draining = True
        logger.info("stopping", extra=fields(sessions=len(self.sessions), turns=self.turns.in_hand))
        try:
            async with asyncio.timeout(self.settings.drain_seconds):
                await self.turns.drain()
        except TimeoutError:
            logger.warning("turns handed over", extra=fields(turns=self.turns.in_hand))
        await self.sessions.close_all()

    async def stop(self) -> None:
        """Stores what is queued, and leaves, so that the others take what it has not finished at once."""
        await self.turns.stop(STOP_SECONDS)
        await self.sessions.stop()
        await self._tasks.cancel(STOP_SECONDS)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.chatdb.fetch("remove_instance", self.id, None)
                await self.qna.flush_views()
        except (DatabaseError, TimeoutError):
            logger.warning("could not say goodbye; the others will notice")
        await asyncio.gather(self.llm.close(), self.mcp.close(), self.chatdb.close(), self.card_qna_db.close())
        metrics.forget_process()
        logger.info("stopped")


async def _answer(database: Database, statement: str) -> asyncpg.Record | None:
    """What the database says within CHECK_SECONDS, None if nothing."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await database.fetchrow(statement)
    except (DatabaseError, TimeoutError):
        return None
