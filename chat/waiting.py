"""What a resumed session waits for: turns that other instances answer, and what can be seen of them meanwhile."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from chat.delivery import Delivery
from chat.drafts import Drafts
from chat.turn import RemoteTurns
from common.errors import DatabaseError
from database.pool import Database

ASK_SECONDS = 1.0


@dataclass(eq=False)
class Waiting:
    instance_id: int
    chatdb: Database
    delivery: Delivery
    drafts: Drafts

    async def list_open(self, session_id: UUID) -> dict[UUID, int]:
        """The prompts of a session that other instances have in hand, and which. Raises DatabaseError."""
        rows = await self.chatdb.fetch("list_open_turns", session_id, self.instance_id)
        return {row["prompt_id"]: row["instance_id"] for row in rows}

    async def wait(self, turns: RemoteTurns) -> None:
        """Until the answers are stored and on their way to the visitor, or nobody waits for them any more."""
        try:
            while turns.message_ids and not turns.is_over:
                turns.has_news.clear()
                session = self.delivery.watch(turns.session_id, turns.has_news)
                with suppress(DatabaseError):
                    makers = await self.list_open(turns.session_id)
                    for message_id in turns.message_ids - makers.keys():
                        turns.message_ids.discard(message_id)
                        self.drafts.unfollow(message_id)
                    for message_id in turns.message_ids if session and session.wants_drafts else ():
                        await self.drafts.follow(turns.session_id, message_id, makers[message_id])
                if turns.message_ids:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(ASK_SECONDS):
                            await turns.has_news.wait()
        finally:
            for message_id in turns.message_ids:
                self.drafts.unfollow(message_id)
            self.delivery.look_at(turns.session_id)  # in case the notice of an answer was lost
