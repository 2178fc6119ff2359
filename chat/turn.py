"""What stands in a session's line: a prompt to be answered here, or turns that other instances answer."""

import asyncio
import time
from collections import deque
from typing import Any
from uuid import UUID

from common import metrics
from common.logs import log, session_hash
from upstream.call import Call

# Looked up once; to find a metric by its labels costs more than to add to it.
PARTS = {
    part: metrics.turn_seconds.labels(part) for part in ("store_prompt", "wait", "upstream", "store_answer", "send")
}
OUTCOMES = {
    outcome: metrics.prompts.labels(outcome) for outcome in ("faq", "term", "llm", "stopped", "too_old", "duplicate")
}


class Turn:
    """A prompt that this instance answers."""

    __slots__ = ("_marked_at", "attempt", "call", "is_stopped", "is_too_old", "message_id", "milliseconds", "pieces",
                 "session_id", "started_at", "text")  # fmt: skip

    def __init__(self, session_id: UUID, message_id: UUID, text: str, attempt: int = 1) -> None:
        self.session_id = session_id
        self.message_id = message_id
        self.text = text
        self.attempt = attempt
        self.is_stopped = self.is_too_old = False
        self.call: Call | None = None  # of the LLM server, from when it is asked
        self.pieces = 0
        self.milliseconds: dict[str, float] = {}
        self.started_at = self._marked_at = time.perf_counter()

    def mark(self, part: str) -> None:
        """Notes how long a part of the turn took, which ends now."""
        now = time.perf_counter()
        PARTS[part].observe(now - self._marked_at)
        self.milliseconds[part] = int((now - self._marked_at) * 100_000) / 100
        self._marked_at = now

    def stop(self) -> None:
        """Ends it at once if it is being answered; otherwise it is not asked when its turn comes."""
        self.is_stopped = True
        if self.call:
            self.call.stop()

    def log(self, outcome: str) -> None:
        """The line of a turn that is done."""
        self.mark("send")
        session, parts = session_hash(self.session_id), self.milliseconds
        streamed: dict[str, Any] = {"pieces": self.pieces} if self.pieces else {}
        log.info("turn", session=session, message_id=self.message_id, outcome=outcome, milliseconds=parts, **streamed)


class Elsewhere:
    """Turns that other instances had in hand when a session was resumed: what stands behind it in line waits for them.

    Those of them that this instance takes over are `taken`, and come next.
    """

    __slots__ = ("has_news", "is_over", "message_ids", "session_id", "taken")

    def __init__(self, session_id: UUID, message_ids: set[UUID]) -> None:
        self.session_id = session_id
        self.message_ids = message_ids
        self.is_over = False  # nobody waits for them any more
        self.has_news = asyncio.Event()
        self.taken: list[Turn] = []


class Lane:
    """A session's line. One task answers what stands in it, one turn at a time, in its order.

    `in_hand` counts the session's turns: in line, being answered, or still being stored.
    """

    __slots__ = ("elsewhere", "in_hand", "is_worked_on", "line")

    def __init__(self) -> None:
        self.line: deque[Turn | Elsewhere] = deque()
        self.in_hand = 0
        self.elsewhere: list[Elsewhere] = []
        self.is_worked_on = False
