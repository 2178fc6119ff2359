"""Turns, from the prompt to the stored answer, whether their visitor stays or not; and pushes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID, uuid4

import asyncpg
import orjson

import errors
import metrics
from database import Database, SharedStatement
from logs import fields, session_hash
from qna import Known, Qna
from sessions import Session, Sessions, answer_frame, stored_answer
from settings import Settings
from tasks import TaskOwner
from upstream.call import Call
from upstream.llm import LlmServer
from upstream.mcp import McpServer
from upstream.replies import Answer

logger = logging.getLogger("gateway.turns")

RETRY_SECONDS = 0.5
FOLLOW_SECONDS = 2.0
# For so long a prompt whose storing failed is looked for: the statement may have been done after all, and late.
UNCERTAIN_SECONDS = 60.0
MAX_UNCERTAIN = 10_000
# To store a prompt with its answer may take so long; then the database is in trouble, and they are stored one by one.
AT_ONCE_SECONDS = 0.5

# Looked up once; to find a metric by its labels costs more than to add to it.
PARTS = {
    part: metrics.turn_seconds.labels(part) for part in ("store_prompt", "wait", "upstream", "store_answer", "send")
}
OUTCOMES = {outcome: metrics.prompts.labels(outcome) for outcome in ("faq", "term", "llm", "too_old", "duplicate")}


class Turn:
    """A prompt that waits for its answer. `text` is None while another instance answers it."""

    __slots__ = ("_marked_at", "done", "is_too_old", "message_id", "milliseconds", "session_id", "started_at", "text")

    def __init__(self, session_id: UUID, message_id: UUID, text: str | None, is_too_old: bool = False) -> None:
        self.session_id = session_id
        self.message_id = message_id
        self.text = text
        self.is_too_old = is_too_old
        self.done = asyncio.Event() if text is None else None
        self.milliseconds: dict[str, float] = {}
        self.started_at = self._marked_at = time.perf_counter()

    def mark(self, part: str) -> None:
        """Notes how long a part of the turn took, which ends now."""
        now = time.perf_counter()
        PARTS[part].observe(now - self._marked_at)
        self.milliseconds[part] = int((now - self._marked_at) * 100_000) / 100
        self._marked_at = now


class Unseen:
    """Takes what comes before an answer and shows it to nobody."""

    def delta(self, text: str) -> None:
        pass

    def tool(self, name: str) -> None:
        pass


class Lane:
    """A session's turns in hand: one is answered at a time, in the order in which the prompts were stored.

    `storing` is held until a prompt stands in line to be stored, or is stored if that is done with its answer.
    """

    __slots__ = ("lock", "storing", "turns")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.storing = asyncio.Lock()
        self.turns: set[UUID] = set()


class Turns:
    """The turns in hand on this instance.

    Exactly one answer to a prompt is stored, whichever instances try: a unique index sees to it. While the instance
    that has a turn lives, no other asks the LLM server for it.
    """

    def __init__(
        self, settings: Settings, chatdb: Database, sessions: Sessions, qna: Qna, llm: LlmServer, mcp: McpServer
    ) -> None:
        self.instance_id = 0
        self._max_in_hand = settings.max_pending_prompts + 1
        self._max_unstored = settings.max_unstored_answers
        self._chatdb = chatdb
        self._sessions = sessions
        self._qna = qna
        self._llm = llm
        self._mcp = mcp
        self._prompts = SharedStatement(chatdb, "store_prompts")
        self._answers = SharedStatement(chatdb, "store_answers")
        self._ties = SharedStatement(chatdb, "tie_personas")
        self._personas = SharedStatement(chatdb, "get_persona_ids")
        self._turns: dict[UUID, Turn] = {}
        self._lanes: dict[UUID, Lane] = {}
        self._uncertain: dict[UUID, float] = {}
        self._unstored = 0
        self._loop = asyncio.get_running_loop()
        self._tasks = TaskOwner("turns")
        self._following = TaskOwner("turns answered elsewhere")

    def submit(self, session: Session, message_id: UUID, text: str) -> None:
        """Takes a prompt from a visitor; what becomes of it is sent to them. Raises Refused if it is not taken."""
        known = self._turns.get(message_id)
        if known is not None:
            if known.session_id != session.id:
                raise _already_used(message_id)
            OUTCOMES["duplicate"].inc()
            return  # sent again while its answer is on its way: the one answer will do
        lane = self._lanes.get(session.id)
        if lane is not None and len(lane.turns) >= self._max_in_hand:
            raise errors.Refused(errors.TOO_MANY_PENDING, message_id)
        self._tasks.start(self._take(self._add(Turn(session.id, message_id, text)), session))

    def _add(self, turn: Turn) -> Turn:
        self._turns[turn.message_id] = turn
        self._lanes.setdefault(turn.session_id, Lane()).turns.add(turn.message_id)
        return turn

    def _remove(self, turn: Turn) -> None:
        if self._turns.get(turn.message_id) is turn:
            del self._turns[turn.message_id]
            lane = self._lanes[turn.session_id]
            lane.turns.discard(turn.message_id)
            if not lane.turns:
                del self._lanes[turn.session_id]

    async def _take(self, turn: Turn, session: Session) -> None:
        try:
            async with self._lanes[turn.session_id].storing:
                at_once = await self._store_with_answer(turn)
                if at_once is None:
                    stored = self._prompts.put(turn.message_id, turn.session_id, turn.text, self.instance_id)
            if at_once is not None:
                await self._send_known(turn, *at_once)
            elif await stored is not None or await self._claim(turn, session):
                turn.mark("store_prompt")
                await self._answer_in_order(turn)
        except errors.Refused as refused:
            await session.refuse(refused)
        except Exception as error:
            if len(self._uncertain) < MAX_UNCERTAIN:
                self._uncertain[turn.message_id] = time.monotonic() + UNCERTAIN_SECONDS
            self._sessions.touch(turn.session_id)  # it may even have been answered
            text = errors.DB_FAILED if isinstance(error, errors.DatabaseError) else errors.UNKNOWN_ERROR
            await session.refuse(errors.Refused(text, turn.message_id))
            if not isinstance(error, errors.DatabaseError):
                raise
        finally:
            self._remove(turn)

    async def _store_with_answer(self, turn: Turn) -> tuple[Known, UUID, asyncpg.Record] | None:
        """Stores a prompt that no other stands before, and whose answer is known, in one statement with it.

        None if it is no such prompt, or was stored before, or if that fails: by itself the prompt may still be stored.
        """
        assert turn.text is not None
        known = self._qna.find(turn.text)
        if known is None or len(self._lanes[turn.session_id].turns) > 1:
            return None
        chat_id = uuid4()
        row = _answer_row(turn.session_id, turn.message_id, chat_id, known.answer)
        waiting = self._answers.put(*row, None, False, turn.text)
        limit = self._loop.call_later(AT_ONCE_SECONDS, _give_up, waiting)  # cheaper than asyncio.timeout
        try:
            stored = await waiting
        except errors.DatabaseError:
            return None
        finally:
            limit.cancel()
        return None if stored is None else (known, chat_id, stored)

    async def _send_known(self, turn: Turn, known: Known, chat_id: UUID, stored: asyncpg.Record) -> None:
        turn.mark("store_answer")
        OUTCOMES[known.kind].inc()
        known.count_view()
        frame = answer_frame(turn.message_id, stored["created_at"], known.answer)
        await self._sessions.deliver(turn.session_id, stored, chat_id, frame)
        self._log(turn, known.kind)

    async def _claim(self, turn: Turn, session: Session) -> bool:
        """Whether a prompt that was stored before is to be answered here. Raises Refused, DatabaseError."""
        known = await self._chatdb.fetchrow("claim_prompt", turn.message_id, turn.session_id, self.instance_id)
        if known is None:
            logger.error("a prompt's session is no longer in the database")
            raise errors.DatabaseError
        if known["session_id"] != turn.session_id or not known["is_user"]:
            raise _already_used(turn.message_id)
        if not known["claimed"]:
            OUTCOMES["duplicate"].inc()
        if known["created_at"] is not None and known["created_at"] > session.last_sent:
            self._sessions.touch(session.id)  # it is on its way, behind what was stored before it
        elif known["created_at"] is not None:
            await session.send(answer_frame(known["message_id"], known["created_at"], stored_answer(known)))
        return bool(known["claimed"])

    async def _answer_in_order(self, turn: Turn) -> None:
        async with self._lanes[turn.session_id].lock:
            await self._answer(turn)

    async def _answer(self, turn: Turn) -> None:
        assert turn.text is not None
        turn.mark("wait")
        known = self._qna.find(turn.text)
        if turn.is_too_old:
            outcome, answer = "too_old", Answer(errors.LLM_TIMEOUT)
        elif known is not None:
            outcome, answer = known.kind, known.answer
            known.count_view()
        else:
            outcome = "llm"
            answer = await self._llm.dispatch(turn.text, turn.session_id, str(turn.message_id), Call(), Unseen())
            turn.mark("upstream")
        OUTCOMES[outcome].inc()  # now: to store the answer may take as long as the database is away
        await self._store_and_send(turn, answer)
        self._log(turn, outcome)

    def _log(self, turn: Turn, outcome: str) -> None:
        """The line of a turn that is done."""
        turn.mark("send")
        about = fields(
            session=session_hash(turn.session_id),
            message_id=turn.message_id,
            outcome=outcome,
            milliseconds=turn.milliseconds,
        )
        logger.info("turn", extra=about)

    async def _store_and_send(self, turn: Turn, answer: Answer) -> None:
        chat_id, shown_at = uuid4(), None
        row = _answer_row(turn.session_id, turn.message_id, chat_id, answer)
        while True:
            try:
                stored = await self._answers.put(*row, shown_at, False, None)
                if stored is None and shown_at is not None:
                    # The first attempt was done after all, late and with a time of its own.
                    await self._chatdb.fetch("set_answer_time", chat_id, shown_at)
                break
            except errors.DatabaseError as error:
                if shown_at is None:
                    shown_at = await self._show(turn, chat_id, answer)
                    if isinstance(error, errors.RowRefused) or self._unstored >= self._max_unstored:
                        logger.error("answer lost: it could not be stored", extra=fields(message_id=turn.message_id))
                        return
                    self._unstored += 1
            await asyncio.sleep(RETRY_SECONDS)
        turn.mark("store_answer")
        if shown_at is not None:
            self._unstored -= 1
        if stored is None:
            # Another instance was first, or an attempt that had seemed to fail: what is stored is what is sent.
            await self._sessions.tell(turn.session_id)
        else:
            frame = answer_frame(turn.message_id, stored["created_at"], answer)
            await self._sessions.deliver(turn.session_id, stored, chat_id, frame)

    async def _show(self, turn: Turn, chat_id: UUID, answer: Answer) -> datetime:
        """Sends an answer that cannot be stored yet, with the time under which it is going to be."""
        now = datetime.now(UTC)
        session = self._sessions.find(turn.session_id)
        if session is not None:
            now = max(now, session.last_sent + timedelta(microseconds=1))
            await session.show(chat_id, answer_frame(turn.message_id, now, answer))
        return now

    async def login(self, session_id: UUID, persona_id: int, request_id: str) -> None:
        """Ties a session to a persona and pushes what the MCP server, which can see the tie, recommends.

        Raises NotFound, RecommendationFailed, DatabaseError.
        """
        with self._tasks.busy():
            # An id beyond the column's range is an id that no persona has.
            known_id = persona_id if abs(persona_id) < 2**31 else 0
            tie = await self._ties.put(session_id, known_id)
            if tie is None or not tie["is_connected"]:
                raise errors.NotFound(errors.NOT_CONNECTED)
            if not tie["is_persona"]:
                raise errors.NotFound(errors.NO_PERSONA)
            logger.info("login", extra=fields(session=session_hash(session_id), request_id=request_id))
            answer = await self._mcp.recommend(session_id, persona_id, request_id)
            await self._push(session_id, tie["prompt_id"], answer)

    async def get_persona_id(self, session_id: UUID) -> int | None:
        """The persona that a session is tied to. Raises NotFound if nobody is there, DatabaseError."""
        row = await self._personas.put(session_id)
        if row is None:
            raise errors.NotFound(errors.NOT_CONNECTED)
        return cast("int | None", row["persona_id"])

    async def _push(self, session_id: UUID, prompt_id: UUID | None, answer: Answer) -> None:
        """Stores a push, which carries the prompt's id or its own, and sends it. Raises DatabaseError."""
        chat_id = uuid4()
        stored = await self._answers.put(*_answer_row(session_id, prompt_id, chat_id, answer), None, True, None)
        if stored is None:  # the connection was lost after it had been stored, and the statement was run again
            await self._sessions.tell(session_id)
            return
        metrics.pushes.labels("local" if stored["instance_id"] == self.instance_id else "remote").inc()
        await self._sessions.deliver(
            session_id, stored, chat_id, answer_frame(prompt_id or chat_id, stored["created_at"], answer)
        )

    def take_over(self, prompts: Sequence[asyncpg.Record]) -> None:
        """Answers prompts that another instance left; each has `id`, `session_id`, `content` and `is_too_old`."""
        for row in prompts:
            turn = self._turns.get(row["id"])
            if turn is None:
                turn = self._add(Turn(row["session_id"], row["id"], row["content"], row["is_too_old"]))
                self._tasks.start(self._finish(turn))
            elif turn.done is not None:
                turn.text, turn.is_too_old = row["content"], row["is_too_old"]
                turn.done.set()
        metrics.turns_taken_over.inc(len(prompts))
        if prompts:
            logger.warning("turns taken over", extra=fields(turns=len(prompts)))

    async def _finish(self, turn: Turn) -> None:
        try:
            await self._answer_in_order(turn)
        finally:
            self._remove(turn)

    def uncertain(self) -> list[UUID]:
        """Prompts that could not be stored a while ago, but may have been after all."""
        now = time.monotonic()
        self._uncertain = {id: until for id, until in self._uncertain.items() if until > now}
        return [id for id in self._uncertain if id not in self._turns]

    async def follow(self, session_id: UUID) -> None:
        """A session was resumed here: its next prompts wait for the answers that other instances are making."""
        for row in await self._chatdb.fetch("list_open_turns", session_id, self.instance_id):
            known = self._turns.get(row["prompt_id"])
            if known is None or (known.done is not None and known.done.is_set()):
                turn = self._add(Turn(session_id, row["prompt_id"], None))
                self._following.start(self._follow(turn))

    async def _follow(self, turn: Turn) -> None:
        assert turn.done is not None
        try:
            async with self._lanes[turn.session_id].lock:
                while not turn.done.is_set():
                    try:
                        async with asyncio.timeout(FOLLOW_SECONDS):
                            await turn.done.wait()
                    except TimeoutError:
                        await self._ask_about(turn)
                if turn.text is not None:  # its instance was lost, and this one has taken it over
                    await self._answer(turn)
        finally:
            self._remove(turn)

    async def _ask_about(self, turn: Turn) -> None:
        """In case word of the answer was lost."""
        assert turn.done is not None
        try:
            row = await self._chatdb.fetchrow("is_turn_open", turn.message_id)
        except errors.DatabaseError:
            return
        if row is not None and not row["is_open"]:
            self._sessions.touch(turn.session_id)
            turn.done.set()

    def see(self, message_id: UUID) -> None:
        turn = self._turns.get(message_id)
        if turn is not None and turn.done is not None:
            turn.done.set()

    def unfollow(self, session_id: UUID) -> None:
        lane = self._lanes.get(session_id)
        turns = [self._turns[message_id] for message_id in lane.turns] if lane else []
        if all(turn.done is not None for turn in turns):  # otherwise prompts of the session go on waiting behind them
            for turn in turns:
                self.see(turn.message_id)

    async def drain(self) -> None:
        """Until every turn in hand has been answered."""
        await self._tasks.wait()

    def measure(self) -> None:
        """Brings the gauges up to date."""
        metrics.turns_in_hand.set(self.in_hand)
        metrics.unstored_answers.set(self._unstored)
        oldest = min((turn.started_at for turn in self._turns.values()), default=None)
        metrics.oldest_turn.set(time.perf_counter() - oldest if oldest else 0)

    @property
    def in_hand(self) -> int:
        return len(self._tasks)

    async def stop(self, within: float) -> None:
        """Lets go of what is left; another instance takes it up."""
        await self._tasks.cancel(within)
        await self._following.cancel(within)


def _answer_row(session_id: UUID, prompt_id: UUID | None, chat_id: UUID, answer: Answer) -> tuple[object, ...]:
    """The columns of an answer or a push in store_answers, up to its time."""
    payload = orjson.dumps(answer.payload).decode()
    return session_id, prompt_id, chat_id, answer.message, answer.tool_name, payload


def _give_up(waiting: asyncio.Future[asyncpg.Record | None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _already_used(message_id: UUID) -> errors.Refused:
    return errors.Refused(errors.INVALID_MESSAGE.format("message_id is already used"), message_id)
