"""Turns stopped by their visitors, wherever they are being answered, and for good."""

from uuid import UUID

from chat.session import Session
from chat.turns import Turns
from common.errors import DB_FAILED, DatabaseError, Refused
from common.tasks import TaskOwner
from database.notices import Notifier
from database.pool import Database


class Stops:
    """A stop is marked in ChatDB, so that whoever takes the turn over does not ask again."""

    def __init__(self, instance_id: int, chatdb: Database, notifier: Notifier, turns: Turns) -> None:
        self._instance_id = instance_id
        self._chatdb = chatdb
        self._notifier = notifier
        self._turns = turns
        self.tasks = TaskOwner("stops")

    def stop(self, session: Session, message_id: UUID) -> None:
        """Ends the turn of a prompt of this session, if it has no answer yet."""
        turn = self._turns.find(message_id)
        if turn is not None and turn.session_id == session.id:
            turn.stop()
        self.tasks.start(self._mark(session, message_id))

    async def _mark(self, session: Session, message_id: UUID) -> None:
        try:
            row = await self._chatdb.fetchrow("stop_turn", message_id, session.id)
        except DatabaseError:
            await session.socket.refuse(Refused(DB_FAILED, message_id))
            return
        if row is not None and row["instance_id"] != self._instance_id:
            await self._notifier.tell(row["instance_id"], [{"type": "stop", "message_id": str(message_id)}])

    def hear(self, message_id: UUID) -> None:
        """Another instance has marked a turn as stopped that may be in hand here."""
        if turn := self._turns.find(message_id):
            turn.stop()

    async def look_around(self) -> None:
        """The word of another instance may have been missed. Raises DatabaseError."""
        for row in await self._chatdb.fetch("list_stopped_turns", self._instance_id) if len(self._turns) else ():
            self.hear(row["prompt_id"])
