"""Answers and pushes stored, each exactly once, and handed on to delivery."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from uuid import UUID

import asyncpg

from chat.delivery import Delivery
from chat.frames import AnswerRow, StoredAnswer
from chat.turn import Turn
from common import metrics
from common.errors import DatabaseError, RowRefused
from common.ids import new_uuid
from common.logs import fields
from database.batches import BatchedStatement
from database.pool import Database
from upstream.replies import Answer

logger = logging.getLogger("gateway.answers")

RETRY_SECONDS = 0.5
# To store a prompt with its answer may take so long; then the database is in trouble, and they are stored one by one.
WITH_PROMPT_SECONDS = 0.5


class Answers:
    """Owns the answers that are not stored yet: at most `max_unstored` of them wait for the database."""

    def __init__(self, chatdb: Database, delivery: Delivery, max_unstored: int) -> None:
        self.unstored = 0
        self._max_unstored = max_unstored
        self._chatdb = chatdb
        self._delivery = delivery
        self._stored = BatchedStatement(chatdb, "store_answers", AnswerRow, apart="session_id")
        self._loop = asyncio.get_running_loop()

    async def store(self, turn: Turn, answer: Answer) -> None:
        """Stores the answer to a turn, however long the database is away; the visitor gets it meanwhile."""
        row = AnswerRow.of(turn.session_id, turn.message_id, new_uuid(), answer)
        try:
            try:
                stored = await self._stored.put(row)
            except DatabaseError as error:
                stored = await self._store_late(row, turn, answer, error)
        except RowRefused:
            logger.error("answer lost: it could not be stored", extra=fields(message_id=turn.message_id))
            return
        turn.mark("store_answer")
        await self._hand_on(turn.session_id, turn.message_id, answer, stored)

    async def _store_late(
        self, row: AnswerRow, turn: Turn, answer: Answer, error: DatabaseError
    ) -> asyncpg.Record | None:
        """Shows an answer that cannot be stored now, and stores it when it can be. Raises RowRefused if never."""
        unstored = StoredAnswer(row.chat_id, turn.message_id, datetime.now(UTC), answer)
        row = row._replace(sent_at=await self._delivery.show(turn.session_id, unstored))
        if self.unstored >= self._max_unstored:
            raise RowRefused from error
        self.unstored += 1
        try:
            while not isinstance(error, RowRefused):
                await asyncio.sleep(RETRY_SECONDS)
                try:
                    stored = await self._stored.put(row)
                    if stored is None:
                        # The first attempt was done after all, late and with a time of its own.
                        await self._chatdb.fetch("set_answer_time", row.chat_id, row.sent_at)
                    return stored
                except DatabaseError as again:
                    error = again
            raise error
        finally:
            self.unstored -= 1

    async def store_with_prompt(self, turn: Turn, answer: Answer) -> asyncpg.Record | None:
        """Stores a prompt in one statement with its answer, which is to be sent then.

        None if the prompt was stored before, or if that fails: by itself the prompt may still be stored.
        """
        row = AnswerRow.of(turn.session_id, turn.message_id, new_uuid(), answer)
        storing = self._stored.put(row._replace(prompt=turn.text))
        limit = self._loop.call_later(WITH_PROMPT_SECONDS, _give_up, storing)  # cheaper than asyncio.timeout
        try:
            return await storing
        except DatabaseError:
            return None
        finally:
            limit.cancel()

    async def send(self, turn: Turn, answer: Answer, stored: asyncpg.Record) -> None:
        """Hands on an answer that was stored with its prompt."""
        turn.mark("store_answer")
        await self._hand_on(turn.session_id, turn.message_id, answer, stored)

    async def push(self, session_id: UUID, prompt_id: UUID | None, answer: Answer) -> None:
        """Stores a push, which carries the prompt's id or its own, and sends it. Raises DatabaseError."""
        row = AnswerRow.of(session_id, prompt_id, new_uuid(), answer)
        stored = await self._stored.put(row._replace(is_push=True))
        if stored is not None:
            metrics.pushes.labels("local" if self._delivery.is_here(stored["instance_id"]) else "remote").inc()
        await self._hand_on(session_id, prompt_id or row.chat_id, answer, stored)

    async def _hand_on(self, session_id: UUID, message_id: UUID, answer: Answer, stored: asyncpg.Record | None) -> None:
        if stored is None:
            # Another instance was first, or an attempt that had seemed to fail: what is stored is what is sent.
            await self._delivery.announce(session_id)
        else:
            sent = StoredAnswer(stored["chat_id"], message_id, stored["created_at"], answer)
            await self._delivery.deliver(session_id, sent, stored["previous_at"], stored["instance_id"])


def _give_up(storing: asyncio.Future[asyncpg.Record | None]) -> None:
    if not storing.done():
        storing.set_result(None)
