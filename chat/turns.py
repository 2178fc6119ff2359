"""The turns in hand on this instance, and each session's line of them."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import TypeAlias
from uuid import UUID

import asyncpg

from chat.answering import Answering
from chat.delivery import Delivery
from chat.turn import Turn, TurnElsewhere
from common import metrics
from common.errors import DatabaseError
from common.logs import fields
from common.tasks import TaskOwner
from database.pool import Database

logger = logging.getLogger("gateway.turns")

ASK_SECONDS = 2.0
InLine: TypeAlias = Turn | TurnElsewhere


class Lane:
    """A session's turns in hand. One task answers those in line, one at a time, in the order of the line."""

    __slots__ = ("current", "in_hand", "line")

    def __init__(self) -> None:
        self.in_hand: set[InLine] = set()  # in line, being answered, or still being stored
        self.line: deque[InLine] = deque()
        self.current: InLine | None = None


class Turns:
    """Exactly one answer to a prompt is stored, whichever instances try: a unique index sees to it.

    While the instance that has a turn lives, no other asks the LLM server for it.
    """

    def __init__(self, instance_id: int, chatdb: Database, delivery: Delivery, answering: Answering) -> None:
        self._instance_id = instance_id
        self._chatdb = chatdb
        self._delivery = delivery
        self._answering = answering
        self._turns: dict[UUID, InLine] = {}
        self._lanes: dict[UUID, Lane] = {}
        self._to_answer = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.tasks = TaskOwner("turns")

    def __len__(self) -> int:
        """How many turns this instance has to answer."""
        return self._to_answer

    def oldest_age(self) -> float:
        """Seconds since the oldest of them was taken."""
        oldest = min((turn.started_at for turn in self._turns.values() if isinstance(turn, Turn)), default=None)
        return time.perf_counter() - oldest if oldest else 0.0

    def find(self, message_id: UUID) -> InLine | None:
        return self._turns.get(message_id)

    def count(self, session_id: UUID) -> int:
        """How many turns of a session are in hand."""
        lane = self._lanes.get(session_id)
        return len(lane.in_hand) if lane else 0

    def add(self, turn: InLine) -> None:
        """Takes a turn in hand, which gets its place in line when its prompt is stored."""
        self._turns[turn.message_id] = turn
        self._lanes.setdefault(turn.session_id, Lane()).in_hand.add(turn)
        if isinstance(turn, Turn):
            self._to_answer += 1
            self._idle.clear()

    def line_up(self, turn: InLine) -> None:
        """Puts a turn in hand at the end of its session's line."""
        lane = self._lanes[turn.session_id]
        lane.line.append(turn)
        if lane.current is None:
            lane.current = turn
            self.tasks.start(self._work(lane))

    def remove(self, turn: InLine) -> None:
        """Lets go of a turn that is done, or that never got its place in line."""
        if self._turns.get(turn.message_id) is turn:
            del self._turns[turn.message_id]
        lane = self._lanes[turn.session_id]
        lane.in_hand.discard(turn)
        if not lane.in_hand:
            del self._lanes[turn.session_id]
        if isinstance(turn, Turn):
            self._to_answer -= 1
            if not self._to_answer:
                self._idle.set()

    async def _work(self, lane: Lane) -> None:
        while lane.line:
            turn = lane.current = lane.line.popleft()
            try:
                if isinstance(turn, Turn):
                    await self._answering.answer(turn)
                else:
                    await self._wait_for(turn)
            except Exception:
                logger.exception("turn failed", extra=fields(message_id=turn.message_id))
            finally:
                self.remove(turn)
        lane.current = None

    async def follow(self, session_id: UUID) -> None:
        """A session was resumed here: its next prompts wait for answers of other instances. Raises DatabaseError."""
        for row in await self._chatdb.fetch("list_open_turns", session_id, self._instance_id):
            if row["prompt_id"] not in self._turns:
                turn = TurnElsewhere(session_id, row["prompt_id"])
                self.add(turn)
                self.line_up(turn)

    async def _wait_for(self, turn: TurnElsewhere) -> None:
        """Until the answer is stored and on its way to the visitor, or nobody has to wait for it any more."""
        while not turn.is_over:
            turn.has_news.clear()
            self._delivery.watch(turn.session_id, turn.has_news)
            with suppress(DatabaseError):
                row = await self._chatdb.fetchrow("is_turn_open", turn.message_id)
                if row and not row["is_open"]:
                    self._delivery.look_at(turn.session_id)  # in case the notice of it was lost
                    return
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_SECONDS):
                    await turn.has_news.wait()

    def unfollow(self, session_id: UUID) -> None:
        """A session's visitor has left: unless prompts of theirs stand behind them, turns elsewhere are let go."""
        lane = self._lanes.get(session_id)
        turns = [turn for turn in lane.in_hand if isinstance(turn, TurnElsewhere)] if lane else []
        if lane and len(turns) == len(lane.in_hand):
            for turn in turns:
                turn.end()

    def take_over(self, prompts: Sequence[asyncpg.Record]) -> None:
        """Answers prompts that another instance left; each has `id`, `session_id`, `content` and `is_too_old`."""
        for row in prompts:
            before = self._turns.get(row["id"])
            if isinstance(before, Turn):
                continue
            turn = Turn(row["session_id"], row["id"], row["content"], row["is_too_old"])
            self.add(turn)
            if before is None:
                self.line_up(turn)
                continue
            # The session's line has waited for it: it keeps its place.
            lane = self._lanes[turn.session_id]
            if before in lane.line:
                lane.line[lane.line.index(before)] = turn
                self.remove(before)
            else:
                lane.line.appendleft(turn)
                before.end()
        metrics.turns_taken_over.inc(len(prompts))
        if prompts:
            logger.warning("turns taken over", extra=fields(turns=len(prompts)))

    async def drain(self) -> None:
        """Until every turn that this instance has to answer is answered."""
        await self._idle.wait()
