"""Turns of resumed sessions that other instances answer."""

from __future__ import annotations

import asyncio
from uuid import UUID

from chat.delivery import Delivery
from chat.turn import TurnElsewhere
from common.errors import DatabaseError
from database.pool import Database

ASK_SECONDS = 2.0


class Elsewhere:
    """Finds turns that other instances answer, and waits for their end."""

    def __init__(self, instance_id: int, chatdb: Database, delivery: Delivery) -> None:
        self._instance_id = instance_id
        self._chatdb = chatdb
        self._delivery = delivery

    async def list_open(self, session_id: UUID) -> list[UUID]:
        """The prompts of a session that another instance is answering, in their order. Raises DatabaseError."""
        rows = await self._chatdb.fetch("list_open_turns", session_id, self._instance_id)
        return [row["prompt_id"] for row in rows]

    async def wait(self, turn: TurnElsewhere) -> None:
        """Until the answer is stored and on its way to the visitor, or nobody has to wait for it any more."""
        while not turn.is_over:
            turn.has_news.clear()
            self._delivery.watch(turn.session_id, turn.has_news)
            if not await self._is_open(turn.message_id):
                self._delivery.look_at(turn.session_id)  # in case the notice of it was lost
                return
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    await turn.has_news.wait()
            except TimeoutError:
                pass

    async def _is_open(self, message_id: UUID) -> bool:
        try:
            row = await self._chatdb.fetchrow("is_turn_open", message_id)
        except DatabaseError:
            return True
        return row is None or bool(row["is_open"])
