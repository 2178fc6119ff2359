"""The turns in hand on this instance, and each session's line of them."""

import asyncio
import time
from contextlib import suppress
from uuid import UUID

from chat.answering import Answering
from chat.delivery import Delivery
from chat.drafts import Drafts
from chat.turn import Elsewhere, Lane, Turn
from common import metrics
from common.errors import DatabaseError
from common.logs import log, session_hash
from common.tasks import TaskOwner
from database.pool import Database

ASK_SECONDS = 1.0


class Turns:
    """Exactly one answer to a prompt is stored, whichever instances try: a unique index sees to it.

    While the instance that has a turn lives, no other asks the LLM server for it.
    """

    def __init__(
        self, instance_id: int, chatdb: Database, delivery: Delivery, drafts: Drafts, answering: Answering
    ) -> None:
        self._instance_id = instance_id
        self._chatdb = chatdb
        self._delivery = delivery
        self._drafts = drafts
        self._answering = answering
        self._turns: dict[UUID, Turn] = {}
        self._lanes: dict[UUID, Lane] = {}
        self._removed = asyncio.Event()
        self.tasks = TaskOwner("turns")

    def __len__(self) -> int:
        return len(self._turns)

    def oldest_age(self) -> float:
        """Seconds since the oldest turn in hand was taken."""
        oldest = min((turn.started_at for turn in self._turns.values()), default=None)
        return time.perf_counter() - oldest if oldest else 0.0

    def find(self, message_id: UUID) -> Turn | None:
        return self._turns.get(message_id)

    def is_elsewhere(self, session_id: UUID, message_id: UUID) -> bool:
        """Whether the session waits for another instance to answer this prompt."""
        lane = self._lanes.get(session_id)
        return lane is not None and any(message_id in elsewhere.message_ids for elsewhere in lane.elsewhere)

    def count(self, session_id: UUID) -> int:
        """How much of a session is in hand; turns elsewhere count as one."""
        lane = self._lanes.get(session_id)
        return lane.in_hand + len(lane.elsewhere) if lane else 0

    def add(self, turn: Turn) -> None:
        """Takes a turn in hand, which gets its place in line when its prompt is stored."""
        self._turns[turn.message_id] = turn
        self._lanes.setdefault(turn.session_id, Lane()).in_hand += 1

    def line_up(self, turn: Turn | Elsewhere) -> None:
        """Puts a turn in hand at the end of its session's line."""
        lane = self._lanes[turn.session_id]
        lane.line.append(turn)
        if not lane.is_worked_on:
            lane.is_worked_on = True
            self.tasks.start(self._work(turn.session_id, lane))

    def remove(self, turn: Turn) -> None:
        """Lets go of a turn that is done, or that never got its place in line."""
        del self._turns[turn.message_id]
        self._removed.set()
        lane = self._lanes[turn.session_id]
        lane.in_hand -= 1
        self._forget(turn.session_id, lane)

    def _forget(self, session_id: UUID, lane: Lane) -> None:
        if not lane.in_hand and not lane.elsewhere:
            del self._lanes[session_id]

    async def _work(self, session_id: UUID, lane: Lane) -> None:
        while lane.line:
            turn = lane.line.popleft()
            try:
                if isinstance(turn, Turn):
                    await self._answering.answer(turn)
                else:
                    await self._wait_for(turn)
            except Exception:
                log.exception("turn failed", session=session_hash(session_id))
            finally:
                if isinstance(turn, Turn):
                    self.remove(turn)
                else:
                    lane.line.extendleft(reversed(turn.taken))
                    lane.elsewhere.remove(turn)
                    self._forget(session_id, lane)
        lane.is_worked_on = False

    async def follow(self, session_id: UUID) -> None:
        """A session was resumed here: its next prompts wait for answers of other instances. Raises DatabaseError."""
        message_ids = set(await self._list_elsewhere(session_id))
        lane = self._lanes.get(session_id)
        for earlier in lane.elsewhere if lane else ():
            if not earlier.is_over:
                message_ids -= earlier.message_ids
                earlier.has_news.set()  # the new socket is to be shown what the old one was
        if message_ids:
            elsewhere = Elsewhere(session_id, message_ids)
            self._lanes.setdefault(session_id, Lane()).elsewhere.append(elsewhere)
            self.line_up(elsewhere)

    async def _list_elsewhere(self, session_id: UUID) -> dict[UUID, int]:
        rows = await self._chatdb.fetch("list_open_turns", session_id, self._instance_id)
        return {row["prompt_id"]: row["instance_id"] for row in rows}

    def unfollow(self, session_id: UUID) -> None:
        """A session's visitor has left: nobody waits, unless prompts of theirs stand in line."""
        lane = self._lanes.get(session_id)
        for elsewhere in lane.elsewhere if lane and not lane.in_hand else ():
            elsewhere.is_over = True
            elsewhere.has_news.set()

    async def _wait_for(self, elsewhere: Elsewhere) -> None:
        """Waits until the answers are stored and on their way to the visitor, or nobody waits for them any more."""
        while not elsewhere.is_over:
            elsewhere.has_news.clear()
            session = self._delivery.watch(elsewhere.session_id, elsewhere.has_news)
            with suppress(DatabaseError):
                makers = await self._list_elsewhere(elsewhere.session_id)
                for message_id in elsewhere.message_ids - makers.keys():
                    self._drafts.unfollow(message_id)
                elsewhere.message_ids &= makers.keys()
                if not elsewhere.message_ids:
                    self._delivery.look_at(elsewhere.session_id)  # in case the notice of an answer was lost
                    return
                for message_id in elsewhere.message_ids if session and session.wants_drafts else ():
                    await self._drafts.follow(elsewhere.session_id, message_id, makers[message_id])
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_SECONDS):
                    await elsewhere.has_news.wait()
        for message_id in elsewhere.message_ids:
            self._drafts.unfollow(message_id)

    async def take_over(self) -> None:
        """Answers prompts that nobody has in hand. Raises DatabaseError."""
        rows = await self._chatdb.fetch("take_turns", self._instance_id, list(self._turns))
        rows = [row for row in rows if row["id"] not in self._turns]  # taken in hand meanwhile
        for row in rows:
            turn = Turn(row["session_id"], row["id"], row["content"], row["attempt"])
            turn.is_stopped, turn.is_too_old = row["is_stopped"], row["is_too_old"]
            self.add(turn)
            for elsewhere in self._lanes[turn.session_id].elsewhere:
                if turn.message_id in elsewhere.message_ids:
                    elsewhere.taken.append(turn)
                    elsewhere.has_news.set()
                    break
            else:
                self.line_up(turn)
        metrics.turns_taken_over.inc(len(rows))
        if rows:
            log.warning("turns taken over", turns=len(rows))

    async def stop(self, session_id: UUID, message_id: UUID) -> None:
        """Ends the turn of a prompt, wherever it is being answered, and for good. Raises DatabaseError."""
        turn = self._turns.get(message_id)
        if turn is not None and turn.session_id == session_id:
            turn.stop()
        row = await self._chatdb.fetchrow("stop_turn", message_id, session_id)
        if row is not None and row["instance_id"] != self._instance_id:
            await self._drafts.tell_to_stop(row["instance_id"], message_id)

    def stop_here(self, message_id: UUID) -> None:
        """Another instance has marked a turn as stopped, which may be in hand here."""
        if turn := self._turns.get(message_id):
            turn.stop()

    async def look_for_stops(self) -> None:
        """The word that another instance has marked a turn as stopped may have been missed. Raises DatabaseError."""
        for row in await self._chatdb.fetch("list_stopped_turns", self._instance_id) if self._turns else ():
            self.stop_here(row["prompt_id"])

    async def drain(self) -> None:
        """Waits until every turn in hand is answered."""
        while self._turns:
            self._removed.clear()
            await self._removed.wait()
