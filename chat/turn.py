"""What stands in a session's line: a prompt to be answered here, or one that another instance answers."""

import asyncio
import logging
import time
from uuid import UUID

from common import metrics
from common.logs import fields, session_hash

logger = logging.getLogger("gateway.turns")

# Looked up once; to find a metric by its labels costs more than to add to it.
PARTS = {
    part: metrics.turn_seconds.labels(part) for part in ("store_prompt", "wait", "upstream", "store_answer", "send")
}
OUTCOMES = {outcome: metrics.prompts.labels(outcome) for outcome in ("faq", "term", "llm", "too_old", "duplicate")}


class Turn:
    """A prompt that this instance answers."""

    __slots__ = ("_marked_at", "is_too_old", "message_id", "milliseconds", "session_id", "started_at", "text")

    def __init__(self, session_id: UUID, message_id: UUID, text: str, is_too_old: bool = False) -> None:
        self.session_id = session_id
        self.message_id = message_id
        self.text = text
        self.is_too_old = is_too_old
        self.milliseconds: dict[str, float] = {}
        self.started_at = self._marked_at = time.perf_counter()

    def mark(self, part: str) -> None:
        """Notes how long a part of the turn took, which ends now."""
        now = time.perf_counter()
        PARTS[part].observe(now - self._marked_at)
        self.milliseconds[part] = int((now - self._marked_at) * 100_000) / 100
        self._marked_at = now

    def log(self, outcome: str) -> None:
        """The line of a turn that is done."""
        self.mark("send")
        about = {"session": session_hash(self.session_id), "message_id": self.message_id, "outcome": outcome}
        logger.info("turn", extra=fields(**about, milliseconds=self.milliseconds))


class TurnElsewhere:
    """A prompt of a resumed session that another instance answers: what comes after it waits for that answer.

    `is_over` when nobody has to wait for it any more; `has_news` is set when that may be so.
    """

    __slots__ = ("has_news", "is_over", "message_id", "session_id")

    def __init__(self, session_id: UUID, message_id: UUID) -> None:
        self.session_id = session_id
        self.message_id = message_id
        self.is_over = False
        self.has_news = asyncio.Event()

    def end(self) -> None:
        self.is_over = True
        self.has_news.set()
