"""The sign of life of this instance, and those of the others."""

import logging
import time

from common.errors import DatabaseError
from common.logs import fields
from database.notices import INSTANCE_LOCK
from database.pool import Database

logger = logging.getLogger("gateway.instance")

# An instance that shows no sign of life is declared dead after so many seconds: without its lock it has crashed, with
# it it may only be slow, or its machine may be gone.
CRASHED_SECONDS = 2.5
LOST_SECONDS = 20.0


class Heartbeat:
    """Owns what was last seen of the other instances: their sign of life, and since when it has been the same."""

    def __init__(self, instance_id: int, chatdb: Database) -> None:
        self._instance_id = instance_id
        self._chatdb = chatdb
        self._signs: dict[int, tuple[int, float]] = {}

    async def beat(self) -> bool:
        """Renews this instance's sign of life, and removes instances that have shown none for too long.

        False if the others had declared this one dead. Raises DatabaseError.
        """
        try:
            rows = await self._chatdb.fetch("renew_instance", self._instance_id, INSTANCE_LOCK)
        except DatabaseError:
            self._signs.clear()  # who could not look cannot tell how long the others have been silent
            raise
        now = time.monotonic()
        signs: dict[int, tuple[int, float]] = {}
        for row in rows:
            if row["id"] is None:
                continue
            beat, since = self._signs.get(row["id"], (None, now))
            signs[row["id"]] = (row["beat"], since if beat == row["beat"] else now)
            silent = now - signs[row["id"]][1]
            is_dead = silent > (LOST_SECONDS if row["is_locked"] else CRASHED_SECONDS)
            if is_dead and await self._chatdb.fetch("remove_instance", row["id"], row["beat"]):
                logger.warning("instance lost", extra=fields(other=row["id"], silent_seconds=round(silent, 1)))
        self._signs = signs
        return not rows[0]["was_given_up"]
