"""What stands in a session's line: a prompt to be answered here, or turns that other instances answer."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from common import metrics
from common.logs import log, session_hash
from upstream.call import Call

# Looked up once: finding a metric by its labels costs more than adding to it.
PARTS = {
    part: metrics.turn_seconds.labels(part) for part in ("store_prompt", "wait", "upstream", "store_answer", "send")
}
OUTCOMES = {
    name: metrics.prompts.labels(name)
    for name in ("faq", "term", "llm", "llm_failed", "stopped", "too_old", "duplicate")
}


@dataclass(eq=False, slots=True)
class Turn:
    """A prompt that this instance answers; `attempt` counts how often an instance took it."""

    session_id: UUID
    message_id: UUID
    text: str
    attempt: int = 1
    asked_at: datetime | None = None  # when the prompt was stored
    is_stopped: bool = False
    is_too_old: bool = False
    call: Call | None = None  # of the LLM server, from when it is asked
    pieces: int = 0  # in which the answer came
    milliseconds: dict[str, float] = field(default_factory=dict)  # by part
    started_at: float = field(default_factory=time.perf_counter)
    _marked_at: float = 0.0

    def mark(self, part: str) -> None:
        """Notes how long a part of the turn took, which ends now."""
        now = time.perf_counter()
        seconds = now - (self._marked_at or self.started_at)
        PARTS[part].observe(seconds)
        self.milliseconds[part] = int(seconds * 100_000) / 100
        self._marked_at = now

    def stop(self) -> None:
        """Ends it at once if it is being answered; otherwise it is not asked when its turn comes."""
        self.is_stopped = True
        if self.call:
            self.call.stop()

    def log(self, outcome: str) -> None:
        """Logs a turn that is done."""
        self.mark("send")
        session, parts = session_hash(self.session_id), self.milliseconds
        streamed: dict[str, Any] = {"pieces": self.pieces} if self.pieces else {}
        log.info("turn", session=session, message_id=self.message_id, outcome=outcome, milliseconds=parts, **streamed)


@dataclass(eq=False, slots=True)
class RemoteTurns:
    """Turns that other instances had in hand when a session was resumed: what stands behind them in line waits.

    Those of them that this instance takes over are `taken`, and come next.
    """

    session_id: UUID
    message_ids: set[UUID]
    is_over: bool = False  # nobody waits for them any more
    has_news: asyncio.Event = field(default_factory=asyncio.Event)
    taken: list[Turn] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Lane:
    """A session's line. One task answers what stands in it, one turn at a time, in its order.

    `in_hand` counts the session's turns: in line, being answered, or still being stored.
    """

    line: deque[Turn | RemoteTurns] = field(default_factory=deque)
    in_hand: int = 0
    remote: list[RemoteTurns] = field(default_factory=list)
    is_worked_on: bool = False
