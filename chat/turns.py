"""The turns in hand on this instance, and each session's line of them."""

import asyncio
import time
from uuid import UUID

from chat.answering import Answering
from chat.turn import Lane, RemoteTurns, Turn
from chat.waiting import Waiting
from common import metrics
from common.errors import DatabaseError
from common.logs import log, session_hash
from common.tasks import TaskOwner
from database.pool import Database

DOUBT_SECONDS = 60.0  # during which a statement that has seemed to fail may yet succeed


class Turns:
    """Exactly one answer to a prompt is stored, whichever instances try: a unique index sees to it.

    While the instance that has a turn lives, no other asks the LLM server for it.
    """

    def __init__(self, instance_id: int, chatdb: Database, answering: Answering, waiting: Waiting) -> None:
        self._instance_id = instance_id
        self._chatdb = chatdb
        self._answering = answering
        self._waiting = waiting
        self._turns: dict[UUID, Turn] = {}
        self._lanes: dict[UUID, Lane] = {}
        self._removed = asyncio.Event()
        self._doubt_ends = 0.0
        self.tasks = TaskOwner("turns")

    def __len__(self) -> int:
        return len(self._turns)

    def oldest_age(self) -> float:
        """Seconds since the oldest turn in hand was taken."""
        oldest = min((turn.started_at for turn in self._turns.values()), default=None)
        return time.perf_counter() - oldest if oldest else 0.0

    def find(self, message_id: UUID) -> Turn | None:
        return self._turns.get(message_id)

    def is_remote(self, session_id: UUID, message_id: UUID) -> bool:
        """Whether the session waits for another instance to answer this prompt."""
        lane = self._lanes.get(session_id)
        return lane is not None and any(message_id in remote.message_ids for remote in lane.remote)

    def count(self, session_id: UUID) -> int:
        """How much of a session is in hand; turns of other instances count as one."""
        lane = self._lanes.get(session_id)
        return lane.in_hand + len(lane.remote) if lane else 0

    def add(self, turn: Turn) -> None:
        """Takes a turn in hand, which gets its place in line when its prompt is stored."""
        self._turns[turn.message_id] = turn
        self._lane(turn.session_id).in_hand += 1

    def _lane(self, session_id: UUID) -> Lane:
        lane = self._lanes.get(session_id)
        if lane is None:
            lane = self._lanes[session_id] = Lane()
        return lane

    def line_up(self, turn: Turn | RemoteTurns) -> None:
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
        if not lane.in_hand and not lane.remote:
            del self._lanes[session_id]

    async def _work(self, session_id: UUID, lane: Lane) -> None:
        while lane.line:
            turn = lane.line.popleft()
            try:
                if isinstance(turn, Turn):
                    await self._answering.answer(turn)
                else:
                    await self._waiting.wait(turn)
            except Exception:
                log.exception("turn failed", session=session_hash(session_id))
                self.doubt()
            finally:
                if isinstance(turn, Turn):
                    self.remove(turn)
                else:
                    lane.line.extendleft(reversed(turn.taken))
                    lane.remote.remove(turn)
                    self._forget(session_id, lane)
        lane.is_worked_on = False

    async def follow(self, session_id: UUID) -> None:
        """A session was resumed here: its next prompts wait for answers of other instances. Raises DatabaseError."""
        message_ids = set(await self._waiting.list_open(session_id))
        lane = self._lanes.get(session_id)
        for earlier in lane.remote if lane else ():
            if not earlier.is_over:
                message_ids -= earlier.message_ids
                earlier.has_news.set()  # the new socket is to be shown what the old one was
        if message_ids:
            remote = RemoteTurns(session_id, message_ids)
            self._lane(session_id).remote.append(remote)
            self.line_up(remote)

    def unfollow(self, session_id: UUID) -> None:
        """A session's visitor has left: nobody waits, unless prompts of theirs stand in line."""
        lane = self._lanes.get(session_id)
        for remote in lane.remote if lane and not lane.in_hand else ():
            remote.is_over = True
            remote.has_news.set()

    def doubt(self) -> None:
        """There may be, or come to be, turns in this instance's name that it does not have in hand."""
        self._doubt_ends = time.monotonic() + DOUBT_SECONDS

    async def take_over(self, *, may_be_orphans: bool) -> None:
        """Answers prompts that nobody has in hand. Raises DatabaseError."""
        looks = may_be_orphans or time.monotonic() < self._doubt_ends
        try:
            found = await self._chatdb.fetch("take_turns", self._instance_id, list(self._turns), looks)
        except DatabaseError:
            self.doubt()
            raise
        for row in (rows := [row for row in found if row["id"] not in self._turns]):  # the others were taken meanwhile
            turn = Turn(row["session_id"], row["id"], row["content"], row["attempt"], row["created_at"])
            turn.is_stopped, turn.is_too_old = row["is_stopped"], row["is_too_old"]
            self.add(turn)
            for remote in self._lanes[turn.session_id].remote:
                if turn.message_id in remote.message_ids:
                    remote.taken.append(turn)
                    remote.has_news.set()
                    break
            else:
                self.line_up(turn)
        metrics.turns_taken_over.inc(len(rows))
        if rows:
            log.warning("turns taken over", turns=len(rows))

    async def drain(self) -> None:
        """Waits until every turn in hand is answered."""
        while self._turns:
            self._removed.clear()
            await self._removed.wait()
