"""Prompts taken from visitors: known, too many, stored, or claimed."""

import asyncio
from uuid import UUID

import asyncpg

from chat.answers import Answers
from chat.delivery import Delivery
from chat.frames import PlacedAnswer
from chat.qna import Known, Qna
from chat.session import Session
from chat.stops import Stops
from chat.turn import OUTCOMES, Turn
from chat.turns import Turns
from common import errors
from common.logs import log
from common.tasks import TaskOwner
from database.pool import Database
from database.shared import BatchedStatement


class Prompts:
    """A prompt whose storing fails may be stored after all, but late: then its turn is found like any left behind.

    A session's prompts stand in line in the order in which they are stored, which is that in which they are taken.
    """

    def __init__(
        self,
        max_pending: int,
        chatdb: Database,
        qna: Qna,
        delivery: Delivery,
        answers: Answers,
        turns: Turns,
        stops: Stops,
    ) -> None:
        self._max_in_hand = max_pending + 1
        self._chatdb = chatdb
        self._qna = qna
        self._delivery = delivery
        self._answers = answers
        self._turns = turns
        self._stops = stops
        self._store_prompts = BatchedStatement(chatdb, "store_prompts", apart="id")
        self._held: dict[UUID, list[tuple[Turn, Session]]] = {}
        self.tasks = TaskOwner("prompts")

    def take(self, session: Session, message_id: UUID, text: str) -> None:
        """Takes a prompt from a visitor; what becomes of it is sent to them. Raises Refused if it is not taken."""
        turn = self._turns.find(message_id)
        if turn is not None and turn.session_id != session.id:
            raise _already_used(message_id)
        if turn is not None or self._turns.is_remote(session.id, message_id):
            OUTCOMES["duplicate"].inc()
            return  # sent again while its answer is on its way: the one answer will do
        count = self._turns.count(session.id)
        if count >= self._max_in_hand:
            raise errors.Refused(errors.TOO_MANY_PENDING, message_id)
        turn = Turn(session.id, message_id, text)
        self._turns.add(turn)
        if session.id in self._held:
            self._held[session.id].append((turn, session))
        elif not count and (known := self._qna.find(text)):
            self._held[session.id] = []
            self.tasks.start(self._store_with_answer(turn, session, known))
        else:
            self._store(turn, session)

    def _store(self, turn: Turn, session: Session) -> None:
        instance_id = self._delivery.instance_id
        row = {"id": turn.message_id, "session_id": turn.session_id, "content": turn.text, "instance_id": instance_id}
        stored = self._store_prompts.put(row | {"shown_at": session.shown_at})
        stored.add_done_callback(lambda stored: self._on_stored(turn, session, stored))

    def _on_stored(self, turn: Turn, session: Session, stored: asyncio.Future[list[asyncpg.Record]]) -> None:
        error = stored.exception()
        if error is None and (rows := stored.result()):
            turn.asked_at = rows[0]["created_at"]
            self._line_up(turn, session)
        else:
            self.tasks.start(self._claim(turn, session, error))

    def _line_up(self, turn: Turn, session: Session) -> None:
        turn.mark("store_prompt")
        self._turns.line_up(turn)
        if turn.is_stopped:  # before there was a row to mark
            self._stops.stop(session, turn.message_id)

    async def _store_with_answer(self, turn: Turn, session: Session, known: Known) -> None:
        """Stores a prompt that is first in line in one statement with its answer; the next ones wait for that."""
        rows: list[asyncpg.Record] = []
        try:
            rows = await self._answers.store_with_prompt(turn, known.answer)
        finally:
            held = self._held.pop(session.id)
            for one in held if rows else [(turn, session), *held]:
                self._store(*one)
        if not rows:
            return
        try:
            OUTCOMES[known.kind].inc()
            known.count_view()
            await self._answers.send(turn, known.answer, rows)
            turn.log(known.kind)
        finally:
            self._turns.remove(turn)

    async def _claim(self, turn: Turn, session: Session, error: BaseException | None) -> None:
        """Finds out why a prompt was not stored: it may have been stored before, or the database failed."""
        try:
            if error is not None:
                raise error
            if await self._is_claimed(turn, session):
                self._line_up(turn, session)
                return
        except errors.Refused as refused:
            await session.socket.refuse(refused)
        except Exception as failure:
            self._delivery.look_at(session.id)  # it may even have been answered
            self._turns.doubt()
            is_database = isinstance(failure, errors.DatabaseError)
            text = errors.DB_FAILED if is_database else errors.UNKNOWN_ERROR
            await session.socket.refuse(errors.Refused(text, turn.message_id))
            if not is_database:
                log.exception("prompt failed")
        self._turns.remove(turn)

    async def _is_claimed(self, turn: Turn, session: Session) -> bool:
        """Whether a prompt that was stored before is to be answered here. Raises Refused, DatabaseError."""
        instance_id = self._delivery.instance_id
        known = await self._chatdb.fetchrow("claim_prompt", turn.message_id, turn.session_id, instance_id)
        if known is None:
            log.error("a prompt's session is no longer in the database")
            raise errors.DatabaseError
        if known["session_id"] != turn.session_id or not known["is_user"]:
            raise _already_used(turn.message_id)
        turn.asked_at = known["asked_at"]
        if known["attempt"] is None:
            OUTCOMES["duplicate"].inc()
        else:
            turn.attempt, turn.is_stopped = known["attempt"], turn.is_stopped or known["is_stopped"]
        if known["created_at"] is not None:
            answer = PlacedAnswer.from_row(known)
            if answer.created_at > session.sent_at:
                self._delivery.look_at(session.id)  # it is on its way, behind what was stored before it
            else:
                await session.socket.send(answer.to_frame())
        return known["attempt"] is not None


def _already_used(message_id: UUID) -> errors.Refused:
    return errors.Refused(errors.INVALID_MESSAGE.format("message_id is already used"), message_id)
