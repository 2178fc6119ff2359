"""One running gateway process: what it is made of, how it starts, lives beside others, and stops."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import orjson

from chat.chat import Chat
from chat.qna import LIST_MAX_AGE
from common import metrics
from common.errors import DatabaseError
from common.logs import JsonFormatter, log
from common.memory import Memory
from common.tasks import TaskOwner
from database.migrations import MIGRATIONS, migrate
from database.notices import INSTANCE_LOCK, SESSIONS, WORDS, Listener
from database.pool import Database
from database.shared import SingleFlight
from service.checks import ask, check_all
from settings import Settings

BEAT_SECONDS = 1.0
STOP_SECONDS = 3.0
# An instance that shows no sign of life is declared dead after so many seconds: without its lock it has crashed, with
# it it may only be slow, or its machine may be gone.
CRASHED_SECONDS = 2.5
LOST_SECONDS = 20.0


class Instance:
    """What goes on while the process runs, beside what visitors ask for."""

    def __init__(self, settings: Settings, id: int, chatdb: Database, card_qna_db: Database) -> None:
        self.settings = settings
        self.is_draining = False
        self.chatdb = chatdb
        self.chat = Chat(settings, id, chatdb, card_qna_db)
        self.personas = SingleFlight(self._read_personas, LIST_MAX_AGE)
        self.tasks = TaskOwner("instance")  # what goes on for as long as the instance runs
        self._id = id
        self._card_qna_db = card_qna_db
        self._listener = Listener(settings.listen_database_url or settings.database_url, id, settings.db_timeout)
        self._heartbeat = Heartbeat(id, chatdb)
        self._measured_at = time.monotonic()
        self._memory = Memory()

    @classmethod
    @asynccontextmanager
    async def run(cls, settings: Settings) -> AsyncIterator[Self]:
        """An instance that serves. Raises CannotStart if ChatDB cannot be used; card_qna_db may come later."""
        timeout, prepared = settings.db_timeout, settings.prepared_statements
        chatdb = Database("chatdb", settings.database_url, settings.db_pool_size, timeout, prepared)
        card_qna_db = Database("card_qna_db", settings.faq_database_url, settings.faq_db_pool_size, timeout, prepared)
        try:
            await chatdb.open()
            await card_qna_db.open()
            await migrate(chatdb, settings.start_seconds)
            (joined,) = await chatdb.fetch("join_instance")
            instance = cls(settings, joined["id"], chatdb, card_qna_db)
            try:
                await instance._start()
                yield instance
            finally:
                await instance._stop()
        finally:
            await asyncio.gather(chatdb.close(), card_qna_db.close())
            metrics.forget_process()
            log.info("stopped")

    async def _start(self) -> None:
        JsonFormatter.instance_id = self._id
        delivery, qna = self.chat.delivery, self.chat.qna
        hearing = {SESSIONS: self.chat.hear_of_session, WORDS: self.chat.hear_word}
        self.tasks.start(self._listener.listen(hearing, delivery.look_around))
        for work in (self._beat, qna.flush_views, self._measure):
            self.tasks.repeat(BEAT_SECONDS, work)
        self.tasks.start(self._warn())
        try:
            await qna.refresh()
        except DatabaseError:
            log.warning("card_qna_db cannot be read yet; every question goes to the LLM server until it can")
        self.tasks.repeat(self.settings.qna_refresh_seconds, qna.refresh)
        try:
            async with asyncio.timeout(self.settings.db_timeout):
                await self._listener.has_listened.wait()
        except TimeoutError:
            log.warning("there is no LISTEN connection yet; notices from other instances come late")
        # What stands now stays; and what a turn leaves behind is seldom a cycle, so the collector may come less often.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        log.info("started")

    async def _warn(self) -> None:
        for warning in await check_all(self.settings):
            log.warning(warning)

    async def _beat(self) -> None:
        """Shows that this instance lives, and takes up the turns of those that do not."""
        if not await self._heartbeat.beat():
            log.warning("declared dead by the other instances; rejoining")
            await self.chat.delivery.look_around()
        await self.chat.stops.look_around()
        if not self.is_draining:
            await self.chat.turns.take_over()

    async def _measure(self) -> None:
        """Brings the gauges up to date, once a second rather than at every change."""
        now = time.monotonic()
        metrics.loop_lag.set(max(0.0, now - self._measured_at - BEAT_SECONDS))
        self._measured_at = now
        for name, database in (("chatdb", self.chatdb), ("card_qna_db", self._card_qna_db)):
            metrics.db_connections.labels(name).set(database.connections_in_use)
        self._memory.tidy(len(self.chat.sessions))
        metrics.listen_age.set(now - self._listener.heard_at)
        self.chat.measure()

    async def _read_personas(self) -> bytes:
        return orjson.dumps({"personas": [dict(row) for row in await self.chatdb.fetch("list_personas")]})

    async def check(self) -> dict[str, str | None]:
        """What this instance needs to serve: why it is missing, or None. What is in SHOWN_ONLY is not needed."""
        schema, is_there = await asyncio.gather(ask(self.chatdb, "get_schema_version"), ask(self._card_qna_db, "ping"))
        is_older = schema is not None and schema["version"] < MIGRATIONS[-1].stem
        return {
            "draining": "the instance is stopping" if self.is_draining else None,
            "chatdb": None if schema else "does not answer",
            "schema": "is older than this program" if is_older else None,
            "card_qna_db": None if is_there else "does not answer",
            "listen": None if self._listener.is_listening else "the LISTEN connection is lost",
            "llm_server": self.chat.llm_server.failure,
        }

    async def drain(self) -> None:
        """Finishes the turns in hand within `drain_seconds`, taking no new ones, then closes the sockets."""
        self.is_draining = True
        log.info("stopping", sessions=len(self.chat.sessions), turns=self.chat.in_hand)
        try:
            async with asyncio.timeout(self.settings.drain_seconds):
                await self.chat.drain()
        except TimeoutError:
            log.warning("turns handed over", turns=self.chat.in_hand)
        await self.chat.sessions.close_all()

    async def _stop(self) -> None:
        """Stores what is queued, and leaves, so that the others take what it has not finished at once."""
        await self.chat.stop(STOP_SECONDS)
        await self.tasks.cancel(STOP_SECONDS)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.chatdb.fetch("remove_instance", self._id, None)
                await self.chat.qna.flush_views()
        except (DatabaseError, TimeoutError):
            log.warning("could not say goodbye; the others will notice")


class Heartbeat:
    """Owns what was last seen of the other instances: their sign of life, and since when it has been the same."""

    def __init__(self, instance_id: int, chatdb: Database) -> None:
        self._instance_id = instance_id
        self._chatdb = chatdb
        self._signs: dict[int, tuple[int, float]] = {}

    async def beat(self) -> bool:
        """Renews this instance's sign of life, and removes instances that have shown none for too long.

        False if the others had declared this one dead. Raises DatabaseError.
        """
        try:
            rows = await self._chatdb.fetch("renew_instance", self._instance_id, INSTANCE_LOCK)
        except DatabaseError:
            self._signs.clear()  # who could not look cannot tell how long the others have been silent
            raise
        now = time.monotonic()
        signs: dict[int, tuple[int, float]] = {}
        for row in rows:
            id, beat = row["id"], row["beat"]
            if id is None:
                continue  # there are no others
            last_beat, since = self._signs.get(id, (beat, now))
            signs[id] = (beat, since if beat == last_beat else now)
            silent = now - signs[id][1]
            is_dead = silent > (LOST_SECONDS if row["is_locked"] else CRASHED_SECONDS)
            if is_dead and await self._chatdb.fetch("remove_instance", id, beat):
                log.warning("instance lost", other=id, silent_seconds=round(silent, 1))
        self._signs = signs
        return not rows[0]["was_given_up"]
