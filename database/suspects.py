"""Connections that have died without a word to either side, found out when they are used."""

import asyncio
from typing import Any

from common.tasks import TaskOwner
from database.connecting import connect
from database.failures import FAILED

SUSPICIOUS_SECONDS = 0.4
# Where activities are not tracked the state is unknown.
_LIST_BUSY = "SELECT pid FROM pg_stat_activity WHERE pid = ANY ($1::integer[]) AND state IS DISTINCT FROM 'idle'"


class Suspects:
    """Cuts a connection whose statement the server knows nothing of, so that the statement is run again on another.

    Whatever takes long is looked up on a new connection, of which there is one at a time.
    """

    def __init__(self, dsn: str, timeout: float) -> None:
        self._dsn = dsn
        self._timeout = timeout
        self._suspects: set[Any] = set()
        self._is_looking = False
        self.tasks = TaskOwner("suspects")

    def add(self, connection: Any) -> None:
        """Its statement takes long. A pooler's own connections are left alone."""
        if connection.is_direct:
            self._suspects.add(connection)
            if not self._is_looking:
                self._is_looking = True
                self.tasks.start(self._look_up())

    def discard(self, connection: Any) -> None:
        """Its statement is done."""
        self._suspects.discard(connection)

    async def _look_up(self) -> None:
        asker: Any = None
        try:
            async with asyncio.timeout(self._timeout):
                asker = await connect(self._dsn)
                while self._suspects:
                    asked = {connection.get_server_pid(): connection for connection in self._suspects}
                    busy = {row["pid"] for row in await asker.fetch(_LIST_BUSY, [*asked])}
                    for pid, connection in asked.items():
                        if connection in self._suspects and pid not in busy:
                            connection.terminate()
                    self._suspects.difference_update(asked.values())
        except (TimeoutError, *FAILED):
            self._suspects.clear()  # it is the server, and not the way to it
        finally:
            self._is_looking = False
            if asker is not None:
                asker.terminate()
