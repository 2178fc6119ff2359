"""The signs of life of the instances: this one's shown, the others' watched."""

import time
from typing import NamedTuple

import asyncpg

from common.clock import Clock
from common.logs import log
from database.notices import INSTANCE_LOCK
from database.pool import Database

# An instance that shows no sign of life is declared dead after so many seconds: without its lock it has crashed, with
# it it may only be slow, or its machine may be gone.
CRASHED_SECONDS = 2.5
LOST_SECONDS = 20.0


class Look(NamedTuple):
    """What an instance sees of the others, once a second."""

    was_given_up: bool
    has_lost_others: bool  # so that some turns may be nobody's
    queue_usage: float  # of the notices, up to 1


class Sign(NamedTuple):
    """The sign of life of another instance, when it last changed, and when its lock was last seen to be held."""

    beat: int
    changed_at: float
    locked_at: float


class Heartbeat:
    """Shows this instance's sign of life, how often it has looked at the others, and knows the others' signs."""

    def __init__(self, instance_id: int, clock: Clock, chatdb: Database) -> None:
        self.count = 0
        self._instance_id = instance_id
        self._clock = clock
        self._chatdb = chatdb
        self._signs: dict[int, Sign] | None = None  # not known
        self._are_shown = True

    async def beat(self, *, is_shown: bool) -> Look:
        """Looks at the others, and removes those that have shown no sign for too long. Raises DatabaseError.

        The sign is shown on the LISTEN connection. While that is lost, or somebody does not show theirs there (as those
        of versions before do, which do not look for one there either), it is written into the instance's row.
        """
        written = not (is_shown and self._are_shown)
        before, self._signs = self._signs, None  # who cannot look cannot tell how long the others have been silent
        rows = await self._chatdb.fetch("renew_instance", self._instance_id, INSTANCE_LOCK, self.count + 1, written)
        self.count += 1
        self._clock.set(rows[0]["now"])
        others = [row for row in rows if row["id"] is not None]
        self._are_shown = all(row["is_shown"] for row in others)
        signs = {row["id"]: _read_sign(row, before or {}) for row in others}
        for row in others:
            if await self._is_removed(row, signs[row["id"]]):
                del signs[row["id"]]
        self._signs = signs
        has_lost_others = before is None or not before.keys() <= signs.keys()
        return Look(rows[0]["was_given_up"], has_lost_others, rows[0]["queue_usage"])

    async def _is_removed(self, row: asyncpg.Record, sign: Sign) -> bool:
        now = time.monotonic()
        silent = now - (sign.changed_at if row["is_locked"] else max(sign.changed_at, sign.locked_at))
        if silent <= (LOST_SECONDS if row["is_locked"] else CRASHED_SECONDS):
            return False
        removed = await self._chatdb.fetch("remove_instance", row["id"], row["written"])
        if removed:
            log.warning("instance lost", other=row["id"], silent_seconds=round(silent, 1))
        return bool(removed)


def _read_sign(row: asyncpg.Record, before: dict[int, Sign]) -> Sign:
    now = time.monotonic()
    last = before.get(row["id"], Sign(-1, now, now))
    has_changed = row["beat"] > last.beat
    return Sign(
        max(row["beat"], last.beat),
        now if has_changed else last.changed_at,
        now if row["is_locked"] else last.locked_at,
    )
