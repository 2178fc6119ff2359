"""Answers and pushes stored, each exactly once, and handed on to delivery."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import asyncpg

from chat.delivery import Delivery
from chat.frames import PlacedAnswer, answer_row
from chat.turn import Turn
from common import metrics
from common.clock import Clock
from common.errors import LLM_FORMAT, DatabaseError, RowRefused
from common.ids import new_uuid
from common.logs import log
from database.pool import Database
from database.shared import BatchedStatement
from upstream.replies import Answer

RETRY_SECONDS = 0.5
# Longer than this to store a prompt with its answer: the database is in trouble, and each is stored by itself.
WITH_PROMPT_SECONDS = 0.5


class Answers:
    """Owns the answers that are not stored yet: at most `max_unstored` of them wait for the database."""

    def __init__(self, chatdb: Database, clock: Clock, delivery: Delivery, max_unstored: int) -> None:
        self.unstored = 0
        self._clock = clock
        self._max_unstored = max_unstored
        self._chatdb = chatdb
        self._delivery = delivery
        self._store_answers = BatchedStatement(chatdb, "store_answers", apart="session_id")
        self._loop = asyncio.get_running_loop()

    async def store(self, turn: Turn, answer: Answer) -> None:
        """Stores the answer to a turn, however long the database is away; the visitor gets it meanwhile."""
        row = answer_row(turn.session_id, turn.message_id, id := new_uuid(), answer)
        try:
            try:
                rows = await self._store_answers.put(row)
            except DatabaseError as error:
                now = self._clock.now()
                answered_at = max(now, turn.asked_at + timedelta(microseconds=1)) if turn.asked_at else now
                unstored = PlacedAnswer(id, turn.message_id, answered_at, answer)
                row["sent_at"] = await self._delivery.show(turn.session_id, unstored)
                rows = await self._store_late(row, error)
        except RowRefused:
            log.error("answer lost: it could not be stored", message_id=turn.message_id)
            # Something has to be there, in a database of whatever encoding, or it would be asked again.
            row |= {"content": LLM_FORMAT, "source_tool": None, "payload": "{}"}
            rows = []
            with suppress(DatabaseError):
                rows = await self._store_answers.put(row)
        await self.send(turn, answer, rows)

    async def _store_late(self, row: dict[str, object], error: DatabaseError) -> list[asyncpg.Record]:
        """Stores an answer that has been shown, as soon as the database can. Raises RowRefused if it never can."""
        if self.unstored >= self._max_unstored:
            raise RowRefused from error
        self.unstored += 1
        try:
            while not isinstance(error, RowRefused):
                await asyncio.sleep(RETRY_SECONDS)
                try:
                    rows = await self._store_answers.put(row)
                    if rows and rows[0]["created_at"] is None:
                        # The first attempt succeeded after all, late and with a time of its own.
                        await self._chatdb.fetch("set_answer_time", row["chat_id"], row["sent_at"])
                    return rows
                except DatabaseError as again:
                    error = again
            raise error
        finally:
            self.unstored -= 1

    async def store_with_prompt(self, turn: Turn, answer: Answer) -> list[asyncpg.Record]:
        """Stores a prompt in one statement with its answer, which the caller then sends.

        Returns nothing if the prompt was stored before, or if that fails: it may still be stored by itself.
        """
        row = answer_row(turn.session_id, turn.message_id, new_uuid(), answer, prompt=turn.text)
        storing = self._store_answers.put(row)
        limit = self._loop.call_later(WITH_PROMPT_SECONDS, _give_up, storing)  # cheaper than asyncio.timeout
        try:
            rows = await storing
        except DatabaseError:
            return []
        finally:
            limit.cancel()
        return rows if rows and rows[0]["created_at"] else []

    async def send(self, turn: Turn, answer: Answer, rows: list[asyncpg.Record]) -> None:
        """Hands on the stored answer to a turn."""
        turn.mark("store_answer")
        if rows:  # otherwise there is no such session any more
            await self._delivery.deliver(turn.session_id, turn.message_id, answer, rows[0])

    async def push(self, session_id: UUID, prompt_id: UUID | None, answer: Answer) -> None:
        """Stores a push, which carries the prompt's id or its own, and sends it. Raises DatabaseError."""
        row = answer_row(session_id, prompt_id, id := new_uuid(), answer, is_push=True)
        for stored in await self._store_answers.put(row):
            is_here = stored["instance_id"] == self._delivery.instance_id
            metrics.pushes.labels("local" if is_here else "remote").inc()
            await self._delivery.deliver(session_id, prompt_id or id, answer, stored)


def _give_up(storing: asyncio.Future[list[asyncpg.Record]]) -> None:
    if not storing.done():
        storing.set_result([])
