"""The turns in hand on this instance, and each session's line of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from uuid import UUID

import asyncpg

from chat.answering import Answering
from chat.elsewhere import Elsewhere
from chat.turn import Turn, TurnElsewhere
from common import metrics
from common.logs import fields
from common.tasks import TaskOwner

logger = logging.getLogger("gateway.turns")


class Lane:
    """A session's turns in hand. One task answers those in line, one at a time, in the order of the line."""

    __slots__ = ("current", "in_hand", "line")

    def __init__(self) -> None:
        self.in_hand: set[Turn | TurnElsewhere] = set()  # in line, being answered, or still being stored
        self.line: deque[Turn | TurnElsewhere] = deque()
        self.current: Turn | TurnElsewhere | None = None


class Turns:
    """Exactly one answer to a prompt is stored, whichever instances try: a unique index sees to it.

    While the instance that has a turn lives, no other asks the LLM server for it.
    """

    def __init__(self, answering: Answering, elsewhere: Elsewhere) -> None:
        self._answering = answering
        self._elsewhere = elsewhere
        self._turns: dict[UUID, Turn | TurnElsewhere] = {}
        self._lanes: dict[UUID, Lane] = {}
        self._to_answer = 0
        self._none_left = asyncio.Event()
        self._none_left.set()
        self._tasks = TaskOwner("turns")

    def find(self, message_id: UUID) -> Turn | TurnElsewhere | None:
        return self._turns.get(message_id)

    def count(self, session_id: UUID) -> int:
        """How many turns of a session are in hand."""
        lane = self._lanes.get(session_id)
        return len(lane.in_hand) if lane else 0

    def add(self, turn: Turn | TurnElsewhere) -> None:
        """Takes a turn in hand, which gets its place in line when its prompt is stored."""
        self._turns[turn.message_id] = turn
        self._lanes.setdefault(turn.session_id, Lane()).in_hand.add(turn)
        if isinstance(turn, Turn):
            self._to_answer += 1
            self._none_left.clear()

    def line_up(self, turn: Turn | TurnElsewhere) -> None:
        """Puts a turn in hand at the end of its session's line."""
        lane = self._lanes[turn.session_id]
        lane.line.append(turn)
        if lane.current is None:
            lane.current = turn
            self._tasks.start(self._work(lane))

    def remove(self, turn: Turn | TurnElsewhere) -> None:
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
                self._none_left.set()

    async def _work(self, lane: Lane) -> None:
        while lane.line:
            turn = lane.current = lane.line.popleft()
            try:
                if isinstance(turn, Turn):
                    await self._answering.answer(turn)
                else:
                    await self._elsewhere.wait(turn)
            except Exception:
                logger.exception("turn failed", extra=fields(message_id=turn.message_id))
            finally:
                self.remove(turn)
        lane.current = None

    async def follow(self, session_id: UUID) -> None:
        """A session was resumed here: its next prompts wait for answers of other instances. Raises DatabaseError."""
        for message_id in await self._elsewhere.list_open(session_id):
            if message_id not in self._turns:
                turn = TurnElsewhere(session_id, message_id)
                self.add(turn)
                self.line_up(turn)

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
            else:
                self._take_place(turn, before)
        metrics.turns_taken_over.inc(len(prompts))
        if prompts:
            logger.warning("turns taken over", extra=fields(turns=len(prompts)))

    def _take_place(self, turn: Turn, before: TurnElsewhere) -> None:
        """A turn that this session's line has waited for is to be answered here."""
        lane = self._lanes[turn.session_id]
        if lane.current is before:
            lane.line.appendleft(turn)
            before.end()
        else:
            lane.line[lane.line.index(before)] = turn
            self.remove(before)

    async def drain(self) -> None:
        """Until every turn in hand has been answered."""
        await self._none_left.wait()

    def __len__(self) -> int:
        """How many turns this instance has to answer."""
        return self._to_answer

    def oldest_age(self) -> float:
        """Seconds since the oldest of them was taken."""
        oldest = min((turn.started_at for turn in self._turns.values() if isinstance(turn, Turn)), default=None)
        return time.perf_counter() - oldest if oldest else 0.0

    async def stop(self, within: float) -> None:
        """Lets go of what is left; another instance takes it up."""
        await self._tasks.cancel(within)
