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
from common.clock import Clock
from common.errors import DatabaseError
from common.logs import JsonFormatter, log
from common.memory import Memory
from common.tasks import TaskOwner
from database.migrations import MIGRATIONS, migrate
from database.notices import BEAT_SECONDS, SESSIONS, WORDS, Listener
from database.pool import Database
from database.shared import SingleFlight
from service.checks import ask, check_all
from service.heartbeat import Heartbeat
from settings import Settings

STOP_SECONDS = 3.0
FULL_QUEUE = 0.5  # of the notices that PostgreSQL keeps: from there on some may be refused


class Instance:
    """What goes on while the process runs, beside what visitors ask for."""

    def __init__(self, settings: Settings, id: int, clock: Clock, chatdb: Database, card_qna_db: Database) -> None:
        self.settings = settings
        self.is_draining = False
        self.chatdb = chatdb
        self.chat = Chat(settings, id, clock, chatdb, card_qna_db)
        self.personas = SingleFlight(self._read_personas, LIST_MAX_AGE)
        self.tasks = TaskOwner("instance")  # what goes on for as long as the instance runs
        self._id = id
        self._card_qna_db = card_qna_db
        self._listener = Listener(settings.listen_database_url or settings.database_url, id, settings.db_timeout)
        self._heartbeat = Heartbeat(id, clock, chatdb)
        self._queue_usage = 0.0
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
            instance = cls(settings, joined["id"], Clock(joined["now"]), chatdb, card_qna_db)
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
        look = await self._heartbeat.beat(is_shown=self._listener.is_shown)
        self._listener.beat, self._queue_usage = self._heartbeat.count, look.queue_usage
        if look.was_given_up:
            log.warning("declared dead by the other instances; rejoining")
        if look.was_given_up or look.queue_usage > FULL_QUEUE or not self._listener.is_listening:
            await self.chat.delivery.look_around()
        await self.chat.stops.look_around()
        if not self.is_draining:
            await self.chat.turns.take_over(may_be_orphans=look.has_lost_others)

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
            "notices": f"the queue of NOTIFY is {usage:.0%} full"
            if (usage := self._queue_usage) > FULL_QUEUE
            else None,
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
